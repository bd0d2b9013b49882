"""One request and its response, between a connection and the ASGI application."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Final, Protocol, cast

from starlette.types import Message, Scope

from digestry.registry.http1 import response
from digestry.registry.http1.body import ChunkedBody, LengthBody
from digestry.registry.http1.head import RequestHead

_ASGI: Final = {"version": "3.0", "spec_version": "2.5"}
ZERO_COPY: Final = "http.response.zerocopysend"
"""The extension of ASGI by which an application has the kernel send a part of a file."""
DRAINS: Final = "digestry.http.drains"
"""The extension by which an application knows that it may respond before the request's body has come: the
rest is drained after the response."""
_EXTENSIONS: Final[dict[str, dict[str, object]]] = {ZERO_COPY: {}, DRAINS: {}}
_DISCONNECT: Final[Message] = {"type": "http.disconnect"}
_JOINED: Final = 64 << 10
"""A short body goes out with the head, in one piece."""
_NUDGE: Final = 4096
"""Bytes of a file that are sent through the transport, which reports when the kernel has room again."""


class Wire(Protocol):
    """The connection, as its requests use it."""

    descriptor: int
    """The socket's, while it is open."""

    def write(self, *parts: bytes) -> None:
        """Send bytes, or keep them until the kernel takes them."""
        ...

    async def flushed(self) -> None:
        """Wait until the kernel has taken the buffered bytes, or the client is gone."""
        ...

    def want_body(self) -> None:
        """Go on reading the body."""
        ...

    def abort(self) -> None:
        """Break the connection."""
        ...


class Cycle:
    """A request that is being answered. ``receive`` and ``send`` are the application's."""

    __slots__ = (
        "_all_received",
        "_bodiless",
        "_body",
        "_chunked",
        "_expects",
        "_left",
        "_parts",
        "_start",
        "_waiter",
        "_wire",
        "answered",
        "broken",
        "gone",
        "head",
        "persistent",
        "started",
    )  # fmt: skip

    def __init__(self, wire: Wire, head: RequestHead, *, persistent: bool) -> None:
        block = head.block
        self.head = head
        self._wire = wire
        self._body: LengthBody | ChunkedBody | None = None
        if block.chunked:
            self._body = ChunkedBody()
        elif block.length:
            self._body = LengthBody(block.length)
        self._expects = block.expects_continue and self._body is not None and head.version == "1.1"
        self._parts: list[bytes] = []
        self._all_received = False
        self._waiter: asyncio.Future[None] | None = None
        self._start: Message | None = None
        self._left: int | None = None
        self._chunked = self._bodiless = False
        self.persistent = persistent and head.persistent
        """Whether the connection is kept open after this."""
        self.gone = False
        """Whether the client left, or its data can no longer be parsed."""
        self.broken = False
        """Whether the request's body is malformed."""
        self.started = False
        """Whether the response's head was sent."""
        self.answered = False
        """Whether all of the response was sent."""

    def scope(self, client: tuple[str, str] | None, server: tuple[str, int] | None) -> Scope:
        """Return the request's scope, as ASGI has it."""
        head = self.head
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": head.version,
            "method": head.method,
            "scheme": "http",
            "path": head.path,
            "raw_path": head.raw_path,
            "query_string": head.query,
            "root_path": "",
            "headers": head.fields,
            "client": client,
            "server": server,
            "extensions": _EXTENSIONS,
        }

    # -- the request's body --------------------------------------------------------------------

    @property
    def body_ended(self) -> bool:
        """Whether the whole request came."""
        return self._body is None

    @property
    def kept(self) -> int:
        """Bytes of the body that the application has yet to ask for."""
        return sum(map(len, self._parts))

    def feed(self, data: bytes) -> bytes:
        """Take the part of ``data`` that is body, and return the rest. Raises :class:`MalformedRequest`."""
        body = self._body
        if body is None:
            return data
        part, rest = body.feed(data)
        if part:
            self._parts.append(part)
        if body.ended:
            self._body = None
        if part or body.ended:
            self._wake()
        return rest

    def lose(self) -> None:
        """Tell the application that the client is gone."""
        self.gone = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self) -> Message:
        """Return the next part of the body, or that the client is gone."""
        while True:
            if self._parts:
                parts, self._parts = self._parts, []
                body = parts[0] if len(parts) == 1 else b"".join(parts)
                self._all_received = self._body is None
                if not self._all_received:
                    self._wire.want_body()
                return {"type": "http.request", "body": body, "more_body": not self._all_received}
            if self.gone:
                return _DISCONNECT
            if self._body is None and not self._all_received:
                self._all_received = True
                return {"type": "http.request", "body": b"", "more_body": False}
            if self._expects and not self.started:
                self._expects = False
                self._wire.write(response.CONTINUE)
            self._wire.want_body()
            await self._wait()

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # -- the response --------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Send the next part of the response. To a client that is gone nothing is sent."""
        if self.gone:
            return
        kind = message["type"]
        if kind == "http.response.body":
            body = message.get("body", b"")
            more = bool(message.get("more_body", False))
            if self._start is not None:
                self._begin(self._start, body, more=more)
            else:
                self._check_open()
                self._send_part(body, more=more)
            if more or len(body) > _JOINED:
                await self._wire.flushed()
        elif kind == "http.response.start":
            if self.started or self._start is not None:
                raise RuntimeError("a response was started twice")
            self._start = message
        elif kind == ZERO_COPY:
            await self._send_file(message)
        else:
            raise RuntimeError(f"an unknown message: {kind}")

    def _check_open(self) -> None:
        if not self.started or self.answered:
            raise RuntimeError("a part of a response before its start or after its end")

    def _begin(self, start: Message, body: bytes, *, more: bool) -> None:
        """Send the head, with the beginning of the body."""
        self._start = None
        status: int = start["status"]
        fields = cast("Sequence[tuple[bytes, bytes]]", start["headers"])
        self._left = None
        for name, value in fields:
            if name == b"content-length":
                self._left = int(value)
        self._bodiless = self.head.method == "HEAD" or response.has_no_body(status)
        framing: list[tuple[bytes, bytes]] = []
        if self._left is None and not self._bodiless:
            if more and self.head.version == "1.1":
                self._chunked = True
                framing.append(response.CHUNKED)
            elif more:
                self.persistent = False  # the connection's end is the body's
            else:
                self._left = len(body)
                framing.append((b"content-length", b"%d" % len(body)))
        if self._body is not None:
            self.persistent = False  # the rest of the request's body will not be read
        if not self.persistent:
            framing.append(response.CLOSE)
        elif self.head.version == "1.0":
            framing.append(response.KEEP_ALIVE)
        head = response.encode_head(status, [*fields, *framing])
        self.started = True
        if len(body) > _JOINED or self._chunked or not body:
            self._wire.write(head)
            self._send_part(body, more=more)
        else:
            self._send_part(body, more=more, head=head)

    def _send_part(self, body: bytes, *, more: bool, head: bytes = b"") -> None:
        if self._bodiless:
            body = b""
        self._count(len(body))
        if self._chunked:
            parts = [b"%x\r\n" % len(body), body, b"\r\n"] if body else []
            self._wire.write(*parts, *(() if more else (b"0\r\n\r\n",)))
        elif head and body:
            self._wire.write(head + body)
        elif head or body:
            self._wire.write(head or body)
        self._end(more=more)

    def _count(self, size: int) -> None:
        if self._left is not None and not self._bodiless:
            self._left -= size
            if self._left < 0:
                self._wire.abort()
                raise RuntimeError("a response is longer than it says")

    def _end(self, *, more: bool) -> None:
        if not more:
            self.answered = self._bodiless or not self._left
            if not self.answered:
                self._wire.abort()
                raise RuntimeError("a response is shorter than it says")

    async def _send_file(self, message: Message) -> None:
        """Send a part of a file; see the ASGI extension "Zero Copy Send". ``file`` is a descriptor.

        Bytes in the page cache do not pass through this process.
        """
        more = bool(message.get("more_body", False))
        if self._start is not None:
            self._begin(self._start, b"", more=True)
        self._check_open()
        if self._chunked or self._bodiless:
            raise RuntimeError("a file is sent as a part of a body whose length is known")
        self._count(message["count"])
        await self._transfer(message["file"], message["offset"], message["count"])
        self._end(more=more)

    async def _transfer(self, file: int, offset: int, count: int) -> None:
        wire = self._wire
        await wire.flushed()
        while count and not self.gone:
            try:
                sent = os.sendfile(wire.descriptor, file, offset, count)
            except BlockingIOError:
                piece = os.pread(file, min(_NUDGE, count), offset)
                sent = len(piece)
                if piece:
                    wire.write(piece)
                    await wire.flushed()
            except OSError:
                wire.abort()  # it is broken, or else the file cannot be read
                self.lose()
                return
            if not sent:
                wire.abort()
                raise RuntimeError("a file is shorter than the response says")
            offset += sent
            count -= sent

    def fail(self) -> None:
        """Answer for an application that did not."""
        self.persistent = False
        if not self.started and (self.broken or not self.gone):
            status = 400 if self.broken else 500
            self._begin({"status": status, "headers": [(b"content-length", b"0")]}, b"", more=False)
