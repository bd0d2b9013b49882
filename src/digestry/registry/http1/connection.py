"""One connection of a client: it reads requests, one after the other, and has each answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from digestry.registry.http1 import response
from digestry.registry.http1.cycle import Cycle
from digestry.registry.http1.head import LONGEST, HeadParser, MalformedRequest, RequestHead, may_begin_request

_KEPT: Final = 512 << 10
"""Bytes of a body, or of requests that come before their turn, from which on the client has to wait."""
_KEPT_TOGETHER: Final = 2 << 20
_KEPT_LEAST: Final = 64 << 10
_LINGER_SECONDS: Final = 5.0
_LINGER_BYTES: Final = 16 << 20
"""For so many seconds, and bytes, the client's data is drained, so that it sees the answer and not a broken
connection."""

Begin = Callable[["HttpConnection", Cycle], None]
"""Has a request answered, and calls :meth:`HttpConnection.ended` after that."""


class WaitingClients:
    """The number of connections that are not read from: what came of each is kept. The more there are, the
    less is kept for each."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0

    @property
    def kept(self) -> int:
        """Return the bytes from which on another client has to wait."""
        return max(_KEPT_LEAST, min(_KEPT, _KEPT_TOGETHER // (self.number + 1)))


class HttpConnection(asyncio.Protocol):
    """The protocol of one connection. ``begin`` is called for each request, ``closed`` at the end;
    ``waiting`` is shared by the connections of one server."""

    def __init__(
        self, begin: Begin, closed: Callable[[HttpConnection], None], waiting: WaitingClients | None = None
    ) -> None:
        self._begin = begin
        self._closed = closed
        self._waiting = waiting or WaitingClients()
        self._parser = HeadParser()
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._cycle: Cycle | None = None
        self._ahead = bytearray()
        """The outcome of parsing the next request."""
        self._searched = 0
        self._reading = True
        self._flushing: asyncio.Future[None] | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._read_away = 0
        self._held = False
        """Whether the next request waits until the client has taken its answers."""
        self._last = False
        self.announces_end = False
        """Whether the response to the next request says that it is the last."""
        self.task: asyncio.Task[None] | None = None
        """The cycle of the present request."""
        self.descriptor = -1
        self.client: tuple[str, str] | None = None
        self.server: tuple[str, int] | None = None

    # -- of the transport ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # The kernel buffers enough: bytes kept here would only be sent once the client reads.
        self._transport.set_write_buffer_limits(high=0)
        self.descriptor = transport.get_extra_info("socket").fileno()
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if peer:
            self.client = str(peer[0]).partition("%")[0], str(peer[1])
        if own:
            self.server = str(own[0]), own[1]

    def data_received(self, data: bytes) -> None:
        if self._lingering is not None:
            self._read_away += len(data)
            if self._read_away > _LINGER_BYTES:
                self.abort()
            return
        cycle = self._cycle
        if cycle is not None and not cycle.body_ended:
            data = self._feed(cycle, data)
            if not data:
                return
        if cycle is not None or self._ahead or self._held:
            self._ahead += data
            if cycle is None and not self._held:
                self._next()
            elif len(self._ahead) > self._waiting.kept:
                self._pause()
            return
        end = data.find(b"\r\n\r\n")
        if end > 0:
            self._start(data[: end + 2], data[end + 4 :])
        else:
            self._ahead += data
            self._next()

    def eof_received(self) -> bool:
        if self._cycle is not None:
            self._cycle.lose()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.descriptor = -1
        if not self._reading:
            self._reading = True
            self._waiting.number -= 1
        self._resume_writing()
        if self._lingering is not None:
            self._lingering.cancel()
        if self._cycle is not None:
            self._cycle.lose()
        self._closed(self)

    def pause_writing(self) -> None:
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        self._resume_writing()

    def _resume_writing(self) -> None:
        if self._flushing is not None:
            if not self._flushing.done():
                self._flushing.set_result(None)
            self._flushing = None
        if self._held:
            self._held = False
            if not self._transport.is_closing():
                self._go_on()

    # -- of the requests -----------------------------------------------------------------------

    def _next(self) -> None:
        """Begin with the request that has arrived in part or as a whole."""
        ahead = self._ahead
        while ahead[:2] == b"\r\n":
            del ahead[:2]  # some clients end a body so (RFC 9112, section 2.2)
        end = ahead.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end >= 0:
            head, rest = bytes(ahead[: end + 2]), bytes(ahead[end + 4 :])
            self._ahead = bytearray()
            self._searched = 0
            self._start(head, rest)
        elif len(ahead) > LONGEST:
            self._refuse(431)
        elif not self._searched and not may_begin_request(ahead):
            # Answered at once: clients that try TLS first wait for it before they try without.
            self._refuse(400)
        else:
            self._searched = len(ahead)

    def _start(self, head: bytes, rest: bytes) -> None:
        try:
            request: RequestHead = self._parser.parse(head)
        except MalformedRequest as error:
            self._refuse(error.status)
            return
        cycle = self._cycle = Cycle(self, request, persistent=not (self._last or self.announces_end))
        if rest:
            rest = self._feed(cycle, rest)
            self._ahead += rest
        self._begin(self, cycle)

    def _feed(self, cycle: Cycle, data: bytes) -> bytes:
        try:
            rest = cycle.feed(data)
        except MalformedRequest:
            cycle.broken = True
            cycle.lose()
            return b""
        if cycle.kept > self._waiting.kept:
            self._pause()
        return rest

    def ended(self, cycle: Cycle) -> None:
        """Go on after a request whose answer has ended, or never will."""
        self._cycle = self.task = None
        if self._transport.is_closing():
            return
        if not cycle.answered:
            self.abort()
        elif not cycle.persistent:
            self._finish(linger=not cycle.body_ended)
        elif self._last:
            self._finish(linger=False)
        elif self._flushing is not None:
            self._held = True  # no further requests are answered for a client that does not read
            self._pause()
        else:
            self._go_on()

    def _go_on(self) -> None:
        self.want_body()
        if self._ahead:
            self._next()

    def _refuse(self, status: int) -> None:
        self._transport.write(response.refusal(status))
        self._finish(linger=True)

    def _finish(self, *, linger: bool) -> None:
        """Close the connection once all is sent."""
        if not linger:
            self._transport.close()
            return
        self.want_body()
        self._transport.write_eof()
        loop = asyncio.get_running_loop()
        self._lingering = loop.call_later(_LINGER_SECONDS, self._transport.abort)

    def close_when_idle(self) -> None:
        """Close the connection, after the request that is being answered."""
        self._last = True
        if self._held:
            self._transport.close()  # once the client has taken its answers
        elif self._cycle is not None:
            self._cycle.persistent = False
        else:
            self._transport.close()

    # -- for a request -------------------------------------------------------------------------

    def write(self, *parts: bytes) -> None:
        """Send bytes; see :class:`Wire`."""
        if len(parts) == 1:
            self._transport.write(parts[0])
        else:
            self._transport.writelines(parts)

    async def flushed(self) -> None:
        """Wait until the kernel has all; see :class:`Wire`."""
        while self._flushing is not None:
            await asyncio.shield(self._flushing)

    def want_body(self) -> None:
        """Go on reading."""
        if not self._reading:
            self._reading = True
            self._waiting.number -= 1
            self._transport.resume_reading()

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._waiting.number += 1
            self._transport.pause_reading()

    def abort(self) -> None:
        """Break the connection, so that the client sees that its answer is cut."""
        self._transport.abort()
