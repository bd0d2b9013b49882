"""Content from one store to another, hashed on its way, at a bounded rate."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from digestry.blobs.disk import NO_FILE, DiskBlobs
from digestry.blobs.examine import BROKEN
from digestry.catalog.snapshot import Held
from digestry.errors import ContentError, DigestMismatch, SizeMismatch
from digestry.fsio import storage_error
from digestry.registry.backup import description

_CHUNK: Final = 1 << 20
_THREADS: Final = 4
_AHEAD: Final = 64
_STEP: Final = 0.1

# The content is to blame, and the next may be well; of any other failure all else would die too.
_OF_ONE_FILE: Final = BROKEN | NO_FILE | {errno.ENOENT}

T = TypeVar("T")
R = TypeVar("R")


class Unusable(ContentError):
    """Content that is not there, or not what its digest says; the message says which."""


class Stopped(Exception):
    """The copying has ended; a thread that copies learns it by this."""


class Flow:
    """All bytes that are read go through here: counted, held to ``rate`` (bytes a second; None: any),
    and stopped. Thread-safe."""

    def __init__(self, rate: int | None = None, moved: Callable[[int], None] = lambda _: None) -> None:
        self._rate = rate
        self._moved = moved
        self._lock = threading.Lock()
        self._stopped = False  # no lock in it: a signal's handler may set it
        self._free = time.monotonic()

    def passed(self, count: int) -> None:
        """Tells that so many bytes were read, and waits while that is too fast."""
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
        """Ends all copying at its next chunk. For any thread, and for the handler of a signal."""
        self._stopped = True


class Source:
    """A blob of a store, open for reading: its size is what it should be."""

    def __init__(self, blobs: DiskBlobs, held: Held) -> None:
        path = blobs.path(held.digest)
        try:
            # A link is followed, as who serves it does: what comes of it is hashed.
            self._descriptor = description.open_regular(path, follow=True)
        except ContentError as error:
            raise Unusable(error.message) from error
        except OSError as error:
            if error.errno in _OF_ONE_FILE:
                raise Unusable(_reason(error)) from error
            raise storage_error("open", path, error) from error
        self._path = path
        size = os.fstat(self._descriptor).st_size
        if size != held.size:
            self.close()
            raise Unusable(f"it has {size} bytes instead of {held.size}")

    def read_into(self, buffer: bytearray) -> int:
        """Fills the buffer; 0 at the end. Raises :class:`Unusable`, :class:`StorageError`."""
        try:
            return os.readv(self._descriptor, [buffer])
        except OSError as error:
            if error.errno in _OF_ONE_FILE:
                raise Unusable(_reason(error)) from error
            raise storage_error("read", self._path, error) from error

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "it is not there"
    return f"it cannot be read: {error.strerror}"


WRONG_BYTES: Final = "its bytes do not match its digest"


def buffer_for(size: int) -> bytearray:
    """What a blob of that size is read through."""
    return bytearray(max(1, min(size, _CHUNK)))


def copy(source: DiskBlobs, target: DiskBlobs, held: Held, flow: Flow) -> None:
    """Copies one blob, durably. Raises :class:`Unusable` if the source's is not what it should be,
    and :class:`StorageError` if the target cannot take it."""
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


def check(blobs: DiskBlobs, held: Held, flow: Flow) -> bool:
    """Whether the store has the blob, whole: all of it is read."""
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
    """Calls ``work`` for each item, a few at once; gives, in order, what it returned, or why it found
    its content unusable. Any other error ends it all."""
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
