"""Takes a backup of a registry, whether or not it is being served.

The catalog's snapshot comes first, and says what content there must be; none of that can go while the
collection's lock is held. What is copied is hashed on its way, and never trusted for being there.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from digestry import __version__, fsio
from digestry.blobs.disk import LAYOUT, LAYOUT_FILE, DiskBlobs
from digestry.blobs.protocols import Chunk
from digestry.catalog import snapshot
from digestry.catalog.database import FILE as CATALOG_FILE
from digestry.catalog.jobs import COLLECTION_LOCK
from digestry.catalog.snapshot import Held, Snapshot
from digestry.errors import Conflict, ContentError, NotFound
from digestry.model.digest import Digest
from digestry.registry.access import keys
from digestry.registry.backup import copying, description
from digestry.registry.backup.archive import ArchiveWriter
from digestry.registry.backup.copying import Flow, Source, Unusable
from digestry.registry.backup.description import Description, JournalEnd, Missing, Part
from digestry.registry.root import BACKUP_LOCK

_IN_IT: Final = frozenset({CATALOG_FILE, f"{CATALOG_FILE}-wal", f"{CATALOG_FILE}-shm", LAYOUT_FILE, "blobs"})
_MADE_ANEW: Final = frozenset({"absent", "guards", "lost+found"})
_WHY_NOT: Final = {"ingest": "uploads under way", "quarantine": "damaged content"}
_NOT_OURS: Final = "not the registry's own: copy it yourself if you need it"


class Watcher(Protocol):
    """Who shows how far it is."""

    def total(self, size: int) -> None:
        """So many bytes there are in all."""
        ...

    def moved(self, count: int) -> None:
        """So many bytes more are done."""
        ...


@dataclass(slots=True)
class Taken:
    """What a backup came to: its description, the blobs (and bytes) that were copied, those that were
    there already and those that were removed, and what of the root is not in it, with the reason."""

    description: Description
    copied: int = 0
    copied_bytes: int = 0
    kept: int = 0
    removed: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)

    @property
    def findings(self) -> bool:
        """Whether something is wrong with what was backed up."""
        return bool(self.description.missing or self.description.journal.broken)


@dataclass(slots=True)
class _Tally:
    blobs: int = 0
    bytes: int = 0
    copied: int = 0
    copied_bytes: int = 0
    missing: list[Missing] = field(default_factory=list)

    def add(self, held: Held, *, copied: bool = True) -> None:
        self.blobs += 1
        self.bytes += held.size
        if copied:
            self.copied += 1
            self.copied_bytes += held.size

    def lose(self, held: Held, problem: str, catalog: Snapshot) -> None:
        holders = catalog.holders(held.digest)
        self.missing.append(Missing(str(held.digest), held.size, problem, holders))


@dataclass(slots=True)
class _Source:
    """A root of which nothing is collected just now, and the staged snapshot of its catalog."""

    root: Path
    staging: Path
    catalog: Snapshot
    part: Part
    journal: JournalEnd
    taken_at: datetime.datetime

    def read_keys(self) -> list[tuple[Part, bytes]]:
        """The keys, by name."""
        folder = self.root / keys.DIRECTORY
        with fsio.storage_errors("read", folder):
            names = sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208 - a few names
        found = []
        for path in (f"{keys.DIRECTORY}/{name}" for name in names):
            if description.KEY.fullmatch(path):
                with contextlib.suppress(FileNotFoundError):  # it was retired meanwhile
                    content = description.read_small(self.root / path, description.LARGEST_KEY)
                    found.append((Part.of(path, content), content))
        return found

    def describe(self, tally: _Tally, kept_keys: list[Part]) -> Description:
        return Description(
            version=description.VERSION,
            digestry=__version__,
            taken_at=self.taken_at,
            schema=self.catalog.schema,
            catalog=self.part,
            journal=self.journal,
            blobs=tally.blobs,
            size=tally.bytes,
            keys=kept_keys,
            missing=tally.missing,
        )

    def left_out(self) -> list[tuple[str, str]]:
        """What is in the root and not in the backup. Locks and what is made anew go without saying."""
        found = []
        with fsio.storage_errors("list", self.root):
            for name in sorted(os.listdir(self.root)):  # noqa: PTH208 - a few names
                if name in _IN_IT | _MADE_ANEW or name.endswith(".lock") or name.startswith("."):
                    continue
                if name == keys.DIRECTORY or (name in _WHY_NOT and not any((self.root / name).iterdir())):
                    continue
                found.append((name, _WHY_NOT.get(name, _NOT_OURS)))
        return found


@contextlib.contextmanager
def _source(root: Path, place: Path, follows: str | None = None) -> Iterator[_Source]:
    """Holds the collection's lock for the block, and stages a snapshot in a folder of ``place``.

    ``follows`` is the hash that an earlier backup's journal ended with, which must be in this one's.
    """
    lock = root / COLLECTION_LOCK
    with fsio.locked(lock):
        if os.geteuid() == 0:
            # The collector must be able to open it, too.
            owner = root.stat()
            os.chown(lock, owner.st_uid, owner.st_gid)
        mark = f".backup-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]}-"
        with fsio.storage_errors("write to", place):
            for left in place.glob(f"{mark}*"):  # of one that was killed: who has the lock is alone
                shutil.rmtree(left, ignore_errors=True)
            staging = Path(tempfile.mkdtemp(prefix=mark, dir=place))
        try:
            taken_at = datetime.datetime.now(datetime.UTC)
            snapshot.take(root, staging)
            with Snapshot(staging) as catalog:
                journal = _journal_end(staging, () if follows is None else (follows,))
                size, sha256 = description.hash_file(catalog.path)
                part = Part(f"catalog-{sha256[:16]}.db", size, sha256)
                yield _Source(root, staging, catalog, part, journal, taken_at)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _journal_end(staging: Path, expect: tuple[str, ...]) -> JournalEnd:
    verdict = snapshot.prove(staging, expect)
    if verdict.absent:
        raise Conflict(
            "the backup that is there is of another registry, or of a later state of this one: its journal"
            f" ends with {verdict.absent[0]}, which is not in this one's",
            hint="choose another directory",
        )
    broken = verdict.broken
    reason = None if broken is None else f"entry {broken.sequence}: {broken.reason}"
    return JournalEnd(verdict.entries, verdict.last_hash, reason)


def _check_root(root: Path) -> None:
    if not (root / CATALOG_FILE).is_file():
        raise NotFound(f"there is no registry under {root}: it has no {CATALOG_FILE}")


# -- to a directory ----------------------------------------------------------------------------


def to_directory(
    root: Path, destination: Path, *, verify: bool, keep: bool, flow: Flow, watcher: Watcher
) -> Taken:
    """Makes, or brings up to date, the backup in ``destination``.

    A blob of the right size that is there is taken for good, unless ``verify``: then it is read, and
    copied again if need be. What the new state does not hold is removed, unless ``keep``. Until the
    very end an earlier backup there stays what it was.

    Raises :class:`NotFound` if ``root`` is no registry, :class:`Conflict` if ``destination`` is
    something else than a backup of it, :class:`StorageError`.
    """
    _check_root(root)
    _check_destination(root, destination)
    fsio.make_directory(destination)
    held = f"another backup is being written to {destination}"
    with fsio.locked(destination / BACKUP_LOCK, wait=False, held=held):
        earlier = _earlier(destination)
        follows = None if earlier is None or not earlier.journal.entries else earlier.journal.last_hash
        with _source(root, destination, follows) as source:
            target = DiskBlobs(destination)
            target.prepare()
            target.sweep_ingests(0)
            tally = _copy_blobs(source, target, verify=verify, flow=flow, watcher=watcher)
            kept_keys = [_write_key(destination, part, content) for part, content in source.read_keys()]
            told = source.describe(tally, kept_keys)
            with fsio.storage_errors("protect", source.catalog.path):
                source.catalog.path.chmod(0o600)
            fsio.publish(source.catalog.path, destination / source.part.path)
            fsio.write_file(destination / description.FILE, told.encode())
            removed = _tidy(destination, told, None if keep else source.catalog, target)
            return Taken(
                told, tally.copied, tally.copied_bytes, tally.blobs - tally.copied, removed, source.left_out()
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
    except (NotFound, ContentError):
        return None  # one that was broken off, or is damaged: it is made complete


def _copy_blobs(source: _Source, target: DiskBlobs, *, verify: bool, flow: Flow, watcher: Watcher) -> _Tally:
    blobs = DiskBlobs(source.root)
    tally = _Tally()
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

    with contextlib.closing(copying.in_threads(carry, source.catalog.held(), flow)) as each:
        for held, outcome in each:
            if isinstance(outcome, Unusable):
                tally.lose(held, outcome.message, source.catalog)
            else:
                tally.add(held, copied=outcome)
            if outcome is False and not verify:
                watcher.moved(held.size)
    return tally


def _write_key(destination: Path, part: Part, content: bytes) -> Part:
    path = destination / part.path
    fsio.make_directory(path.parent)
    with fsio.storage_errors("protect", path.parent):
        path.parent.chmod(0o700)
    fsio.write_file(path, content, mode=0o600)
    return part


def _tidy(destination: Path, told: Description, catalog: Snapshot | None, target: DiskBlobs) -> int:
    """Removes what an earlier backup had and this one has not; the number of blobs."""
    wanted = {told.catalog.path, *(part.path for part in told.keys)}
    with fsio.storage_errors("list", destination):
        present = [path.name for path in destination.iterdir() if description.CATALOG.fullmatch(path.name)]
        folder = destination / keys.DIRECTORY
        present += [f"{keys.DIRECTORY}/{path.name}" for path in folder.iterdir()] if folder.is_dir() else []
    for name in present:
        if name not in wanted:
            fsio.remove_file(destination / name)
    if catalog is None:
        return 0
    return sum(target.delete(digest) for digest in target.digests() if catalog.size(digest) is None)


# -- to an archive -----------------------------------------------------------------------------


def to_archive(
    root: Path,
    write: Callable[[Chunk], Any],
    *,
    temporary: Path | None = None,
    flow: Flow,
    watcher: Watcher,
) -> Taken:
    """Writes a backup as one tar stream. The snapshot is in ``temporary`` (None: in the root) meanwhile.

    Raises :class:`NotFound` if ``root`` is no registry, :class:`StorageError`, and what ``write``
    raises.
    """
    _check_root(root)
    with _source(root, temporary or root) as source:
        tally = _Tally()
        writer = ArchiveWriter(write, mtime=int(source.taken_at.timestamp()))
        size = source.part.size
        writer.add(source.part.path, size, _pieces(source.catalog.path), mode=0o600)
        writer.add(LAYOUT_FILE, len(LAYOUT), [LAYOUT])
        kept_keys = []
        for part, content in source.read_keys():
            writer.add(part.path, part.size, [content], mode=0o600)
            kept_keys.append(part)
        watcher.total(source.catalog.bytes)
        blobs = DiskBlobs(root)
        for held in source.catalog.held():
            try:
                _write_blob(writer, blobs, held, flow)
                tally.add(held)
            except Unusable as error:
                tally.lose(held, error.message, source.catalog)
        told = source.describe(tally, kept_keys)
        content = told.encode()
        writer.add(description.FILE, len(content), [content])
        writer.finish()
        return Taken(told, tally.copied, tally.copied_bytes, left_out=source.left_out())


def blob_name(digest: Digest) -> str:
    """A blob's path in a backup."""
    return f"blobs/{digest.algorithm}/{digest.encoded}"


def _pieces(path: Path) -> Iterator[bytes]:
    with fsio.storage_errors("read", path), path.open("rb") as file:
        while piece := file.read(1 << 20):
            yield piece


def _write_blob(writer: ArchiveWriter, blobs: DiskBlobs, held: Held, flow: Flow) -> None:
    """Raises :class:`Unusable`: then there is no entry, or one whose bytes are known to be wrong."""
    with Source(blobs, held) as content:
        stream = _Stream(content, held, flow)
        chunks = iter(stream)
        if held.size <= len(stream.buffer):
            chunks = iter(list(chunks))  # one, checked before any of it is written
            stream.finish()
        writer.add(blob_name(held.digest), held.size, chunks)
        stream.finish()


class _Stream:
    """A blob's bytes, of which there are as many as its header says whatever happens."""

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
        """Raises :class:`Unusable` if the bytes were not the blob's."""
        if self._problem is not None:
            raise self._problem
        if self._hasher.hexdigest() != self._held.digest.encoded:
            raise Unusable(copying.WRONG_BYTES)
