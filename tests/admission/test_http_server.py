"""The webhook's own HTTP server, met by clients that are slow, odd, or many."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from digestry.admission import http_server
from digestry.admission.http_server import HttpServer, Request, Response


async def echo(request: Request) -> Response:
    return Response(200, f"{request.method} {request.path} {len(request.body)}".encode())


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[HttpServer]:
    server = HttpServer(echo, "127.0.0.1", 0)
    await server.start()
    try:
        yield server
    finally:
        await server.drain(0.1)


async def answer(server: HttpServer, content: bytes) -> bytes:
    """All that the server sends on a connection with ``content``, until it closes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(content)
    async with asyncio.timeout(20):
        said = await reader.read()
    writer.close()
    return said


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"GET //[::1 HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/2.0\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"x" * (70 << 10), b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * (70 << 10), b"431"),
    ],
)
def test_what_is_no_request_is_answered(content: bytes, status: bytes) -> None:
    async def ask() -> None:
        async with served() as server:
            assert (await answer(server, content)).startswith(b"HTTP/1.1 " + status)
            assert b"GET /x 0" in await answer(server, b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n")

    asyncio.run(ask())


def test_head_has_no_body_and_the_connection_goes_on() -> None:
    async def ask() -> None:
        async with served() as server:
            more = b"HEAD /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\nConnection: close\r\n\r\n"
            said = await answer(server, more)
            assert said.count(b"HTTP/1.1 200") == 2
            assert b"Content-Length: 8\r\nX-Content-Type-Options: nosniff\r\n\r\nHTTP/1.1" in said
            assert said.endswith(b"GET /b 0")

    asyncio.run(ask())


def test_a_slow_client_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_HEAD_SECONDS", "_BODY_SECONDS", "_IDLE_SECONDS"):
        monkeypatch.setattr(http_server, name, 0.2)

    async def ask() -> None:
        async with served() as server:
            assert b"HTTP/1.1 408" in await answer(server, b"POST /validate HTT")
            assert b"HTTP/1.1 408" in await answer(server, b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx")
            with contextlib.suppress(ConnectionError):
                assert await answer(server, b"") == b""

    asyncio.run(ask())


def test_idle_connections_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_MOST_OPEN", 20)

    async def ask() -> None:
        async with served() as server:
            idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(60)]
            said = await answer(server, b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert b"GET /x 0" in said
            # The youngest are still there.
            reader, writer = idle[-1]
            writer.write(b"GET /y HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert b"GET /y 0" in await reader.read()
            for _, one in idle:
                one.close()

    asyncio.run(ask())


def test_large_bodies_take_turns() -> None:
    async def ask() -> None:
        async with served() as server:
            size = 2 << 20
            head = b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
            said = await asyncio.gather(*(answer(server, head + b"x" * size) for _ in range(12)))
            assert all(one.endswith(b"POST / %d" % size) for one in said)

    asyncio.run(ask())
