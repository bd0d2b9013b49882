"""A server of a small application, and clients that see each byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.types import Receive, Scope, Send

from digestry.registry.http1.worker import Server

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]

PATIENCE = 30.0


@contextlib.asynccontextmanager
async def serving(app: Handler, *, most: int = 100) -> AsyncIterator[tuple[Server, tuple[str, int]]]:
    """Return a running server and its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Server(app, most=most)
        server.listen(listening)
        try:
            yield server, listening.getsockname()
        finally:
            await server.stop(patience=PATIENCE)


async def exchange(address: tuple[str, int], *pieces: bytes, pause: float = 0.0) -> bytes:
    """Send ``pieces``, and return all that comes until the server closes the connection."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        return await asyncio.wait_for(reader.read(), PATIENCE)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def body_of(receive: Receive) -> bytes:
    """Return a request's whole body. Raises ConnectionError if the client leaves."""
    parts = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        parts.append(message["body"])
        more = message["more_body"]
    return b"".join(parts)


async def respond(send: Send, status: int, body: bytes = b"") -> None:
    """Send a whole response."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the method, the path and the body."""
    body = await body_of(receive)
    await respond(send, 200, f"{scope['method']} {scope['path']} ".encode() + body)
