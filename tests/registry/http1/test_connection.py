"""Connections: requests one after the other, bodies in any framing, and ends of all kinds."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from tests.registry.http1.support import PATIENCE, body_of, echo, exchange, respond, serving

CLOSE = b"Connection: close\r\n"


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def timed() -> None:
        async with asyncio.timeout(PATIENCE):
            await work()

    asyncio.run(timed())


def bodies(received: bytes) -> list[bytes]:
    """The bodies of responses that say their length."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        size = int(length[1]) if length else 0
        found.append(rest[:size])
        received = rest[size:]
    return found


def test_requests_follow_each_other() -> None:
    async def work() -> None:
        async with serving(echo) as (_, address):
            one = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
            two = b"PUT /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
            three = b"PUT /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n"
            four = b"GET /4 HTTP/1.1\r\nHost: a\r\n" + CLOSE + b"\r\n"
            whole = one + two + b"\r\n" + three + four
            wanted = [b"GET /1 ", b"PUT /2 abc", b"PUT /3 de", b"GET /4 "]
            assert bodies(await exchange(address, whole)) == wanted
            pieces = [whole[start : start + 7] for start in range(0, len(whole), 7)]
            assert bodies(await exchange(address, *pieces, pause=0.001)) == wanted

    run(work)


def test_a_head_has_no_body() -> None:
    async def work() -> None:
        async with serving(echo) as (_, address):
            received = await exchange(address, b"HEAD /1 HTTP/1.1\r\n" + CLOSE + b"\r\n")
        assert b"content-length: 8\r\n" in received
        assert received.endswith(b"\r\n\r\n")

    run(work)


def test_who_waits_to_continue_is_told_to() -> None:
    async def work() -> None:
        async with serving(echo) as (_, address):
            reader, writer = await asyncio.open_connection(*address)
            head = b"PUT / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n" + CLOSE
            writer.write(head + b"\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"ab")
            assert (await reader.read()).endswith(b"PUT / ab")
            writer.close()

    run(work)


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer without reading the body."""
    await respond(send, 413, b"no")


def test_a_body_that_nobody_reads_ends_the_connection_after_the_answer() -> None:
    async def work() -> None:
        async with serving(refuse) as (_, address):
            head = b"PUT / HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n"
            received = await exchange(address, head, b"x" * 100_000)
        assert b"connection: close\r\n" in received
        assert bodies(received) == [b"no"]

    run(work)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # a TLS greeting, which waits for an answer
        (b"\xff", 400),
        (b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * (481 << 10), 431),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n", 400),
    ],
)
def test_what_cannot_be_understood_is_answered_once(content: bytes, status: int) -> None:
    async def work() -> None:
        async with serving(echo) as (_, address):
            received = await exchange(address, content)
        assert received.startswith(b"HTTP/1.1 %d " % status)
        assert received.count(b"HTTP/1.1 ") == 1

    run(work)


def test_an_application_that_fails() -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/late":
            start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]}
            await send(start)
            await send({"type": "http.response.body", "body": b"begin", "more_body": True})
        raise ValueError("on purpose")

    async def work() -> None:
        async with serving(fail) as (_, address):
            early = await exchange(address, b"GET / HTTP/1.1\r\n\r\n")
            assert early.startswith(b"HTTP/1.1 500 ")
            late = await exchange(address, b"GET /late HTTP/1.1\r\n\r\n")
            assert late.endswith(b"\r\n\r\nbegin")  # and not the nine bytes that were promised

    run(work)


def test_a_field_with_the_end_of_a_line_is_never_sent() -> None:
    async def split(scope: Scope, receive: Receive, send: Send) -> None:
        fields = [(b"x", b"a\r\nset-cookie: b"), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body"})

    async def work() -> None:
        async with serving(split) as (_, address):
            received = await exchange(address, b"GET / HTTP/1.1\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 500 ")
        assert b"cookie" not in received

    run(work)


def test_a_body_of_unknown_length() -> None:
    async def parts(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in b"one", b"", b"two":
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    async def work() -> None:
        async with serving(parts) as (_, address):
            new = await exchange(address, b"GET / HTTP/1.1\r\n" + CLOSE + b"\r\n")
            assert new.endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
            old = await exchange(address, b"GET / HTTP/1.0\r\n\r\n")
            assert old.endswith(b"\r\n\r\nonetwo")

    run(work)


def test_who_leaves_is_noticed() -> None:
    async def work() -> None:
        left = asyncio.Event()
        arrived = asyncio.Event()

        async def wait(scope: Scope, receive: Receive, send: Send) -> None:
            await body_of(receive)
            arrived.set()
            assert (await receive())["type"] == "http.disconnect"
            await respond(send, 200)  # to nobody
            left.set()

        async with serving(wait) as (_, address):
            _, writer = await asyncio.open_connection(*address)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await arrived.wait()
            writer.close()
            await left.wait()

    run(work)


def test_a_body_comes_no_faster_than_it_is_read() -> None:
    async def work() -> None:
        go_on = asyncio.Event()

        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            await go_on.wait()
            await respond(send, 200, b"%d" % len(await body_of(receive)))

        async with serving(slow) as (_, address):
            reader, writer = await asyncio.open_connection(*address)
            size = 64 << 20
            writer.write(b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n%b\r\n" % (size, CLOSE))
            sending = asyncio.create_task(_send_zeros(writer, size))
            await asyncio.sleep(0.5)
            assert not sending.done()  # the kernel's buffers are smaller than that
            go_on.set()
            assert bodies(await reader.read()) == [b"%d" % size]
            await sending
            writer.close()

    run(work)


async def _send_zeros(writer: asyncio.StreamWriter, size: int) -> None:
    for _ in range(size >> 20):
        writer.write(bytes(1 << 20))
        await writer.drain()


@pytest.mark.long
def test_requests_of_who_reads_nothing_wait() -> None:
    async def work() -> None:
        answered = 0

        async def count(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal answered
            answered += 1
            await respond(send, 200, bytes(60 << 10))

        async with serving(count) as (_, address):
            reader, writer = await asyncio.open_connection(*address, limit=1 << 10)
            writer.write(b"GET / HTTP/1.1\r\n\r\n" * 999 + b"GET / HTTP/1.1\r\n" + CLOSE + b"\r\n")
            await asyncio.sleep(0.5)
            assert answered < 500  # the kernel's buffers are smaller than that
            assert len(bodies(await reader.read())) == 1000
            writer.close()

    run(work)


def test_no_more_connections_than_there_may_be() -> None:
    async def work() -> None:
        async with serving(echo, most=1) as (_, address):
            request = b"GET / HTTP/1.1\r\n\r\n"
            reader, writer = await asyncio.open_connection(*address)
            writer.write(request)
            assert (await reader.readuntil(b"GET / ")).startswith(b"HTTP/1.1 200 ")
            other_reader, other = await asyncio.open_connection(*address)  # waits in the kernel
            other.write(request)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(other_reader.read(1), 0.3)
            writer.close()
            assert (await other_reader.readuntil(b"GET / ")).startswith(b"HTTP/1.1 200 ")
            other.close()

    run(work)


def test_what_is_being_answered_ends_before_the_server_does() -> None:
    async def work() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            begun.set()
            await go_on.wait()
            await respond(send, 200, b"done")

        async with serving(slow) as (server, address):
            idle_reader, idle = await asyncio.open_connection(*address)
            answer = asyncio.create_task(exchange(address, b"GET / HTTP/1.1\r\n\r\n"))
            await begun.wait()
            stopping = asyncio.create_task(server.stop(patience=PATIENCE))
            assert await idle_reader.read() == b""
            assert not stopping.done()
            go_on.set()
            received = await answer
            await stopping
            assert b"connection: close\r\n" in received
            assert bodies(received) == [b"done"]
            idle.close()

    run(work)


def test_what_does_not_end_is_broken_off() -> None:
    async def work() -> None:
        async with serving(_never) as (server, address):
            answer = asyncio.create_task(exchange(address, b"GET / HTTP/1.1\r\n\r\n"))
            await asyncio.sleep(0.2)
            await server.stop(patience=0.1)
            assert await answer == b""

    run(work)


async def _never(scope: Scope, receive: Receive, send: Send) -> None:
    await body_of(receive)
    assert (await receive())["type"] == "http.disconnect"


# -- files ------------------------------------------------------------------------------------------


def files(
    path: Path, *, size: int, says: int | None = None
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """An application that sends the middle of a file between two texts."""

    async def send_file(scope: Scope, receive: Receive, send: Send) -> None:
        assert "http.response.zerocopysend" in scope["extensions"]
        length = b"%d" % ((size if says is None else says) + 7)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": b"head", "more_body": True})
        with path.open("rb") as file:
            part = {"file": file.fileno(), "offset": 3, "count": size, "more_body": True}
            await send({"type": "http.response.zerocopysend", **part})
        await send({"type": "http.response.body", "body": b"end"})

    return send_file


def test_a_part_of_a_file_to_a_reader_of_any_speed(tmp_path: Path) -> None:
    content = bytes(range(256)) * (32 << 10)
    path = tmp_path / "file"
    path.write_bytes(content)
    size = len(content) - 5

    async def work() -> None:
        async with serving(files(path, size=size)) as (_, address):
            request = b"GET / HTTP/1.1\r\n" + CLOSE + b"\r\n"
            fast = await exchange(address, request)
            slow = await exchange(address, request, pause=0.3)  # the kernel's buffers are full by then
        for received in fast, slow:
            assert received.partition(b"\r\n\r\n")[2] == b"head" + content[3 : 3 + size] + b"end"

    run(work)


def test_a_file_that_is_too_short_breaks_the_connection(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)

    async def work() -> None:
        async with serving(files(path, size=1000)) as (_, address):
            received = await exchange(address, b"GET / HTTP/1.1\r\n\r\n")
            assert received.endswith(b"\r\n\r\nhead" + b"x" * 97)

    run(work)


def test_a_reader_of_a_file_that_leaves(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(32 << 20))

    async def work() -> None:
        async with serving(files(path, size=(32 << 20) - 3)) as (server, address):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await reader.readexactly(1000)
            writer.transport.abort()
            await server.stop(patience=PATIENCE)  # returns once nothing is sent any more

    run(work)


def test_of_many_who_send_before_they_are_read_less_is_kept_each() -> None:
    async def work() -> None:
        may_end = asyncio.Event()

        async def late(_scope: Scope, _receive: Receive, send: Send) -> None:
            await may_end.wait()
            await respond(send, 413)

        async with serving(late) as (server, address):
            waiting = server._waiting
            writers: list[asyncio.StreamWriter] = []
            for _ in range(12):
                _, writer = await asyncio.open_connection(*address)
                writer.write(b"PUT / HTTP/1.1\r\nContent-Length: 8000000\r\n\r\n" + bytes(4_000_000))
                writers.append(writer)
                await until(lambda: waiting.number == len(writers))
            assert waiting.kept < 200 << 10
            may_end.set()
            await until(lambda: waiting.number == 0)
            assert waiting.kept == 512 << 10
            for writer in writers:
                writer.transport.abort()

    run(work)


async def until(happened: Callable[[], bool]) -> None:
    """Wait until ``happened`` returns True."""
    while True:
        await asyncio.sleep(0.01)
        if happened():
            return
