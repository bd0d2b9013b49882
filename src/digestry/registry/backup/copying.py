"""Copy blobs from one store to another, hashing them on the way, at a bounded rate."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from digestry.blobs.failures import BytesLost
from digestry.blobs.file_errors import file_error
from digestry.blobs.protocols import BlobStore
from digestry.catalog.snapshot import Held
from digestry.errors import ContentError, DigestMismatch, NotFound, SizeMismatch

_CHUNK: Final = 1 << 20
_THREADS: Final = 4
_AHEAD: Final = 64
_STEP: Final = 0.1

T = TypeVar("T")
R = TypeVar("R")


class Unusable(ContentError):
    """The content is missing, or differs from its digest; the message says which."""


class Stopped(Exception):
    """The copying was stopped. Raised in the threads that copy."""


class Flow:
    """A counter of all bytes that are read, which limits their rate and can stop the copying.

    ``rate`` is in bytes a second (None: no limit). Thread-safe.
    """

    def __init__(self, rate: int | None = None, moved: Callable[[int], None] = lambda _: None) -> None:
        self._rate = rate
        self._moved = moved
        self._lock = threading.Lock()
        self._stopped = False  # no lock in it: a signal's handler may set it
        self._free = time.monotonic()

    def passed(self, count: int) -> None:
        """Count bytes that were read, and wait while the rate is exceeded."""
        self._check()
        with self._lock:
            self._moved(count)
            if self._rate is None:
                return
            now = time.monotonic()
            self._free = max(self._free, now) + count / self._rate
            until = self._free
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _STEP))
            self._check()

    def _check(self) -> None:
        if self._stopped:
            raise Stopped

    def stop(self) -> None:
        """Stop all copying at its next chunk. Safe in any thread and in a signal handler."""
        self._stopped = True


class Source:
    """A blob of a store, open for reading, whose size was checked."""

    def __init__(self, blobs: BlobStore, held: Held) -> None:
        self._path = blobs.local_path(held.digest) or Path(str(held.digest))
        try:
            self._file = blobs.open(held.digest)
        except NotFound as error:
            raise Unusable("it is not there") from error
        except ContentError as error:
            raise Unusable(error.message) from error
        except BytesLost as error:
            raise Unusable(_unreadable(error.__cause__)) from error
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        if size != held.size:
            self.close()
            raise Unusable(f"it has {size} bytes instead of {held.size}")

    def read_into(self, buffer: bytearray) -> int:
        """Fill the buffer and return the count; 0 at the end. Raises :class:`Unusable`,
        :class:`StorageError`."""
        try:
            return self._file.readinto(buffer)
        except OSError as error:
            failure = file_error("read", self._path, error)
            raise (Unusable(_unreadable(error)) if isinstance(failure, BytesLost) else failure) from error

    def close(self) -> None:
        """Close the blob."""
        self._file.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unreadable(cause: BaseException | None) -> str:
    return f"it cannot be read: {cause.strerror if isinstance(cause, OSError) else cause}"


WRONG_BYTES: Final = "its bytes do not match its digest"


def buffer_for(size: int) -> bytearray:
    """Return a buffer for reading a blob of that size."""
    return bytearray(max(1, min(size, _CHUNK)))


def copy(source: BlobStore, target: BlobStore, held: Held, flow: Flow) -> None:
    """Copy one blob, durably. Raises :class:`Unusable` if the source's content is wrong or missing, and
    :class:`StorageError` if the target cannot be written."""
    buffer = buffer_for(held.size)
    view = memoryview(buffer)
    with Source(source, held) as content, target.begin(held.digest, held.size) as ingest:
        try:
            while count := content.read_into(buffer):
                ingest.write(view[:count])
                flow.passed(count)
            ingest.commit(held.digest, held.size)
        except (DigestMismatch, SizeMismatch) as error:
            raise Unusable(WRONG_BYTES) from error


def check(blobs: BlobStore, held: Held, flow: Flow) -> bool:
    """Return whether the store has the blob undamaged, after reading all of it."""
    hasher = held.digest.hasher()
    buffer = buffer_for(held.size)
    view = memoryview(buffer)
    try:
        with Source(blobs, held) as content:
            while count := content.read_into(buffer):
                hasher.update(view[:count])
                flow.passed(count)
    except Unusable:
        return False
    return hasher.hexdigest() == held.digest.encoded


def in_threads(
    work: Callable[[T], R], items: Iterable[T], flow: Flow
) -> Generator[tuple[T, R | Unusable], None, None]:
    """Call ``work`` for each item, a few at once, and yield in order what it returned or why the content was
    unusable. Any other error ends the iteration."""
    waiting: deque[tuple[T, Future[R]]] = deque()

    def outcome() -> tuple[T, R | Unusable]:
        item, future = waiting.popleft()
        try:
            return item, future.result()
        except Unusable as error:
            return item, error

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="copy") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) >= _AHEAD:
                    yield outcome()
            while waiting:
                yield outcome()
        except BaseException:
            flow.stop()
            pool.shutdown(cancel_futures=True)
            raise
