"""Pruning the local store: names without a tag, unreferenced content, interrupted downloads."""

from __future__ import annotations

import msgspec

from digestry.errors import Conflict
from digestry.images.layout import LayoutEntry
from digestry.images.removal import live_digests, remove_images
from digestry.images.store import ImageStore
from digestry.model.digest import Digest


class Prunable(msgspec.Struct, frozen=True):
    """The names and content that :func:`prune` would remove: names, content (``freed`` is its bytes) and
    partial downloads."""

    names: tuple[str, ...]
    digests: tuple[Digest, ...]
    freed: int
    partial: tuple[str, ...]
    entries: tuple[LayoutEntry, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.names or self.digests or self.partial)


def prunable(store: ImageStore, *, keep_untagged: bool = False) -> Prunable:
    """Return the unused names and content of the store; removes nothing.

    An image is untagged if no tag of its repository points to its digest. With ``keep_untagged`` only content
    that no name holds counts. Raises :class:`Conflict` while another process adds content, and
    :class:`ContentError` if it is not known which content is used.
    """
    if not store.root.exists():
        return Prunable((), (), 0, ())
    with store.exclusive():
        entries = store.entries()
        gone = [] if keep_untagged else _untagged(entries)
        live = live_digests(store, [entry for entry in entries if entry not in gone])
        dead = tuple(digest for digest in store.blobs.digests() if digest not in live)
        return Prunable(
            tuple(entry.name or str(entry.descriptor.digest) for entry in gone),
            dead,
            sum(store.blobs.stat(digest) or 0 for digest in dead),
            tuple(store.blobs.ingests()),
            tuple(gone),
        )


def prune(store: ImageStore, *, keep_untagged: bool = False) -> Prunable:
    """Remove the unused names and content of the store, and return them.

    Raises as :func:`prunable` does, and then removes nothing.
    """
    found = prunable(store, keep_untagged=keep_untagged)
    if not found:
        return found
    # No process writes: all that is in part is left over.
    removal = remove_images(store, [found.entries] if found.entries else [], partial_seconds=-1)
    if removal.kept:
        raise Conflict(f"no content was removed: {removal.kept}")
    return msgspec.structs.replace(found, names=removal.names, digests=removal.deleted, freed=removal.freed)


def _untagged(entries: list[LayoutEntry]) -> list[LayoutEntry]:
    """Return the entries of digests that no tag of their repository points to, and those without a name."""
    tagged = {
        (known.repository_only(), entry.descriptor.digest)
        for entry in entries
        if (known := entry.reference) is not None and known.tag is not None
    }
    return [
        entry
        for entry in entries
        if entry.name is None
        or (
            (known := entry.reference) is not None
            and known.tag is None
            and (known.repository_only(), entry.descriptor.digest) not in tagged
        )
    ]
