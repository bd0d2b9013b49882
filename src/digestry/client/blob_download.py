"""Downloading a blob: streamed, bounded by its declared size, continued after a broken connection."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from digestry.blobs.verify import too_long, too_short
from digestry.client import ranged_download
from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.responses import Response
from digestry.errors import Unreachable
from digestry.model.descriptor import Descriptor

if TYPE_CHECKING:
    from digestry.blobs.ingests import Ingest

_CHUNK: Final = 1 << 20
_BUFFERS: Final = 4
"""Chunks of a blob in memory: one is read into while those before it are hashed."""
_MOST_BREAKS: Final = 32
_WORTH_A_BREAK: Final = 1 << 20
"""Bytes that allow one more broken connection, so that a registry that sends one byte each time cannot go on
for ever."""
_WATCHED: Final = 1.0
"""Seconds after which it shows how fast a connection is."""
_FAST: Final = 32 << 20
"""Bytes a second from which one connection is enough."""
_GATHER_SECONDS: Final = 0.05
"""How long a connection may take to fill a chunk: what has come until then is used."""
_WORTH_GATHERING: Final = 64 << 10
"""Bytes of a blob from which it is read in whole chunks."""
_CORES: Final = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _UnderWay:
    """The number of downloads that this process has under way. Thread-safe; entered for each."""

    def __init__(self) -> None:
        self._count = 0
        self._lock = threading.Lock()

    def leave_a_core(self) -> bool:
        """Return whether each can have a second core, to hash on. Without, handing bytes over costs more."""
        return 2 * self._count <= _CORES

    def connections(self) -> int:
        """Return how many connections each may have."""
        return ranged_download.MOST_CONNECTIONS // max(1, self._count)

    def __enter__(self) -> None:
        with self._lock:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1


_under_way: Final = _UnderWay()


class _Buffers:
    """Memory of ``size`` bytes each for the chunks of a blob, made when it is needed. Thread-safe."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._made = 0
        self._free: list[memoryview] = []
        self._changed = threading.Condition()

    def take(self) -> memoryview:
        """Return one that is free, once there is one."""
        with self._changed:
            if not self._free and self._made < _BUFFERS:
                self._made += 1
                return memoryview(bytearray(self._size))
            while not self._free:
                self._changed.wait()
            return self._free.pop()

    def give(self, buffer: memoryview) -> None:
        """Take one back, whose bytes are not needed any more."""
        with self._changed:
            self._free.append(buffer)
            self._changed.notify()


class _Way:
    """How one blob comes. ``slow_rate`` is the bytes a second of one connection, if several may be faster."""

    def __init__(self) -> None:
        self.is_encoded = False
        """Whether no range can be requested: it was sent encoded, or one was refused."""
        self.is_single = False
        """Whether several connections were no faster, or could not be had."""
        self.slow_rate: float | None = None

    def is_slow(self, count: int, began: float, left: int) -> bool:
        """Return whether ``count`` bytes since ``began`` are so few that ranges are worth trying for those
        that are ``left``.
        """
        took = time.monotonic() - began
        if self.is_encoded or self.is_single or took < _WATCHED or count > took * _FAST:
            return False
        if not ranged_download.is_worth(left, count / took):
            return False
        if _under_way.connections() > 1:
            self.slow_rate = count / took
        return self.slow_rate is not None


def _is_fast(count: int, began: float) -> bool:
    """Return whether ``count`` bytes since ``began`` came so fast that waiting for a chunk costs nothing."""
    return count >= _WORTH_A_BREAK and count > (time.monotonic() - began) * _FAST


def pull_blob(
    endpoint: RepositoryEndpoint, descriptor: Descriptor, sink: Ingest, progress: Callable[[int], None] | None
) -> None:
    """Stream a blob into ``sink`` and commit it. See :meth:`Repository.pull_blob`."""
    fill(endpoint, descriptor, sink, progress)
    sink.commit(descriptor.digest, descriptor.size)


def fill(
    endpoint: RepositoryEndpoint, descriptor: Descriptor, sink: Ingest, progress: Callable[[int], None] | None
) -> None:
    """Stream the missing bytes of a blob into ``sink``. Raises as :meth:`Repository.pull_blob` does."""
    attempts = endpoint.connection.options.retries
    breaks = _MOST_BREAKS + descriptor.size // _WORTH_A_BREAK
    way = _Way()
    while True:
        before = sink.offset
        try:
            if way.slow_rate is not None:
                with _under_way:
                    most = _under_way.connections()
                    ranged_download.fill(
                        endpoint, descriptor, sink, progress, most, better_than=way.slow_rate
                    )
                way.slow_rate, way.is_single = None, True
            _attempt(endpoint, descriptor, sink, progress, way)
            if way.slow_rate is None:
                return
        except Unreachable:
            breaks -= 1
            if breaks < 0:
                raise
            # An attempt that received bytes does not count: the connection is bad, but not dead.
            if sink.offset == before:
                attempts -= 1
                if attempts < 0:
                    raise


def _attempt(
    endpoint: RepositoryEndpoint,
    descriptor: Descriptor,
    sink: Ingest,
    progress: Callable[[int], None] | None,
    way: _Way,
) -> None:
    """Make one request for the bytes that ``sink`` lacks, and leave it where ranges may be faster."""
    start = sink.offset
    if start == descriptor.size and start:
        return
    headers = {"Range": f"bytes={start}-"} if start and not way.is_encoded else {}
    with endpoint.request("GET", f"blobs/{descriptor.digest}", headers=headers) as response:
        skip = _begin(response, descriptor, start)
        if response.status == 416 and headers:
            way.is_encoded = True
            raise Unreachable(f"{response.host} refuses to send a part of {descriptor.digest}")
        if skip is None:
            response.fail(f"get blob {descriptor.digest} of {endpoint.name}")
        left = descriptor.size - start
        if response.encoding and response.length != left + skip:
            if response.status == 206:
                way.is_encoded = True
                raise Unreachable(f"{response.host} sends a part of {descriptor.digest} encoded")
            # A layer that is called encoded because it is a gzip has its own size: it is as it should be.
            response.decode(of_gzip=descriptor.media_type.endswith("gzip"))
            way.is_encoded = True
        elif response.length is not None and response.length != left + skip:
            if response.length > left + skip:
                raise too_long(descriptor.digest, descriptor.size)
            raise too_short(descriptor.digest, descriptor.size, start + response.length - skip)
        with _under_way:
            _pump(response, descriptor, start, way, skip=skip, sink=sink, progress=progress)


def _begin(response: Response, descriptor: Descriptor, start: int) -> int | None:
    """Return how many bytes of the response the sink has already; None if the response cannot be used."""
    if response.status == 200:
        return start  # Range is a wish: a registry may send everything again (RFC 9110, 14.2)
    if response.status == 206 and start:
        ranged_download.check_start(response, descriptor, start)
        return 0
    return None


def _pump(
    response: Response,
    descriptor: Descriptor,
    start: int,
    way: _Way,
    *,
    skip: int,
    sink: Ingest,
    progress: Callable[[int], None] | None,
) -> None:
    """Write the received bytes into ``sink``, whose hash may run behind: some buffers are used in turns.

    Ends early where ``way`` says that it is slow.
    """
    left = descriptor.size - start
    began = time.monotonic()
    gathers = left >= _WORTH_GATHERING and response.gather_reads(_GATHER_SECONDS)
    buffers = _Buffers(min(_CHUNK, left + 1))
    while True:
        buffer = buffers.take()
        if skip:
            count = response.read_into(buffer[:skip])
            if not count:
                raise too_short(descriptor.digest, descriptor.size, start - skip)
            skip -= count
            buffers.give(buffer)
            continue
        if not gathers and left > 2 * _CHUNK and _is_fast(descriptor.size - start - left, began):
            response.gather(_CHUNK // 2, _GATHER_SECONDS)
        # One byte more than is left, so that a longer stream is noticed.
        count = response.read_into(buffer[: left + 1])
        if not count:
            break
        if count > left:
            raise too_long(descriptor.digest, descriptor.size)
        if _under_way.leave_a_core():
            sink.write(buffer[:count], functools.partial(buffers.give, buffer))
        else:
            sink.write(buffer[:count])
            buffers.give(buffer)
        left -= count
        if progress is not None:
            progress(count)
        if left >= ranged_download.WORTH_IF_SLOW and way.is_slow(descriptor.size - start - left, began, left):
            return
    if left:
        raise too_short(descriptor.digest, descriptor.size, descriptor.size - left)
