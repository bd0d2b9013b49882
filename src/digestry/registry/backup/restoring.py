"""Restore a registry from a backup. The registry cannot be served before all of it was checked."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from digestry import fsio
from digestry.backend import Backend
from digestry.blobs.disk import open_layout
from digestry.blobs.layout_version import LAYOUT_FILE
from digestry.blobs.protocols import BlobStore
from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.snapshot import Held, Snapshot
from digestry.catalog.store import CatalogFile
from digestry.errors import ContentError, DigestMismatch, InvalidDigest, SizeMismatch
from digestry.model.digest import Digest, shown
from digestry.model.timestamps import rfc3339
from digestry.registry import store_identity
from digestry.registry.backup import copying, description
from digestry.registry.backup.archive import ArchiveEntry, ArchiveReader
from digestry.registry.backup.copying import WRONG_BYTES, Flow, Unusable
from digestry.registry.backup.description import Description, Missing, Part
from digestry.registry.backup.new_root import new_root
from digestry.registry.backup.taking import Watcher

_SMALL: Final = 256 << 10
"""Bytes of a blob that is read whole, and written while others are read."""
_NOT_IN_IT: Final = "it is not in the archive"
_NOT_RESTORED: Final = "it was not in the backup that this was restored from"
_LOG_SCHEMA: Final = "0015"
"""The first schema with a signed log."""
_BLOB: Final = re.compile(r"blobs/(sha256|sha512)/([0-9a-f]+)", re.ASCII)


@dataclass(slots=True)
class RestoredBackup:
    """The result of a restoration: the backup's description, the restored blobs and bytes, the missing or
    damaged content, and whether the signed log is suspended, since more may have been signed."""

    description: Description
    blobs: int
    bytes: int
    missing: list[Missing]
    log_suspended: bool = False


@dataclass(slots=True)
class _Blobs:
    """The blobs that were restored to ``target``, and those that were missing."""

    catalog: Snapshot
    target: BlobStore
    flow: Flow
    blobs: int = 0
    bytes: int = 0
    lost: dict[Digest, tuple[Held, str]] = field(default_factory=dict)

    def add(self, held: Held) -> None:
        self.blobs += 1
        self.bytes += held.size

    def lose(self, held: Held, problem: str) -> None:
        self.lost[held.digest] = (held, problem)

    def settle(self, backup: Description, *, skip_damaged: bool) -> list[Missing]:
        """Return all missing blobs. Raises :class:`ContentError` for one that the backup should have."""
        if backup.schema != self.catalog.schema or backup.blobs + len(backup.missing) != self.catalog.count:
            raise ContentError("the backup's catalog is not the one in its description")
        known = {missing.digest: missing for missing in backup.missing}
        result = []
        for digest, (held, problem) in sorted(self.lost.items()):
            if str(digest) in known:
                result.append(known[str(digest)])
                continue
            if not skip_damaged:
                raise ContentError(
                    f"{digest} in the backup is damaged: {problem}; nothing was restored",
                    hint="--skip-damaged restores the rest, and lists what is not in it",
                )
            result.append(Missing(str(digest), held.size, problem, self.catalog.holders(digest)))
        return result


def from_directory(
    source: Path,
    backend: Backend,
    root: Path,
    *,
    expect: tuple[str, ...] = (),
    skip_damaged: bool = False,
    flow: Flow,
    watcher: Watcher,
) -> RestoredBackup:
    """Restore the registry of ``backend``, in the directory ``root``, from the backup in ``source``.

    ``expect`` are hashes of entries that the journal must have. ``skip_damaged`` leaves out and lists
    the blobs that are damaged in the backup.

    Raises :class:`NotFound` if there is no complete backup, :class:`Conflict` if ``root`` is not empty,
    :class:`ContentError` if the backup does not match its description, :class:`StorageError`; nothing is left
    behind then.
    """
    backup = description.read(source)
    with new_root(backend, root) as staged:
        _fetch(source, backup.catalog, staged.path)
        with staged.open_snapshot() as catalog:
            for part in backup.keys:
                content = _read_part(source, part)
                _write_key(backend, part.path, content)
            watcher.total(catalog.bytes)
            found = _Blobs(catalog, _target(backend), flow)
            work = partial(copying.copy, open_layout(source), found.target, flow=flow)
            with contextlib.closing(copying.in_threads(work, catalog.held(), flow)) as outcomes:
                for held, outcome in outcomes:
                    if isinstance(outcome, Unusable):
                        found.lose(held, outcome.message)
                    else:
                        found.add(held)
            missing = found.settle(backup, skip_damaged=skip_damaged)
            differs = missing or catalog.any_damaged()
        _check_journal(staged, backup, expect)
        if differs:
            _note_missing(staged, missing)
        suspended = _suspend_log(staged, backup)
        _write_identity(staged, found.target)
    return RestoredBackup(backup, found.blobs, found.bytes, missing, suspended)


def from_archive(
    read: Callable[[int], bytes],
    backend: Backend,
    root: Path,
    *,
    expect: tuple[str, ...] = (),
    skip_damaged: bool = False,
    flow: Flow,
    watcher: Watcher,
) -> RestoredBackup:
    """Restore a registry as :func:`from_directory` does, from an archive that is read once."""
    with new_root(backend, root) as staged:
        reader = ArchiveReader(read)
        entries = iter(reader)
        part = _receive_catalog(reader, next(entries, None), staged.path)
        with staged.open_snapshot() as catalog:
            watcher.total(catalog.bytes)
            found = _Blobs(catalog, _target(backend), flow)
            unpacking = _Unpacking(reader, backend, found)
            backup = unpacking.run(entries)
            if backup.catalog != part:
                raise ContentError("the catalog in the archive is not the one that it was made with")
            description.compare_keys(unpacking.keys, backup.keys, "the archive")
            missing = found.settle(backup, skip_damaged=skip_damaged)
            differs = missing or catalog.any_damaged()
        _check_journal(staged, backup, expect)
        if differs:
            _note_missing(staged, missing)
        suspended = _suspend_log(staged, backup)
        _write_identity(staged, found.target)
    return RestoredBackup(backup, found.blobs, found.bytes, missing, suspended)


# -- the root ----------------------------------------------------------------------------------


def _target(backend: Backend) -> BlobStore:
    backend.blobs.prepare()
    return backend.blobs


def _write_key(backend: Backend, path: str, content: bytes) -> None:
    backend.coordination.keys.add(description.key_id(path), content)


def _check_journal(staged: CatalogFile, backup: Description, expect: tuple[str, ...]) -> None:
    """Check that the journal is still valid up to the entry to which it was when the backup was taken."""
    verdict = staged.verify_journal(expect)
    broken = verdict.broken
    reason = None if broken is None else f"entry {broken.sequence}: {broken.reason}"
    end = description.JournalEnd(verdict.entries, verdict.last_hash, reason)
    if end != backup.journal:
        raise ContentError(
            "the backup's journal is not the one in its description: "
            + (reason or f"it ends with {verdict.last_hash} instead of {backup.journal.last_hash}")
        )
    if verdict.absent:
        raise ContentError(f"the backup's journal has no entry with the hash {verdict.absent[0]}")


def _note_missing(staged: CatalogFile, missing: list[Missing]) -> None:
    """Record missing content as damaged, so that clients push it again, and restored content as whole."""
    catalog = Catalog(staged.open())
    try:
        catalog.migrate()  # an old schema has no room for this
        catalog.damage.settle(
            {content.digest: f"{_NOT_RESTORED}: {content.problem}" for content in missing}, clock.now()
        )
    finally:
        catalog.close()


def _suspend_log(staged: CatalogFile, backup: Description) -> bool:
    """Keep the restored registry from signing a second history of its log; return whether it has one."""
    if backup.schema < _LOG_SCHEMA:
        return False
    catalog = Catalog(staged.open())
    try:
        reason = f"its catalog was restored from the backup of {rfc3339(backup.taken_at)}"
        return catalog.log_suspension.suspend(reason, now=clock.now())
    finally:
        catalog.close()


def _write_identity(staged: CatalogFile, target: BlobStore) -> None:
    """Write the catalog's ID to the blob store. A catalog without an ID gets one when it is first served."""
    mark = store_identity.of_copy(staged)
    if mark is not None:
        target.set_mark(mark)


# -- from a directory --------------------------------------------------------------------------


def _fetch(source: Path, part: Part, target: Path) -> None:
    path = source / part.path
    hasher = hashlib.sha256()
    size = 0
    try:
        descriptor = description.open_part(path)
    except FileNotFoundError as error:
        raise ContentError(f"the backup's {part.path} is not there") from error
    except OSError as error:
        raise fsio.storage_error("open", path, error) from error
    with os.fdopen(descriptor, "rb") as file, fsio.storage_errors("copy", path), target.open("xb") as copy:
        while size <= part.size and (chunk := file.read(1 << 20)):
            hasher.update(chunk)
            size += len(chunk)
            copy.write(chunk)
    if Part(part.path, size, hasher.hexdigest()) != part:
        raise ContentError(f"the backup's {part.path} is damaged: it is not what was written")


def _read_part(source: Path, part: Part) -> bytes:
    try:
        content = description.read_small(source / part.path, description.LARGEST_KEY)
    except FileNotFoundError as error:
        raise ContentError(f"the backup's {part.path} is not there") from error
    if Part.of(part.path, content) != part:
        raise ContentError(f"the backup's {part.path} is damaged: it is not what was written")
    return content


# -- from an archive ---------------------------------------------------------------------------


def _receive_catalog(reader: ArchiveReader, entry: ArchiveEntry | None, path: Path) -> Part:
    if entry is None or not description.CATALOG.fullmatch(entry.name):
        raise ContentError("this is no archive of a backup: it does not begin with a catalog")
    hasher = hashlib.sha256()
    with fsio.storage_errors("write", path), path.open("xb") as file:
        for chunk in reader.content():
            hasher.update(chunk)
            file.write(chunk)
    part = Part(entry.name, entry.size, hasher.hexdigest())
    if part.path != f"catalog-{part.sha256[:16]}.db":
        raise ContentError("the catalog in the archive is damaged: it is not what was written")
    return part


@dataclass(slots=True)
class _Unpacking:
    """The unpacking of the entries after the catalog. Their order is fixed, so that none can come twice."""

    reader: ArchiveReader
    backend: Backend
    found: _Blobs
    keys: list[Part] = field(default_factory=list)
    described: Description | None = None

    def run(self, entries: Iterator[ArchiveEntry]) -> Description:
        """Unpack all entries, and return the archive's description of itself."""
        # Each blob is synced separately, which takes a small one longer than its bytes do: so a few at once.
        small = self._small_blobs(entries)
        with contextlib.closing(copying.in_threads(self._put, small, self.found.flow)) as outcomes:
            for (held, _), outcome in outcomes:
                self._note(held, outcome)
        if self.described is None:
            raise ContentError(f"the archive ends without {description.FILE}: the backup was not finished")
        return self.described

    def _small_blobs(self, entries: Iterator[ArchiveEntry]) -> Iterator[tuple[Held, bytes]]:
        """Yield the small blobs, and unpack all other entries meanwhile."""
        expected = self.found.catalog.held()
        before: tuple[int, str] = (0, "")
        for entry in entries:
            place = (_rank(entry.name), entry.name)
            if place <= before:
                raise ContentError(
                    f"the archive's {shown(entry.name)} is not where a backup has it, or comes twice"
                )
            before = place
            if blob := _BLOB.fullmatch(entry.name):
                held = self._expect(_digest(*blob.groups()), entry.size, expected)
                if held is None:
                    continue
                if held.size <= _SMALL:
                    yield held, self.reader.whole(entry, _SMALL)
                else:
                    self._note(held, self._stream(held))
            elif entry.name == description.FILE:
                content = self.reader.whole(entry, description.LARGEST)
                self.described = description.decode(content, f"the archive's {description.FILE}")
            elif entry.name == LAYOUT_FILE:
                self.reader.whole(entry, 1 << 10)
            else:
                content = self.reader.whole(entry, description.LARGEST_KEY)
                _write_key(self.backend, entry.name, content)
                self.keys.append(Part.of(entry.name, content))
        for held in expected:
            self.found.lose(held, _NOT_IN_IT)

    def _expect(self, digest: Digest, size: int, expected: Iterable[Held]) -> Held | None:
        """Return the catalog's record of ``digest``; None if the archive's entry has another size."""
        # Both are in the order of the digests: a digest that was passed over does not come later.
        for held in expected:
            if held.digest != digest:
                self.found.lose(held, _NOT_IN_IT)
            elif held.size != size:
                self.found.lose(held, f"it has {size} bytes instead of {held.size}")
                return None
            else:
                return held
        raise ContentError(f"the archive has {digest}, which its catalog does not know")

    def _note(self, held: Held, outcome: Unusable | None) -> None:
        if outcome is None:
            self.found.add(held)
        else:
            self.found.lose(held, outcome.message)

    def _put(self, item: tuple[Held, bytes]) -> None:
        held, content = item
        try:
            self.found.target.put(content, held.digest)
        except DigestMismatch as error:
            raise Unusable(WRONG_BYTES) from error
        self.found.flow.passed(held.size)

    def _stream(self, held: Held) -> Unusable | None:
        try:
            with self.found.target.begin(held.digest, held.size) as ingest:
                for chunk in self.reader.content():
                    ingest.write(chunk)
                    self.found.flow.passed(len(chunk))
                ingest.commit(held.digest, held.size)
        except (DigestMismatch, SizeMismatch):
            return Unusable(WRONG_BYTES)
        return None


def _rank(name: str) -> int:
    if name == LAYOUT_FILE:
        return 1
    if description.KEY.fullmatch(name):
        return 2
    if _BLOB.fullmatch(name):
        return 3
    if name == description.FILE:
        return 4
    raise ContentError(f"the archive has {shown(name)}, which no backup has")


def _digest(algorithm: str, encoded: str) -> Digest:
    try:
        return Digest(algorithm, encoded)
    except InvalidDigest as error:
        raise ContentError(f"the archive has a blob of no digest: {error.message}") from error
