"""A small HTTP/1.1 server (RFC 9112) in the event loop, for requests that fit in memory.

Connections stay open between requests. It ends without losing one: :meth:`HttpServer.drain`. Each wait for a
client has a limit, and so have the connections and the bytes that are read at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, urlsplit

log: Final = logging.getLogger("digestry.admission")

LARGEST_BODY: Final = 32 << 20
"""Bytes of a request: two objects of the 3 MB that an API server takes, and room."""

_LARGEST_HEAD: Final = 64 << 10
_IDLE_SECONDS: Final = 300.0
"""API servers keep an idle connection for 90 s, and are to close it first."""
_HEAD_SECONDS: Final = 10.0
_BODY_SECONDS: Final = 30.0
_SEND_SECONDS: Final = 30.0
_HANDSHAKE_SECONDS: Final = 10.0
_MOST_OPEN: Final = 800
_SMALL_BODY: Final = 256 << 10
_LARGE_AT_ONCE: Final = 4
"""How many bodies that are not small are read at once; others wait for their turn."""
_BACKLOG: Final = 1024
_LINE: Final = re.compile(rb"([A-Z]{1,16}) (\S{1,8192}) HTTP/1\.([01])")
_SIZE: Final = re.compile(rb"[0-9a-fA-F]{1,8}")


@dataclass(frozen=True, slots=True)
class Request:
    """A request. ``query`` has the first value of each parameter."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """A response with all of its body."""

    status: int
    body: bytes = b""
    media_type: str = "application/json"


_TOO_LONG: Final = Response(431, b'{"message": "the head of the request is too long"}')
_TOO_SLOW: Final = Response(408, b'{"message": "the request did not come in time"}')

Handler = Callable[[Request], Awaitable[Response]]


class _Bad(Exception):
    """A request that is not understood, and the answer to it."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def _bad(status: int, message: str) -> _Bad:
    return _Bad(Response(status, b'{"message": "' + message.encode() + b'"}'))


class HttpServer:
    """A server at ``host:port``; port 0 is any free one. With ``tls``, whose certificate may be changed at
    any time."""

    def __init__(self, handler: Handler, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._handler = handler
        self._host = host
        self._port = port
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._idle: dict[asyncio.StreamWriter, None] = {}
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._ending = False

    @property
    def address(self) -> str:
        """Where it is to listen."""
        return f"{self._host}:{self._port}"

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._server is not None  # noqa: S101 - it was started
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen. Raises ``OSError``."""
        self._server = await asyncio.start_server(
            self._connected,
            self._host,
            self._port,
            ssl=self._tls,
            limit=_LARGEST_HEAD,
            backlog=_BACKLOG,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS if self._tls is not None else None,
        )

    def retire(self) -> None:
        """Ask clients to go elsewhere: each further answer is the last one of its connection.

        A connection that is just closed could have a request on its way, which clients do not send again.
        """
        self._ending = True

    async def drain(self, seconds: float) -> None:
        """Take no further connections, answer every request that has begun, for ``seconds`` at the most, and
        close."""
        self._ending = True
        if self._server is not None:
            self._server.close()
        for writer in list(self._idle):
            writer.close()
        left = [task for writer, task in self._open.items() if writer not in self._idle]
        if left:
            _, late = await asyncio.wait(left, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                log.error(
                    "%d requests were not answered within %g s, and were broken off", len(late), seconds
                )

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        if len(self._open) >= _MOST_OPEN and not self._make_room():
            log.warning("a connection was refused: %d requests are under way", len(self._open))
            writer.transport.abort()
            return
        self._open[writer] = task
        try:
            while await self._exchange(reader, writer):
                pass
        except (TimeoutError, asyncio.CancelledError):
            writer.transport.abort()  # what it does not read is not waited for
        except (OSError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the client went away
        finally:
            self._open.pop(writer, None)
            self._idle.pop(writer, None)
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()

    def _make_room(self) -> bool:
        """Close the connection that has been idle for longest, and return whether there was one."""
        writer = next(iter(self._idle), None)
        if writer is None:
            return False
        self._idle.pop(writer)
        self._open.pop(writer, None)
        writer.transport.abort()
        return True

    async def _head(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Read a request's head. Raises :class:`_Bad` for one that is too long or does not come."""
        self._idle[writer] = None
        try:
            async with asyncio.timeout(_IDLE_SECONDS):
                first = await reader.readexactly(1)
        finally:
            self._idle.pop(writer, None)
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                return first + await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError as error:
            raise _Bad(_TOO_LONG) from error
        except TimeoutError as error:
            raise _Bad(_TOO_SLOW) from error

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request, and return whether another may follow on the connection."""
        try:
            request, stays = await self._request(await self._head(reader, writer), reader, writer)
        except _Bad as error:
            await self._send(writer, error.response, False)
            return False
        without_body = request.method == "HEAD"
        try:
            response = await self._handler(replace(request, method="GET") if without_body else request)
        except Exception:
            log.exception("a request to %s failed: this is a defect", request.path)
            response = Response(500, b'{"message": "the webhook failed: its log says why"}')
        stays = stays and not self._ending
        await self._send(writer, response, stays, without_body=without_body)
        return stays

    async def _request(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[Request, bool]:
        first, *lines = head[:-4].split(b"\r\n")
        line = _LINE.fullmatch(first)
        if line is None:
            raise _bad(400, "this is not a request of HTTP/1.1")
        fields: dict[bytes, bytes] = {}
        for text in lines:
            name, colon, value = text.partition(b":")
            key = name.lower()
            if not colon or name != name.strip() or not name:
                raise _bad(400, "a header field is malformed")
            if key in fields and key in {b"content-length", b"transfer-encoding"}:
                raise _bad(400, "the length of the body is there twice")
            fields[key] = value.strip()
        if fields.get(b"expect", b"").lower() == b"100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            parts = urlsplit(line[2].decode("latin-1"))
        except ValueError as error:
            raise _bad(400, "the target of the request is no URL") from error
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await self._body(fields, reader)
        except TimeoutError as error:
            raise _Bad(_TOO_SLOW) from error
        connection = fields.get(b"connection", b"").lower()
        stays = b"close" not in connection and (line[3] == b"1" or b"keep-alive" in connection)
        query = dict(reversed(parse_qsl(parts.query)))
        return Request(line[1].decode(), parts.path, query, body), stays

    async def _body(self, fields: dict[bytes, bytes], reader: asyncio.StreamReader) -> bytes:
        length = fields.get(b"content-length", b"")
        if b"transfer-encoding" not in fields and length.isdigit() and int(length[:12]) <= _SMALL_BODY:
            return await _body(fields, reader)
        async with self._large:
            return await _body(fields, reader)

    async def _send(
        self,
        writer: asyncio.StreamWriter,
        response: Response,
        stays: bool,
        *,
        without_body: bool = False,
    ) -> None:
        try:
            phrase = HTTPStatus(response.status).phrase
        except ValueError:
            phrase = ""
        head = (
            f"HTTP/1.1 {response.status} {phrase}\r\nContent-Type: {response.media_type}\r\n"
            f"Content-Length: {len(response.body)}\r\nX-Content-Type-Options: nosniff\r\n"
            f"{'' if stays else 'Connection: close' + chr(13) + chr(10)}\r\n"
        )
        writer.write(head.encode() if without_body else head.encode() + response.body)
        async with asyncio.timeout(_SEND_SECONDS):
            await writer.drain()


async def _body(fields: dict[bytes, bytes], reader: asyncio.StreamReader) -> bytes:
    coding = fields.get(b"transfer-encoding")
    length = fields.get(b"content-length")
    if coding is not None:
        if coding.lower() != b"chunked" or length is not None:
            raise _bad(400, "this transfer coding is not understood")
        return await _chunks(reader)
    if length is None:
        return b""
    if not length.isdigit() or len(length) > 12:
        raise _bad(400, "Content-Length is not a number")
    if int(length) > LARGEST_BODY:
        raise _bad(413, f"the body is longer than {LARGEST_BODY} bytes")
    return await reader.readexactly(int(length))


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        try:
            line = await reader.readuntil(b"\r\n")
        except asyncio.LimitOverrunError as error:
            raise _bad(400, "a chunk has no length") from error
        size = _SIZE.fullmatch(line[:-2].partition(b";")[0].strip())
        if size is None:
            raise _bad(400, "a chunk has no length")
        count = int(size[0], 16)
        if len(body) + count > LARGEST_BODY:
            raise _bad(413, f"the body is longer than {LARGEST_BODY} bytes")
        if count == 0:
            try:
                while (await reader.readuntil(b"\r\n")) != b"\r\n":
                    pass  # trailer fields
            except asyncio.LimitOverrunError as error:
                raise _bad(400, "a trailer field is too long") from error
            return bytes(body)
        body += await reader.readexactly(count)
        if await reader.readexactly(2) != b"\r\n":
            raise _bad(400, "a chunk does not end where it should")
