"""HTTP connections that bound how much the other side sends, and how long that may take.

A timeout of a socket begins anew with every byte, and http.client reads interim answers, chunk lines and
trailers for as long as they come. Here everything that a connection carries passes one place, which counts
it: the head of an answer, the framing of its body, and the time spent waiting for either.
"""

from __future__ import annotations

import functools
import http.client
import io
import re
import socket
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from digestry.client.http_connection import GatheringResponse, HttpConnection, Proxy
from digestry.client.wait_budget import WaitBudget
from digestry.errors import ProtocolViolation

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from digestry.client.trust import Trust

LARGEST_HEAD: Final = 256 << 10
"""Bytes of an answer's head, with the interim answers before it."""
MOST_INTERIM: Final = 16
"""Interim answers (RFC 9110, 15.2) before an answer."""
LARGEST_TRAILER: Final = 64 << 10
TRAILER_SECONDS: Final = 10.0
FRAMING: Final = 16
"""Bytes on the wire for each byte of a body, at most: a chunk of one byte takes six."""
FRAMING_AT_LEAST: Final = 1 << 20
COMMITTED: Final = 32 << 20
"""The rate, in bytes per second, at which a registry may process the sent bytes before it answers."""
_LONGEST_LINE: Final = 4096  # of a chunk's size
_GRACE: Final = 1.1  # so that the total time limit, which the message states, ends a wait
_PIECE: Final = 1 << 20
_WORTH_GATHERING: Final = 64 << 10
"""Bytes of a buffer that is filled at once."""
SWITCHING: Final = 101
_CHUNK_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,16}", re.ASCII)


class ResponseTimeouts(msgspec.Struct, frozen=True):
    """How long responses may take. ``head`` is the seconds for a head; with None only ``timeout`` bounds it,
    the seconds without a byte. ``waiting`` is the budget that the time counts against.
    """

    head: float | None
    timeout: float
    waiting: WaitBudget


class _Reader(io.RawIOBase):
    """The bytes of one response, counted as they are read from the connection."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, host: str, patience: ResponseTimeouts) -> None:
        self._raw = raw
        self._sock = sock
        self._host = host
        self._waiting = patience.waiting
        self._timeout = sock.gettimeout()
        self._until: float | None = None
        self._by_rate = False
        self._taken = 0
        self._most = 0
        self._what = ""
        self._gathers = False
        self.is_held = False
        """Whether reads find nothing, and wait for nothing."""

    def expect(self, most: int, what: str, seconds: float | None) -> None:
        """Allow ``most`` further bytes, called ``what`` in messages, within ``seconds``; None means
        no limit.
        """
        self._most, self._what = self._taken + most, what
        self._until = None if seconds is None else time.monotonic() + seconds

    def begin_body(self) -> Callable[[int], None]:
        """Count time below the least rate as waiting, from now on.

        Returns a function that allows so many bytes in all for the body and its framing.
        """
        began = self._taken
        self._until = None
        self._by_rate = True

        def allow(most: int) -> None:
            self._most, self._what = began + most, "more around its answer than in it"

        return allow

    def gather(self, seconds: float) -> bool:
        """Have each read into a large buffer fill all of it; see :meth:`GatheringResponse.gather`.

        The kernel copies the bytes as they arrive, and this thread is woken once for all of them.
        """
        if type(self._sock) is not socket.socket:
            return False
        if not self._gathers:
            whole = int(seconds)
            limit = struct.pack("@ll", whole, int((seconds - whole) * 1e6))  # struct timeval
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            self._gathers = True
        return True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        if self.is_held:
            return None
        if self._taken > self._most:
            raise ProtocolViolation(f"{self._host} sends {self._what}: the rest was not read")
        began = time.monotonic()
        count = self._read_whole(memoryview(buffer)) if self._gathers else None
        if count is None:
            self._set_timeout(began)
            try:
                count = self._raw.readinto(buffer)
            except TimeoutError:
                if self._by_rate:
                    self._waiting.failed(self._host, began)
                raise
        self._taken += count or 0
        if self._by_rate:
            self._waiting.received(self._host, began, count or 0)
        return count

    def _read_whole(self, buffer: memoryview) -> int | None:
        """Fill ``buffer``, and return the number of bytes; None if it is small, or if none comes in time."""
        left = self._waiting.left()
        if len(buffer) < _WORTH_GATHERING or (left is not None and left < _GRACE):
            return None
        if self._sock.gettimeout() is not None:
            self._sock.settimeout(None)  # only a blocking socket waits for all
        try:
            return self._sock.recv_into(buffer, 0, socket.MSG_WAITALL)
        except BlockingIOError:
            return None

    def _set_timeout(self, now: float) -> None:
        shortest = self._timeout
        if self._until is not None:
            left = self._until - now
            if left <= 0:
                raise TimeoutError("timed out")
            shortest = left if shortest is None else min(shortest, left)
        allowed = self._waiting.left()
        if allowed is not None:
            shortest = allowed + _GRACE if shortest is None else min(shortest, allowed + _GRACE)
        if shortest != self._sock.gettimeout():
            self._sock.settimeout(shortest)

    def fileno(self) -> int:
        return self._raw.fileno()

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(GatheringResponse):
    """A response whose parts are bounded. ``extra`` is how many seconds more its head may take."""

    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
        *,
        host: str,
        patience: ResponseTimeouts,
        extra: Callable[[], float],
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self._host = host
        self._waiting = patience.waiting
        self._extra = extra()
        self._began = time.monotonic()
        if self._extra:
            sock.settimeout(patience.timeout + self._extra)
        seconds = None if patience.head is None else patience.head + self._extra
        self._reader = _Reader(self.fp.detach(), sock, host, patience)
        self._reader.expect(LARGEST_HEAD, f"a head of more than {LARGEST_HEAD} bytes", seconds)
        self._allow: Callable[[int], None] = lambda _: None
        self._got = 0
        self._ahead = 0  # bytes of the body that came with the head
        self.fp = io.BufferedReader(self._reader)

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(MOST_INTERIM + 1):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200:
                return version, status, reason
            if status == SWITCHING:
                raise ProtocolViolation(f"{self._host} switches to another protocol, which was not requested")
            http.client.parse_headers(self.fp)
        raise ProtocolViolation(f"{self._host} sends one interim answer ({status}) after the other")

    def begin(self) -> None:
        try:
            super().begin()
        except TimeoutError:
            self._waiting.failed(self._host, self._began + self._extra)
            raise
        self._waiting.answered(self._host, self._began + self._extra)
        self._allow = self._reader.begin_body()
        self._allow(FRAMING_AT_LEAST)
        if self.fp is not None:
            self._reader.is_held = True
            self._ahead = len(self.fp.peek())
            self._reader.is_held = False

    def read1(self, n: int = -1) -> bytes:
        self._allow(max(n, 0) + FRAMING * self._got + FRAMING_AT_LEAST)
        part = super().read1(n)
        self._got += len(part)
        self._ahead = max(0, self._ahead - len(part))
        return part

    def readinto1(self, buffer: WriteableBuffer) -> int:
        """Fill ``buffer`` with the next bytes of a body without chunks, and return their number."""
        view = memoryview(buffer)
        if self.length is not None:
            view = view[: self.length]
        if self._ahead:
            # BufferedReader would wait for more to fill a large buffer with, and lose these if none came.
            view = view[: self._ahead]
        self._allow(len(view) + FRAMING * self._got + FRAMING_AT_LEAST)
        count = self.fp.readinto1(view)
        self._got += count
        self._ahead = max(0, self._ahead - count)
        if self.length is not None:
            self.length -= count
        return count

    def gather(self, seconds: float) -> bool:
        """Have large buffers filled by one read each; see :meth:`GatheringResponse.gather`."""
        return self._reader.gather(seconds)

    def _read_next_chunk_size(self) -> int:
        line = self.fp.readline(_LONGEST_LINE + 1)
        text = line.partition(b";")[0].strip()
        # int() would take a sign and underscores.
        if len(line) > _LONGEST_LINE or not _CHUNK_SIZE.fullmatch(text):
            raise http.client.IncompleteRead(b"")
        return int(text, 16)

    def _read_and_discard_trailer(self) -> None:
        self._reader.expect(
            LARGEST_TRAILER, f"trailers of more than {LARGEST_TRAILER} bytes", TRAILER_SECONDS
        )
        super()._read_and_discard_trailer()  # type: ignore[misc]


class BoundedConnection(HttpConnection):
    """A connection that bounds responses, and sends at a least rate."""

    def __init__(
        self,
        scheme: str,
        host: str,
        port: int,
        trust: Trust | None,
        proxy: Proxy | None,
        *,
        timeouts: ResponseTimeouts,
    ) -> None:
        super().__init__(scheme, host, port, trust, proxy)
        self._timeouts = timeouts
        self._name = f"{host}:{port}"
        self.response_class = functools.partial(  # type: ignore[assignment]
            _Response, host=self._name, patience=timeouts, extra=self._take_extra
        )

    def _take_extra(self) -> float:
        """Return the seconds that a registry may take to process the bytes sent since its last response."""
        committed, self.committed = self.committed, 0
        return float(committed // COMMITTED)

    def connect(self) -> None:
        began = time.monotonic()
        try:
            super().connect()
        except Exception:
            self._timeouts.waiting.failed(self._name, began)
            raise
        self._timeouts.waiting.answered(self._name, began)

    def send(self, data: Any) -> None:
        """Send bytes, in pieces that are counted against the time for waiting."""
        waiting, timeout, view = self._timeouts.waiting, self._timeouts.timeout, memoryview(data)
        sock = self.sock
        while view:
            began = time.monotonic()
            left = waiting.left()
            limit = timeout if left is None else min(timeout, left + _GRACE)
            if limit != sock.gettimeout():
                sock.settimeout(limit)
            try:
                count = sock.send(view[:_PIECE])
            except TimeoutError:
                waiting.failed(self._name, began)
                raise
            waiting.received(self._name, began, count)
            self.committed += count
            view = view[count:]
