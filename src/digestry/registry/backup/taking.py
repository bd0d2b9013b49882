"""Take a backup of a registry, also while it serves.

The catalog's snapshot comes first, and lists the content that there must be. Garbage collection cannot remove
any of that while its lock is held. Every blob is hashed while it is copied: its presence proves nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from digestry import fsio
from digestry.backend import Backend
from digestry.blobs.disk import open_layout
from digestry.blobs.ingests import Chunk
from digestry.blobs.layout_version import LAYOUT, LAYOUT_FILE
from digestry.blobs.protocols import BlobStore
from digestry.catalog.snapshot import Held, Snapshot
from digestry.coordination import key_files
from digestry.coordination.key_files import KeyFiles
from digestry.errors import Conflict, ContentError, NotFound
from digestry.file_locks import locked
from digestry.model.digest import Digest
from digestry.registry import store_identity
from digestry.registry.backup import copying, description
from digestry.registry.backup.archive import ArchiveWriter
from digestry.registry.backup.copying import Flow, Source, Unusable
from digestry.registry.backup.description import Description, Part
from digestry.registry.backup.frozen import BackupCounts, FrozenRegistry, frozen
from digestry.registry.permissions import is_shared, make_private
from digestry.registry.root import BACKUP_LOCK


class Watcher(Protocol):
    """An observer of a backup's progress."""

    def total(self, size: int) -> None:
        """Note that the backup has ``size`` bytes in all."""
        ...

    def moved(self, count: int) -> None:
        """Note that ``count`` more bytes are done."""
        ...


@dataclass(slots=True)
class TakenBackup:
    """The result of a backup: its description, and the counts of copied, kept and removed blobs and bytes."""

    description: Description
    copied: int = 0
    copied_bytes: int = 0
    kept: int = 0
    removed: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)

    @property
    def findings(self) -> bool:
        """Return whether something is wrong with the registry that was backed up."""
        return bool(self.description.missing or self.description.journal.broken)


# -- to a directory ----------------------------------------------------------------------------


def to_directory(
    backend: Backend,
    root: Path,
    destination: Path,
    *,
    verify: bool,
    keep: bool,
    flow: Flow,
    watcher: Watcher,
) -> TakenBackup:
    """Make or update the backup in ``destination``. ``root`` is the directory of the registry's own files.

    A blob of an earlier backup that has the right size is not copied again. ``verify`` reads it, and copies
    it again if it is damaged. Blobs that the new backup does not need are removed, unless ``keep``. An
    earlier backup stays valid until the very end.

    Raises :class:`NotFound` if there is no registry, :class:`Conflict` if ``destination`` is
    something else than a backup of it, or its catalog is not a file; :class:`NewerBackup`,
    :class:`StorageError`.
    """
    backend.catalog_store.require()
    _check_destination(root, destination)
    fsio.make_directory(destination)
    held = f"another backup is being written to {destination}"
    with locked(destination / BACKUP_LOCK, wait=False, held=held, mode=0o600):
        make_private(destination, group=is_shared(destination))
        earlier = _earlier(destination)
        follows = None if earlier is None or not earlier.journal.entries else earlier.journal.last_hash
        with frozen(backend, root, destination, follows) as source:
            target = open_layout(destination)
            store_identity.check_copy(source.copy, target.mark(), target.location)
            target.prepare()
            target.sweep_ingests(0)
            tally = _copy_blobs(source, target, verify=verify, flow=flow, watcher=watcher)
            kept_keys = [_write_key(destination, part, content) for part, content in source.read_keys()]
            backup = source.describe(tally, kept_keys)
            with fsio.storage_errors("protect", source.catalog.path):
                source.catalog.path.chmod(0o600)
            fsio.publish(source.catalog.path, destination / source.part.path)
            fsio.write_file(destination / description.FILE, backup.encode())
            if source.mark is not None:
                target.set_mark(source.mark)
            removed = _remove_stale(destination, backup, None if keep else source.catalog, target)
            return TakenBackup(
                backup,
                tally.copied,
                tally.copied_bytes,
                tally.blobs - tally.copied,
                removed,
                source.left_out(),
            )


def _check_destination(root: Path, destination: Path) -> None:
    inner, outer = destination.resolve(), root.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise Conflict(f"{destination} and the registry under {root} are in one another")
    with fsio.storage_errors("look at", destination):
        try:
            names = set(os.listdir(destination))  # noqa: PTH208 - a few names
        except FileNotFoundError:
            return
    if names - {"lost+found"} and not names & {BACKUP_LOCK, description.FILE}:
        raise Conflict(f"{destination} is not empty, and no backup", hint="choose a new directory")


def _earlier(destination: Path) -> Description | None:
    try:
        return description.read(destination)
    except description.NewerBackup:
        raise
    except (NotFound, ContentError):
        return None  # one that was broken off, or is damaged: it is made complete


def _copy_blobs(
    source: FrozenRegistry, target: BlobStore, *, verify: bool, flow: Flow, watcher: Watcher
) -> BackupCounts:
    blobs = source.backend.blobs
    tally = BackupCounts()
    watcher.total(source.catalog.bytes)

    def carry(held: Held) -> bool:
        there = target.stat(held.digest)
        if there == held.size and (not verify or copying.check(target, held, flow)):
            return False
        try:
            copying.copy(blobs, target, held, flow)
        except Unusable:
            if there is not None:
                target.delete(held.digest)  # a name there means: complete
            raise
        return True

    with contextlib.closing(copying.in_threads(carry, source.catalog.held(), flow)) as outcomes:
        for held, outcome in outcomes:
            if isinstance(outcome, Unusable):
                tally.lose(held, outcome.message, source.catalog)
            else:
                tally.add(held, copied=outcome)
            if outcome is False and not verify:
                watcher.moved(held.size)
    return tally


def _write_key(destination: Path, part: Part, content: bytes) -> Part:
    KeyFiles(destination / key_files.DIRECTORY).add(description.key_id(part.path), content)
    return part


def _remove_stale(destination: Path, backup: Description, catalog: Snapshot | None, target: BlobStore) -> int:
    """Remove the files of an earlier backup that this one does not have, and return the number of blobs."""
    wanted = {backup.catalog.path, *(part.path for part in backup.keys)}
    with fsio.storage_errors("list", destination):
        present = [path.name for path in destination.iterdir() if description.CATALOG.fullmatch(path.name)]
        folder = destination / key_files.DIRECTORY
        present += (
            [f"{key_files.DIRECTORY}/{path.name}" for path in folder.iterdir()] if folder.is_dir() else []
        )
    for name in present:
        if name not in wanted:
            fsio.remove_file(destination / name)
    if catalog is None:
        return 0
    return sum(target.delete(digest) for digest in target.digests() if catalog.size(digest) is None)


# -- to an archive -----------------------------------------------------------------------------


def to_archive(
    backend: Backend,
    root: Path,
    write: Callable[[Chunk], object],
    *,
    temporary: Path | None = None,
    flow: Flow,
    watcher: Watcher,
) -> TakenBackup:
    """Write a backup as one tar stream. ``temporary`` is where the snapshot is staged (None: in the root).

    Raises :class:`NotFound` if there is no registry, :class:`Conflict` if its catalog is not a file,
    :class:`StorageError`, and what ``write`` raises.
    """
    backend.catalog_store.require()
    with frozen(backend, root, temporary or root) as source:
        tally = BackupCounts()
        writer = ArchiveWriter(write, mtime=int(source.taken_at.timestamp()))
        size = source.part.size
        writer.add(source.part.path, size, _pieces(source.catalog.path), mode=0o600)
        writer.add(LAYOUT_FILE, len(LAYOUT), [LAYOUT])
        kept_keys = []
        for part, content in source.read_keys():
            writer.add(part.path, part.size, [content], mode=0o600)
            kept_keys.append(part)
        watcher.total(source.catalog.bytes)
        blobs = backend.blobs
        for held in source.catalog.held():
            try:
                _write_blob(writer, blobs, held, flow)
                tally.add(held)
            except Unusable as error:
                tally.lose(held, error.message, source.catalog)
        backup = source.describe(tally, kept_keys)
        content = backup.encode()
        writer.add(description.FILE, len(content), [content])
        writer.finish()
        return TakenBackup(backup, tally.copied, tally.copied_bytes, left_out=source.left_out())


def blob_name(digest: Digest) -> str:
    """Return a blob's path in a backup."""
    return f"blobs/{digest.algorithm}/{digest.encoded}"


def _pieces(path: Path) -> Iterator[bytes]:
    with fsio.storage_errors("read", path), path.open("rb") as file:
        while piece := file.read(1 << 20):
            yield piece


def _write_blob(writer: ArchiveWriter, blobs: BlobStore, held: Held, flow: Flow) -> None:
    """Write a blob's entry. Raises :class:`Unusable` if it wrote no entry, or one with wrong bytes."""
    with Source(blobs, held) as content:
        stream = _Stream(content, held, flow)
        chunks = iter(stream)
        if held.size <= len(stream.buffer):
            chunks = iter(list(chunks))  # one, checked before any of it is written
            stream.finish()
        writer.add(blob_name(held.digest), held.size, chunks)
        stream.finish()


class _Stream:
    """A blob's content, which always yields exactly as many bytes as the blob's header states."""

    def __init__(self, content: Source, held: Held, flow: Flow) -> None:
        self.buffer = copying.buffer_for(held.size)
        self._content = content
        self._held = held
        self._flow = flow
        self._hasher = held.digest.hasher()
        self._problem: Unusable | None = None

    def __iter__(self) -> Iterator[memoryview]:
        view = memoryview(self.buffer)
        left = self._held.size
        while left:
            count = min(left, self._read() or min(left, len(view)))
            self._hasher.update(view[:count])
            yield view[:count]
            self._flow.passed(count)
            left -= count

    def _read(self) -> int:
        if self._problem is None:
            try:
                if count := self._content.read_into(self.buffer):
                    return count
                self._problem = Unusable("it was cut short while it was read")
            except Unusable as error:
                self._problem = error
        return 0

    def finish(self) -> None:
        """Raise :class:`Unusable` if the bytes were not the blob's."""
        if self._problem is not None:
            raise self._problem
        if self._hasher.hexdigest() != self._held.digest.encoded:
            raise Unusable(copying.WRONG_BYTES)
