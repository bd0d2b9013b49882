"""Downloading a blob: streamed, bounded by its declared size, continued after a broken connection."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from digestry.blobs.protocols import Ingest
from digestry.blobs.verify import too_long, too_short
from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.responses import Response
from digestry.errors import ProtocolViolation, Unreachable
from digestry.model.descriptor import Descriptor

_CHUNK: Final = 1 << 20
_AHEAD: Final = 4  # chunks that may have been read and wait to be written
_MOST_BREAKS: Final = 32
_WORTH_A_BREAK: Final = 1 << 20
"""Bytes for which a connection may break once more: who sends one byte each time never comes to an end."""
_WORTH_A_THREAD: Final = 4 << 20
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/(?:[0-9]{1,19}|\*)", re.ASCII)


def pull_blob(
    endpoint: RepositoryEndpoint, descriptor: Descriptor, sink: Ingest, progress: Callable[[int], None] | None
) -> None:
    """Stream a blob into ``sink`` and commit it. See :meth:`Repository.pull_blob`."""
    attempts = endpoint.connection.options.retries
    breaks = _MOST_BREAKS + descriptor.size // _WORTH_A_BREAK
    encoded = [False]
    while True:
        before = sink.offset
        try:
            _attempt(endpoint, descriptor, sink, progress, encoded)
            break
        except Unreachable:
            breaks -= 1
            if breaks < 0:
                raise
            # An attempt that brought bytes does not count: the line is bad, but not dead.
            if sink.offset == before:
                attempts -= 1
                if attempts < 0:
                    raise
    sink.commit(descriptor.digest, descriptor.size)


def _attempt(
    endpoint: RepositoryEndpoint,
    descriptor: Descriptor,
    sink: Ingest,
    progress: Callable[[int], None] | None,
    encoded: list[bool],
) -> None:
    """Make one request for what ``sink`` lacks.

    ``encoded`` is whether the blob came encoded before: then no range can be asked for.
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
        if left >= _WORTH_A_THREAD:
            with _Behind(sink) as behind:
                _pump(response, descriptor, start, skip=skip, write=behind.write, progress=progress)
        else:
            _pump(response, descriptor, start, skip=skip, write=sink.write, progress=progress)


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
    write: Callable[[bytes], None],
    progress: Callable[[int], None] | None,
) -> None:
    left = descriptor.size - start
    while skip:
        part = response.read_some(min(_CHUNK, skip))
        if not part:
            raise too_short(descriptor.digest, descriptor.size, start - skip)
        skip -= len(part)
    while True:
        # One byte more than is left, so that a stream that goes on is noticed.
        part = response.read_some(min(_CHUNK, left + 1))
        if not part:
            break
        if len(part) > left:
            raise too_long(descriptor.digest, descriptor.size)
        write(part)
        left -= len(part)
        if progress is not None:
            progress(len(part))
    if left:
        raise too_short(descriptor.digest, descriptor.size, descriptor.size - left)


class _Behind:
    """A writer that writes, and so hashes, in its own thread while the next chunk is read."""

    def __init__(self, sink: Ingest) -> None:
        self._sink = sink
        self._chunks: SimpleQueue[bytes | None] = SimpleQueue()
        self._room = threading.Semaphore(_AHEAD)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="digestry-write", daemon=True)

    def write(self, chunk: bytes) -> None:
        """Pass ``chunk`` on. Raises what writing an earlier one raised."""
        self._room.acquire()
        if self._error is not None:
            raise self._error
        self._chunks.put(chunk)

    def _run(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            if self._error is None:
                try:
                    self._sink.write(chunk)
                except BaseException as error:  # noqa: BLE001 - raised in the reading thread
                    self._error = error
            self._room.release()

    def __enter__(self) -> _Behind:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        # In every case: afterwards the sink's offset tells what has arrived.
        self._chunks.put(None)
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error
