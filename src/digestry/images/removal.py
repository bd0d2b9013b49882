"""Removing images from the local store: their names first, then the content that no name holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from digestry.errors import Conflict, ContentError, NotFound
from digestry.images.layout import Layout, LayoutEntry
from digestry.images.store import ImageStore
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.reference import Reference


class Removal(msgspec.Struct, frozen=True):
    """The removed names and content (``freed`` is its bytes). ``kept`` says why no content was."""

    names: tuple[str, ...]
    deleted: tuple[Digest, ...] = ()
    freed: int = 0
    kept: str = ""


PARTIAL_SECONDS: Final = 24 * 3600.0
"""How long the beginning of an interrupted download is kept for the next one, although images are removed."""


def remove_images(
    store: ImageStore,
    targets: Iterable[Reference | tuple[LayoutEntry, ...]],
    *,
    partial_seconds: float = PARTIAL_SECONDS,
) -> Removal:
    """Remove names, and then the content that no name needs, and downloads idle for ``partial_seconds``.

    A digest means all its names in that repository. The removal of the last tag of a digest also removes the
    digest's own name. Entries of the index mean only themselves, also without a name. Raises
    :class:`NotFound` if one target is not there, and then removes nothing.
    """
    targets = list(targets)
    removed: list[str] = []
    with store.changing() as layout:
        for target in targets:
            if isinstance(target, Reference):
                _remove_reference(layout, target, removed)
            else:
                gone = [entry for entry in target if layout.remove_entry(entry)]
                removed += [entry.name or str(entry.descriptor.digest) for entry in gone]
    deleted, freed, kept = remove_unreferenced(store, partial_seconds)
    return Removal(tuple(removed), deleted, freed, kept)


def _remove_reference(layout: Layout, reference: Reference, removed: list[str]) -> None:
    """Remove the names that ``reference`` means, and add them to ``removed``."""
    names = [entry.name for entry in _named_by(layout, reference)]
    if not names and str(reference) not in removed:
        raise NotFound(
            f"{reference} is not in the local store",
            hint="`digestry images --digests` lists what is there",
        )
    removed += [name for name in names if name is not None and layout.remove_name(name)]


def _named_by(layout: Layout, reference: Reference) -> list[LayoutEntry]:
    """Return the entries that ``reference`` means."""
    repository = reference.repository_only()
    entries = [
        (entry, known)
        for entry in layout.entries()
        if (known := entry.reference) is not None and known.repository_only() == repository
    ]
    if reference.digest is not None:
        tags = {reference.tag, None} if reference.tag is not None else None
        return [
            entry
            for entry, known in entries
            if entry.descriptor.digest == reference.digest and (tags is None or known.tag in tags)
        ]
    found = [entry for entry, known in entries if known.tag == reference.tag]
    for tagged in list(found):
        digest = tagged.descriptor.digest
        same_digest = [(entry, known) for entry, known in entries if entry.descriptor.digest == digest]
        if sum(known.tag is not None for _, known in same_digest) == 1:  # the last tag of that digest
            found += [entry for entry, known in same_digest if known.tag is None]
    return found


def remove_unreferenced(
    store: ImageStore, partial_seconds: float = PARTIAL_SECONDS
) -> tuple[tuple[Digest, ...], int, str]:
    """Remove the content that no name needs; return its digests, its bytes, and why nothing was removed.

    If it is not known which content is used, nothing is removed.
    """
    try:
        with store.exclusive():
            live = live_digests(store, store.entries())
            dead = [digest for digest in store.blobs.digests() if digest not in live]
            freed = sum(store.blobs.stat(digest) or 0 for digest in dead)
            for digest in dead:
                store.blobs.delete(digest)
            store.blobs.sweep_ingests(older_than=partial_seconds)
            return tuple(dead), freed, ""
    except Conflict:
        return (), 0, "another digestry is storing content; the next rmi removes what is left over"
    except ContentError as error:
        return (), 0, f"the content of the other images is not known: {error.message}"


def live_digests(store: ImageStore, entries: Iterable[LayoutEntry]) -> set[Digest]:
    """Return the digests of all content that ``entries`` hold. Raises :class:`ContentError`."""
    live: set[Digest] = set()
    waiting = [entry.descriptor for entry in entries]
    while waiting:
        descriptor = waiting.pop()
        if descriptor.digest in live:
            continue
        live.add(descriptor.digest)
        if descriptor.media_type not in media_types.MANIFESTS or store.blobs.stat(descriptor.digest) is None:
            continue  # a blob, or a platform that was not pulled
        manifest = store.manifest(descriptor)
        waiting += [*manifest.manifests, *manifest.blobs()]
    return live
