"""Downloading the rest of a large blob by ranges that come at the same time, where one connection is slow.

On a line that loses packets each connection has a rate of its own, however fast the line is. The ranges are
written in their order, so that the hash runs along, and a later command goes on after what was written.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from digestry.blobs.verify import too_short
from digestry.client.endpoint import RepositoryEndpoint
from digestry.errors import ProtocolViolation, Unreachable
from digestry.model.descriptor import Descriptor

if TYPE_CHECKING:
    from digestry.blobs.ingests import Ingest
    from digestry.client.responses import Response

MOST_CONNECTIONS: Final = 6
"""Connections that download blobs, of one process."""
WORTH: Final = 16 << 20
"""Bytes that are left of a blob from which ranges are worth trying."""
WORTH_IF_SLOW: Final = 4 << 20
"""The same, of a blob whose connection is so slow that the rest would take :data:`SLOW_SECONDS`."""
SLOW_SECONDS: Final = 4.0
_RANGE: Final = 2 << 20
_AHEAD: Final = 2
"""Ranges in memory that came before it was their turn, beside one for each connection."""
_WATCHED: Final = 4.0
"""Seconds after which it shows whether ranges are faster."""
_BETTER: Final = 1.2
_PART: Final = 206
_CONTENT_RANGE: Final = r"bytes ([0-9]{1,19})-([0-9]{1,19})/(?:[0-9]{1,19}|\*)"


def fill(
    endpoint: RepositoryEndpoint,
    descriptor: Descriptor,
    sink: Ingest,
    progress: Callable[[int], None] | None,
    connections: int,
    *,
    better_than: float,
) -> None:
    """Write what ``sink`` lacks of a blob, over several connections.

    Ends early, with the sink at the end of a range, if the registry sends no ranges, or if they are no faster
    than ``better_than`` bytes a second. Raises as :meth:`Repository.pull_blob` does; what came in order is in
    the sink then.
    """
    ranges = _Ranges(endpoint, descriptor, sink.offset, max(1, connections))
    began, first = time.monotonic(), sink.offset
    try:
        while (part := ranges.following()) is not None:
            sink.write(part)
            if progress is not None:
                progress(len(part))
            ranges.release(part)
            took = time.monotonic() - began
            if took > _WATCHED and sink.offset - first < took * better_than * _BETTER:
                ranges.end()
    finally:
        ranges.stop()


def is_worth(left: int, rate: float) -> bool:
    """Return whether ranges are worth trying for ``left`` bytes that come at ``rate`` bytes a second."""
    return left >= WORTH or (left >= WORTH_IF_SLOW and left > rate * SLOW_SECONDS)


def check_start(response: Response, descriptor: Descriptor, start: int) -> None:
    """Raise :class:`ProtocolViolation` if a partial response does not begin at byte ``start`` of a blob."""
    match = re.fullmatch(_CONTENT_RANGE, response.headers.get("Content-Range", ""), re.ASCII)
    if match is None or int(match[1]) != start:
        raise ProtocolViolation(
            f"{response.host} was asked for {descriptor.digest} from byte {start}, and sends another part"
        )


class _Ranges:
    """Ranges of a blob that threads fetch, each the next one that nobody has begun."""

    def __init__(
        self, endpoint: RepositoryEndpoint, descriptor: Descriptor, start: int, connections: int
    ) -> None:
        self._endpoint = endpoint
        self._descriptor = descriptor
        self._begun = self._written = start
        self._free = [bytearray(_RANGE) for _ in range(connections + _AHEAD)]
        self._fetched: dict[int, memoryview] = {}
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._is_ending = self._is_stopped = False
        self._threads = [
            threading.Thread(target=self._run, name=f"digestry-range-{number}", daemon=True)
            for number in range(connections)
        ]
        for thread in self._threads:
            thread.start()

    def following(self) -> memoryview | None:
        """Return the bytes of the next range, once they are here; None if there is none.

        Raises what fetching it raised.
        """
        with self._changed:
            while self._written not in self._fetched:
                if self._error is not None:
                    raise self._error
                if self._written == self._begun and (self._is_ending or self._begun == self._descriptor.size):
                    return None
                self._changed.wait()
            part = self._fetched.pop(self._written)
            self._written += len(part)
            return part

    def release(self, part: memoryview) -> None:
        """Take back the memory of a range that was written."""
        buffer = part.obj
        assert isinstance(buffer, bytearray)  # noqa: S101 - for the type checker
        with self._changed:
            self._free.append(buffer)
            self._changed.notify_all()

    def end(self) -> None:
        """Begin no other range."""
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()

    def stop(self) -> None:
        """End the threads: each after what it is reading."""
        with self._changed:
            self._is_stopped = self._is_ending = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            start, part = taken
            try:
                come = self._fetch(start, part)
            except BaseException as error:  # noqa: BLE001 - raised in the writing thread
                with self._changed:
                    self._error = self._error or error
                    self._changed.notify_all()
                return
            with self._changed:
                if come:
                    self._fetched[start] = part
                else:
                    self._give_up(start)
                self._changed.notify_all()
            if not come:
                return

    def _take(self) -> tuple[int, memoryview] | None:
        """Return the position of the next range, and memory for it; None if there is no other."""
        with self._changed:
            while not self._free and not self._is_ending:
                self._changed.wait()
            left = self._descriptor.size - self._begun
            if self._is_ending or not left:
                return None
            start = self._begun
            self._begun += min(_RANGE, left)
            return start, memoryview(self._free.pop())[:left]

    def _give_up(self, start: int) -> None:
        """Note that ranges from ``start`` on will not come: the registry sends none."""
        self._is_ending = True
        self._begun = min(self._begun, start)

    def _fetch(self, start: int, part: memoryview) -> bool:
        """Fill ``part`` with the bytes from ``start`` on; return False if the registry sends no ranges."""
        attempts = self._endpoint.connection.options.retries
        count = 0
        while count < len(part):
            before = count
            failure: Unreachable | None = None
            try:
                with self._request(start + count, start + len(part) - 1) as response:
                    if response.status != _PART or response.encoding:
                        return False
                    check_start(response, self._descriptor, start + count)
                    while more := response.read_into(part[count:]):
                        count += more
                        if self._is_stopped:
                            return False
            except Unreachable as error:
                failure = error
            # An attempt that brought bytes does not count: the line is bad, but not dead.
            attempts -= count == before
            if attempts < 0:
                raise failure or too_short(self._descriptor.digest, self._descriptor.size, start + count)
        return True

    def _request(self, first: int, last: int) -> Response:
        headers = {"Range": f"bytes={first}-{last}"}
        return self._endpoint.request("GET", f"blobs/{self._descriptor.digest}", headers=headers)
