"""Downloading a blob: streamed, bounded by its declared size, continued after a broken connection."""

from __future__ import annotations

import functools
import os
import re
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from digestry.blobs.verify import too_long, too_short
from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.responses import Response
from digestry.errors import ProtocolViolation, Unreachable
from digestry.model.descriptor import Descriptor

if TYPE_CHECKING:
    from digestry.blobs.protocols import Ingest

_CHUNK: Final = 512 << 10
_BUFFERS: Final = 4
"""Chunks of a blob in memory: one is read into while those before it are hashed."""
_MOST_BREAKS: Final = 32
_WORTH_A_BREAK: Final = 1 << 20
"""Bytes that allow one more broken connection, so that a registry that sends one byte each time cannot go on
for ever."""
_CORES: Final = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/(?:[0-9]{1,19}|\*)", re.ASCII)


class _UnderWay:
    """The number of downloads that this process has under way. Thread-safe; entered for each."""

    def __init__(self) -> None:
        self._count = 0
        self._lock = threading.Lock()

    def leave_a_core(self) -> bool:
        """Return whether each can have a second core, to hash on. Without, handing bytes over costs more."""
        return 2 * self._count <= _CORES

    def __enter__(self) -> None:
        with self._lock:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1


_under_way: Final = _UnderWay()


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
    encoded = [False]
    while True:
        before = sink.offset
        try:
            _attempt(endpoint, descriptor, sink, progress, encoded)
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
    encoded: list[bool],
) -> None:
    """Make one request for the bytes that ``sink`` lacks.

    ``encoded`` is whether the blob was sent encoded before: then no range can be requested.
    """
    start = sink.offset
    if start == descriptor.size and start:
        return
    headers = {"Range": f"bytes={start}-"} if start and not encoded[0] else {}
    with endpoint.request("GET", f"blobs/{descriptor.digest}", headers=headers) as response:
        skip = _begin(response, descriptor, start)
        if skip is None:
            response.fail(f"get blob {descriptor.digest} of {endpoint.name}")
        left = descriptor.size - start
        if response.encoding and response.length != left + skip:
            if response.status == 206:
                encoded[0] = True
                raise Unreachable(f"{response.host} sends a part of {descriptor.digest} encoded")
            # A layer that is called encoded because it is a gzip has its own size: it is as it should be.
            response.decode(of_gzip=descriptor.media_type.endswith("gzip"))
            encoded[0] = True
        elif response.length is not None and response.length != left + skip:
            if response.length > left + skip:
                raise too_long(descriptor.digest, descriptor.size)
            raise too_short(descriptor.digest, descriptor.size, start + response.length - skip)
        with _under_way:
            _pump(response, descriptor, start, skip=skip, sink=sink, progress=progress)


def _begin(response: Response, descriptor: Descriptor, start: int) -> int | None:
    """Return how many bytes of the response the sink has already; None if the response cannot be used."""
    if response.status == 200:
        return start  # Range is a wish: a registry may send everything again (RFC 9110, 14.2)
    if response.status == 206 and start:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != start:
            raise ProtocolViolation(
                f"{response.host} was asked for {descriptor.digest} from byte {start}, and sends another part"
            )
        return 0
    return None


def _pump(
    response: Response,
    descriptor: Descriptor,
    start: int,
    *,
    skip: int,
    sink: Ingest,
    progress: Callable[[int], None] | None,
) -> None:
    """Write the received bytes into ``sink``, whose hash may run behind: some buffers are used in turns."""
    left = descriptor.size - start
    free: SimpleQueue[memoryview] = SimpleQueue()
    size = min(_CHUNK, left + 1)
    for _ in range(min(_BUFFERS, -(-left // size)) or 1):
        free.put(memoryview(bytearray(size)))
    while True:
        buffer = free.get()
        if skip:
            count = response.read_into(buffer[:skip])
            if not count:
                raise too_short(descriptor.digest, descriptor.size, start - skip)
            skip -= count
            free.put(buffer)
            continue
        # One byte more than is left, so that a longer stream is noticed.
        count = response.read_into(buffer[: left + 1])
        if not count:
            break
        if count > left:
            raise too_long(descriptor.digest, descriptor.size)
        if _under_way.leave_a_core():
            sink.write(buffer[:count], functools.partial(free.put, buffer))
        else:
            sink.write(buffer[:count])
            free.put(buffer)
        left -= count
        if progress is not None:
            progress(count)
    if left:
        raise too_short(descriptor.digest, descriptor.size, descriptor.size - left)
