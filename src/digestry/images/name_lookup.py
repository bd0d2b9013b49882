"""The lookup of names in the local store: full names, names of other tools, and prefixes of digests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from digestry.errors import Ambiguous, ContentError, InvalidReference, NotFound, StorageError
from digestry.images.layout import LayoutEntry
from digestry.images.store import ImageStore, plain_descriptor
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.digest_prefix import DigestPrefix
from digestry.model.reference import Reference
from digestry.model.text import printable

_SHOWN: Final = 10


class FoundImage(NamedTuple):
    """The image that a text names in the store.

    ``reference`` is the text as a full name, with the whole digest; None if there is none, such as for a
    digest that several repositories have. ``entries`` are the names that the text means, unless ``reference``
    does.
    """

    descriptor: Descriptor
    reference: Reference | None
    entries: tuple[LayoutEntry, ...] = ()


class _Match(NamedTuple):
    """A digest with the prefix: its entry, its kind, and whether the entry is one of its names."""

    digest: Digest
    entry: LayoutEntry
    descriptor: Descriptor
    is_name: bool


def look_up(store: ImageStore, text: str, read: Callable[[str], Reference]) -> FoundImage:
    """Return the image that ``text`` names; ``read`` completes it to a reference.

    In this order: a name exactly as it is listed, a full name, and ``[REPO[:TAG]@][sha256:]hex`` with the
    beginning of a digest or of an image ID. Raises :class:`NotFound`, :class:`Ambiguous`, and
    :class:`InvalidReference` for text that is no name.
    """
    found = names_of(store, text, read)
    if isinstance(found, Reference):
        return FoundImage(store.find(found), found)
    descriptors = {match.descriptor.digest: match.descriptor for match in found}
    if len(descriptors) > 1:
        raise _ambiguous(text, found)
    entries = tuple(match.entry for match in found if match.is_name)
    return FoundImage(found[0].descriptor, _reference(text, found, read), entries)


def removable(
    store: ImageStore, text: str, read: Callable[[str], Reference]
) -> Reference | tuple[LayoutEntry, ...]:
    """Return the names that ``text`` means, for removal. Raises as :func:`look_up` does."""
    found = names_of(store, text, read)
    if isinstance(found, Reference):
        return found
    entries = tuple(match.entry for match in found if match.is_name)
    if not entries:
        holder = found[0].entry
        raise NotFound(
            f"{found[0].digest} has no name of its own: it is a part of {_called(holder)}",
            hint=f"remove that: digestry rmi {_called(holder)}",
        )
    return entries


def names_of(store: ImageStore, text: str, read: Callable[[str], Reference]) -> Reference | list[_Match]:
    """Return the full name ``text``, or else the matches of it as a prefix."""
    entries = store.entries()
    listed = [
        _Match(entry.descriptor.digest, entry, plain_descriptor(entry.descriptor), is_name=True)
        for entry in entries
        if entry.reference is None and entry.name is not None and text in {entry.name, printable(entry.name)}
    ]
    if listed:
        return listed
    name, at, _ = text.partition("@")
    prefix = DigestPrefix.of_name(text) if at else DigestPrefix.read(text)
    problem: InvalidReference | NotFound
    reference = None
    try:
        reference = read(text).or_latest()
        store.find(reference)
        return reference
    except (InvalidReference, NotFound) as error:
        problem = error
    if prefix is None:
        raise problem
    if at:
        repository = read(name).repository_only()
        entries = [e for e in entries if e.reference and e.reference.repository_only() == repository]
    matches = [match for entry in entries for match in _matches(store, entry, prefix)]
    if not matches:
        place = f"of {read(name).name} " if at else ""
        either = f"{reference} is not in the local store, and " if reference is not None and not at else ""
        raise NotFound(
            f"{either}no digest or image ID {place}in the local store begins with {prefix}",
            hint="`digestry images --digests` lists what is there; `digestry pull REPO@DIGEST` fetches "
            "what is not",
        )
    if len({match.digest for match in matches}) > 1:
        raise _ambiguous(text, matches)
    return matches


def _matches(store: ImageStore, entry: LayoutEntry, prefix: DigestPrefix) -> Iterator[_Match]:
    own = plain_descriptor(entry.descriptor)
    if prefix.begins(own.digest):
        yield _Match(own.digest, entry, own, is_name=True)
    try:
        children = [child for child in store.descendants(own) if store.blobs.stat(child.digest) is not None]
        for child in children:
            if prefix.begins(child.digest):
                yield _Match(child.digest, entry, plain_descriptor(child), is_name=False)
        for image in store.present_images(store.manifest(own)):
            if prefix.begins(image.config.digest):
                yield _Match(image.config.digest, entry, own, is_name=True)
    except (ContentError, StorageError, NotFound):
        return  # an unreadable image has no image ID; `images` reports the damage


def _reference(text: str, found: list[_Match], read: Callable[[str], Reference]) -> Reference | None:
    digest = found[0].descriptor.digest
    name, at, _ = text.partition("@")
    if at:
        named = read(name)
        return Reference(named.host, named.repository, named.tag, digest)
    known = {match.entry.reference for match in found}
    if None in known:
        try:
            return read(text).or_latest() if len(found) == 1 and found[0].entry.name == text else None
        except InvalidReference:
            return None
    repositories = {reference.repository_only() for reference in known if reference is not None}
    return repositories.pop().with_digest(digest) if len(repositories) == 1 else None


def _ambiguous(text: str, found: list[_Match]) -> Ambiguous:
    candidates = dict.fromkeys(
        f"{match.digest if match.digest != match.descriptor.digest else match.descriptor.digest}"
        f" ({_called(match.entry)})"
        for match in sorted(found, key=lambda match: (match.digest, _called(match.entry)))
    )
    listed = ", ".join(list(candidates)[:_SHOWN]) + (", …" if len(candidates) > _SHOWN else "")
    return Ambiguous(
        f"{text} is several images of the local store: {listed}", hint="write more of its digits, or a name"
    )


def _called(entry: LayoutEntry) -> str:
    return entry.name or str(entry.descriptor.digest)
