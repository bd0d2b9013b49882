"""A store of content in memory: what the registry needs of a store, and nothing that only a disk has."""

from __future__ import annotations

import io
import itertools
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from digestry.blobs.bounded_read import SMALL
from digestry.blobs.ingests import Chunk
from digestry.blobs.protocols import (
    GONE,
    BlobRanges,
    InThread,
    QuarantinedBlob,
    StoreMark,
    Throttle,
    Verification,
)
from digestry.blobs.put_each import put_each
from digestry.blobs.verify import too_long, too_short, wrong_hash
from digestry.errors import (
    Conflict,
    DigestMismatch,
    DigestryError,
    NotFound,
    SizeMismatch,
    StorageError,
    TooLarge,
)
from digestry.model.digest import Digest, shown

_NUMBERS = itertools.count(1)


@dataclass
class _Pending:
    """Content on its way in. ``number`` becomes the revision of what is stored."""

    name: str
    content: bytearray = field(default_factory=bytearray)
    number: int = field(default_factory=lambda: next(_NUMBERS))
    written_at: float = field(default_factory=time.time)
    open: bool = True


@dataclass(frozen=True)
class _Stored:
    content: bytes
    number: int
    stored_at: float


class MemoryBlobs:
    """A :class:`~digestry.blobs.protocols.BlobStore`. For many threads."""

    inline_limit = 0
    is_listed_in_catalog = False
    location = "memory"
    mark_location = "memory"

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._stored: dict[Digest, _Stored] = {}
        self._pending: dict[str, _Pending] = {}
        self._quarantine: dict[str, tuple[QuarantinedBlob, bytes]] = {}
        self._mark: StoreMark | None = None

    def copy(self) -> MemoryBlobs:
        """Return another store with the same content."""
        made = MemoryBlobs()
        with self._lock:
            made._stored = dict(self._stored)
            made._pending = {
                name: _Pending(name, bytearray(one.content), open=False)
                for name, one in self._pending.items()
            }
            made._quarantine = dict(self._quarantine)
            made._mark = self._mark
        return made

    def damage(self, digest: Digest, content: bytes) -> None:
        """Put other bytes in the place of some content's, as a disk that fails does."""
        with self._lock:
            self._stored[digest] = _Stored(content, next(_NUMBERS), time.time())

    def prepare(self) -> None:
        pass

    def instance(self) -> object:
        return "memory"

    def mark(self) -> StoreMark | None:
        return self._mark

    def set_mark(self, mark: StoreMark) -> None:
        self._mark = mark

    # -- reading -------------------------------------------------------------------------------

    def stat(self, digest: Digest) -> int | None:
        found = self._stored.get(digest)
        return None if found is None else len(found.content)

    def revision(self, digest: Digest) -> Hashable | None:
        found = self._stored.get(digest)
        return None if found is None else found.number

    def stored_at(self, digest: Digest) -> float | None:
        found = self._stored.get(digest)
        return None if found is None else found.stored_at

    def local_path(self, digest: Digest) -> None:
        pass

    def redirect(self, digest: Digest) -> str | None:
        return None

    def open(self, digest: Digest) -> io.BufferedReader:
        raw: Any = io.BytesIO(self.content(digest))
        return io.BufferedReader(raw)

    def content(self, digest: Digest) -> bytes:
        """Return the content, not verified. Raises :class:`NotFound`."""
        found = self._stored.get(digest)
        if found is None:
            raise NotFound(f"{digest} is not in memory")
        return found.content

    def snapshot(self, digest: Digest) -> MemorySnapshot:
        """Open the content for reading, whatever happens to it meanwhile. Raises :class:`NotFound`."""
        return MemorySnapshot(self.content(digest))

    async def open_ranges(
        self, digest: Digest, in_thread: InThread, first: int = 0, last: int | None = None
    ) -> BlobRanges:
        return MemoryRanges(await in_thread(self.content, digest))

    def read(self, digest: Digest, *, limit: int = SMALL) -> bytes:
        content = self.content(digest)
        if len(content) > limit:
            raise TooLarge(f"{digest} is larger than the {limit} bytes that are read at once", limit=limit)
        found = Digest.of(content, digest.algorithm)
        if found != digest:
            raise DigestMismatch(f"{digest} in memory is damaged: its bytes hash to {found}")
        return content

    def verify(
        self, digest: Digest, size: int | None, throttle: Throttle, *, uncached: bool = False
    ) -> Verification:
        found = self._stored.get(digest)
        if found is None:
            return Verification(digest, None, GONE)
        left = len(found.content)
        while left > 0:
            throttle.take(min(left, throttle.chunk))
            left -= throttle.chunk
        problem = None
        hashed = Digest.of(found.content, digest.algorithm)
        if size is not None and len(found.content) != size:
            problem = f"it has {len(found.content)} bytes, not {size}"
        elif hashed != digest:
            problem = f"its bytes hash to {hashed}"
        return Verification(digest, found.number, problem)

    def digests(self) -> Iterator[Digest]:
        return iter(list(self._stored))

    # -- writing -------------------------------------------------------------------------------

    def begin(self, digest: Digest | None = None, size: int | None = None) -> MemoryIngest:
        pending = _Pending(f"new-{next(_NUMBERS)}")
        with self._lock:
            self._pending[pending.name] = pending
        return MemoryIngest(self, pending, digest.algorithm if digest else "sha256", size, keep=False)

    def put(self, content: bytes, digest: Digest | None = None) -> Digest:
        found = Digest.of(content, digest.algorithm if digest else "sha256")
        if digest is not None and found != digest:
            raise wrong_hash(digest, found)
        with self.begin(found, len(content)) as ingest:
            ingest.write(content)
            ingest.commit(found)
        return found

    def put_all(self, contents: Sequence[tuple[bytes, Digest]]) -> list[DigestryError | None]:
        return put_each(self, contents)

    def delete(self, digest: Digest, *, durable: bool = True) -> bool:
        with self._lock:
            return self._stored.pop(digest, None) is not None

    def ingest(self, name: str, *, create: bool = True, algorithm: str = "sha256") -> MemoryIngest:
        _check_name(name)
        with self._lock:
            pending = self._pending.get(name)
            if pending is None:
                if not create:
                    raise NotFound(f"{name} is not there: it was finished, given up, or never begun")
                pending = self._pending[name] = _Pending(name)
            elif pending.open:
                raise Conflict(f"{name} is being written by another request")
            pending.open = True
        return MemoryIngest(self, pending, algorithm, None, keep=True)

    def follow(self, name: str) -> MemoryGrowing:
        _check_name(name)
        pending = self._pending.get(name)
        if pending is None:
            raise NotFound(f"{name} is not being written")
        return MemoryGrowing(self, pending)

    def ingests(self) -> Iterator[str]:
        return iter(list(self._pending))

    def discard(self, name: str) -> bool:
        try:
            self.ingest(name, create=False).abort()
        except NotFound:
            return False
        return True

    def sweep_ingests(self, older_than: float, *, keep: Collection[str] = ()) -> list[str]:
        swept = []
        with self._lock:
            for name, pending in list(self._pending.items()):
                if name not in keep and not pending.open and time.time() - pending.written_at >= older_than:
                    del self._pending[name]
                    swept.append(name)
        return swept

    # -- quarantine ----------------------------------------------------------------------------

    def quarantine(self, digest: Digest, at: int) -> QuarantinedBlob:
        with self._lock:
            stored = self._stored.pop(digest)
            while (name := f"quarantine/{digest.algorithm}/{digest.encoded}.{at}") in self._quarantine:
                at += 1
            blob = QuarantinedBlob(digest, name, f"memory/{name}", len(stored.content))
            self._quarantine[name] = blob, stored.content
            return blob

    def quarantined(self, digest: Digest | None = None) -> Iterator[QuarantinedBlob]:
        return iter([blob for blob, _ in self._quarantine.values() if digest in {None, blob.digest}])

    def delete_quarantined(self, blob: QuarantinedBlob) -> None:
        with self._lock:
            del self._quarantine[blob.name]


def _check_name(name: str) -> None:
    if not name.replace("-", "").isalnum() or not name.isascii() or len(name) > 128:
        raise StorageError(f"{shown(name)} cannot name content in memory")


class MemoryRanges:
    """Some content, read by ranges."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)

    async def read(self, position: int, count: int) -> bytes:
        return self._content[position : position + count]

    async def file_with(self, position: int, count: int) -> None:
        pass

    def close(self) -> None:
        pass


class MemorySnapshot:
    """Some content, for a reader that may block."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def size(self) -> int:
        return len(self._content)

    def read(self, position: int, count: int) -> bytes:
        return self._content[position : position + count]

    def close(self) -> None:
        pass


class MemoryGrowing:
    """Content on its way in, to be read."""

    def __init__(self, store: MemoryBlobs, pending: _Pending) -> None:
        self._store = store
        self._pending = pending

    def size(self) -> int:
        return len(self._pending.content)

    def read(self, position: int, count: int) -> bytes:
        return bytes(self._pending.content[position : position + count])

    def is_arriving(self) -> bool:
        return self._store._pending.get(self._pending.name) is self._pending

    def is_stored_as(self, digest: Digest) -> bool:
        return self._store.revision(digest) == self._pending.number

    def close(self) -> None:
        pass


class MemoryIngest:
    """New content, written by one at a time."""

    def __init__(
        self, store: MemoryBlobs, pending: _Pending, algorithm: str, size: int | None, *, keep: bool
    ) -> None:
        self._store = store
        self._pending = pending
        self._algorithm = algorithm
        self._size = size
        self._keep = keep
        self._open = True

    waits = False

    @property
    def offset(self) -> int:
        return len(self._pending.content)

    def has_room(self) -> bool:
        return True

    def save(self) -> None:
        self._check_open()

    def resume(self, offset: int, known: Digest | None = None) -> None:
        self._check_open()
        if offset > self.offset:
            raise StorageError(f"memory holds {self.offset} bytes, but {offset} had arrived")
        del self._pending.content[offset:]

    def write(self, chunk: Chunk, done: Callable[[], None] | None = None) -> None:
        self.write_all((chunk,))
        if done is not None:
            done()

    def write_all(self, chunks: Sequence[Chunk]) -> None:
        self._check_open()
        content = b"".join(chunks)
        if self._size is not None and self.offset + len(content) > self._size:
            raise SizeMismatch(f"more bytes came than the {self._size} that were declared")
        self._pending.content += content
        self._pending.written_at = time.time()

    def digest(self, algorithm: str | None = None) -> Digest:
        self._check_open()
        return Digest.of(bytes(self._pending.content), algorithm or self._algorithm)

    def commit(self, digest: Digest, size: int | None = None) -> None:
        self._check_open()
        try:
            if size is not None and self.offset != size:
                longer = self.offset > size
                raise too_long(digest, size) if longer else too_short(digest, size, self.offset)
            found = self.digest(digest.algorithm)
            if found != digest:
                raise wrong_hash(digest, found)
            with self._store._lock:
                stored = _Stored(bytes(self._pending.content), self._pending.number, time.time())
                self._store._stored[digest] = stored
        finally:
            self.abort()

    def abort(self) -> None:
        if self._open:
            with self._store._lock:
                del self._store._pending[self._pending.name]
            self.close()

    def close(self) -> None:
        if self._open:
            self._open = self._pending.open = False

    def _check_open(self) -> None:
        if not self._open:
            raise StorageError("the content was committed or closed already")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._keep:
            self.close()
        else:
            self.abort()
