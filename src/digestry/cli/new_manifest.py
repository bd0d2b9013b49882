"""New manifests that commands make: their names, and putting them into a registry or the local store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from digestry.cli.output import note, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from digestry.cli.image_location import LocatedImage
    from digestry.cli.settings import Settings
    from digestry.client.session import Session
    from digestry.model.digest import Digest
    from digestry.model.manifest import Image, Index
    from digestry.model.reference import Reference

_MOVED: Final = 412
_MOST_TRIES: Final = 20


def new_name(settings: Settings, reference: Reference | None, target: str | None) -> Reference:
    """Return the name for a new manifest: ``target``, or else the tag of the one that it is made from.

    Raises :class:`InvalidReference`.
    """
    from digestry.errors import InvalidReference

    if target is not None:
        name = settings.reference(target).or_latest()
    elif reference is not None and reference.tag is not None:
        name = reference.repository_only().with_tag(reference.tag)
    else:
        raise InvalidReference("the new digest needs a name", hint="give it with --tag NAME")
    if name.digest is not None:
        raise InvalidReference(f"{name} has a digest, which cannot be chosen", hint="write REPO:TAG")
    return name


def keep(
    settings: Settings,
    session: Session,
    manifest: Image | Index,
    name: Reference,
    *,
    local: bool,
    replaces: Digest | None = None,
) -> None:
    """Put a new manifest under ``name``, in its registry or in the local store, and print the result.

    With ``replaces``, a registry that can compare refuses with 412 if the tag no longer points there.
    """
    from digestry.cli.sessions import open_store
    from digestry.errors import RemoteNotFound

    if local:
        store = open_store(settings)
        with store.adding():
            store.blobs.put(manifest.raw, manifest.digest)
            if name.tag is None:
                name = name.with_digest(manifest.digest)
            before = store.point(name, manifest.descriptor())
    else:
        repository = session.repository(name)
        before = None
        if name.tag is not None:
            try:
                before = repository.resolve(name.tag).digest
            except RemoteNotFound:
                before = None
        tags = [name.tag] if name.tag else []
        repository.push_manifest(
            manifest.raw, manifest.media_type, tags=tags, digest=manifest.digest, replaces=replaces
        )
    if before is not None and before != manifest.digest:
        note(f"{name} pointed to {before} before")
    say(str(manifest.digest))


def change(
    settings: Settings,
    session: Session,
    text: str,
    target: str | None,
    edit: Callable[[LocatedImage, Reference], bytes],
    *,
    local: bool,
) -> None:
    """Put what ``edit`` makes of the manifest that ``text`` names under ``target`` or its own tag, and print
    the result.

    If another client moves the tag meanwhile, in a registry that can compare, ``edit`` gets the new one:
    neither loses what the other did.
    """
    from digestry.cli.image_location import locate
    from digestry.errors import Refused
    from digestry.model.manifest import parse_manifest

    for left in reversed(range(_MOST_TRIES)):
        found = locate(settings, session, text, local=local)
        old, reference = found.manifest, found.reference
        name = new_name(settings, reference, target)
        changed = parse_manifest(edit(found, name), old.media_type, algorithm=old.digest.algorithm)
        own = reference is not None and reference.digest is None and reference.tag is not None
        replaces = old.digest if own and name == reference else None
        try:
            keep(settings, session, changed, name, local=local, replaces=replaces)
        except Refused as error:
            if error.status != _MOVED or not left:
                raise
        else:
            return


def as_index(manifest: Image | Index) -> Index:
    """Return an index. Raises :class:`InvalidConfiguration` for an image."""
    from digestry.errors import InvalidConfiguration
    from digestry.model.manifest import Index

    if not isinstance(manifest, Index):
        raise InvalidConfiguration(f"{manifest.digest} is an image, and not an index")
    return manifest


def entry_digest(index: Image | Index, text: str) -> Digest:
    """Return the digest of the entry that ``text`` names: by its digest, or the beginning of it, or platform.

    Raises :class:`NotFound` and :class:`Ambiguous`.
    """
    from digestry.errors import InvalidConfiguration, NotFound
    from digestry.model.digest_prefix import DigestPrefix
    from digestry.model.platform import Platform

    prefix = DigestPrefix.read(text)
    if prefix is not None:
        return prefix.only_match([entry.digest for entry in index.manifests], str(index.digest))
    try:
        wanted = str(Platform.chosen(text))
    except InvalidConfiguration:
        wanted = text
    found = [entry.digest for entry in index.manifests if entry.platform and str(entry.platform) == wanted]
    if len(found) != 1:
        there = ", ".join(str(entry.platform or entry.digest) for entry in index.manifests) or "none"
        raise NotFound(
            f"{index.digest} has {len(found)} entries for {text}",
            hint=f"its entries: {there}; a digest names one for sure",
        )
    return found[0]
