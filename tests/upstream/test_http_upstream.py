"""How another registry is asked: once, at the address that was given, and with its own password alone."""

from __future__ import annotations

import base64
import contextlib
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.errors import ProtocolViolation, Refused, RemoteNotFound, Unreachable
from digestry.model.digest import Digest
from digestry.upstream.http_upstream import ClientUpstream, UpstreamOptions
from tests.client.liar import Liar, Reply, Request, lying
from tests.support import PATIENCE, free_port

CONTENT = b"0123456789" * 1000
LIMIT = 4 << 20
DIGEST = Digest.of(CONTENT)


def asking(liar: Liar, host: str = "docker.io", **options: object) -> ClientUpstream:
    return ClientUpstream(UpstreamOptions(host, f"http://{liar.host}", timeout=PATIENCE, **options))  # type: ignore[arg-type]


def test_docker_io_is_asked_where_it_is_said_to_be() -> None:
    with lying() as liar:
        with pytest.raises(RemoteNotFound):
            asking(liar).resolve("library/alpine", "latest", LIMIT)
        assert liar.paths()[0] == "HEAD /v2/library/alpine/manifests/latest"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_nothing_is_asked_twice(status: int) -> None:
    with lying(lambda _: Reply(status, b"{}", {"Retry-After": "30"})) as liar:
        with pytest.raises(Refused) as refused:
            asking(liar).manifest("a", "1", LIMIT)
        assert refused.value.status == status
        assert len(liar.seen) == 1


def test_a_connection_that_was_given_up_while_it_was_idle_is_not_an_outage() -> None:
    answered: list[str] = []

    def leaving(request: Request) -> Reply:
        """Answers the first two, then ends each connection that has been used before."""
        if len(answered) == 2:
            answered.clear()
            raise ConnectionAbortedError
        answered.append(request.path)
        return Reply(200, CONTENT, {"Docker-Content-Digest": str(DIGEST)})

    with lying(leaving) as liar:
        upstream = asking(liar)
        for _ in range(7):
            assert upstream.blob_size("a", DIGEST) == len(CONTENT)
        upstream.close()
    with lying(leaving) as liar:
        upstream = asking(liar)
        for _ in range(7):
            with upstream.blob("a", DIGEST, 0) as stream:
                assert len(stream.read(len(CONTENT))) > 0
        upstream.close()


def test_who_ends_every_connection_is_away() -> None:
    def leave(_: Request) -> Reply:
        raise ConnectionAbortedError

    with lying(leave) as liar:
        with pytest.raises(Unreachable, match="broke"):
            asking(liar).resolve("a", "1", LIMIT)
        assert len(liar.seen) == 2


@contextlib.contextmanager
def trickling(head: bytes, drop: bytes) -> Iterator[str]:
    """A server that answers with ``head`` and then goes on forever, a ``drop`` at a time; its address."""

    class Trickle(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self.request.sendall(head)
                while not stop.wait(0.05):
                    self.request.sendall(drop)

    stop = threading.Event()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Trickle) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            stop.set()
            server.shutdown()
            thread.join()


HEAD = b"HTTP/1.1 %d X\r\nContent-Length: 60000\r\n"


@pytest.mark.long
@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (HEAD % 200, b"X-More: x\r\n"),
        (HEAD % 200, b"x"),
        (HEAD % 200 + b"\r\n", b"x"),
        (HEAD % 404 + b"\r\n", b"x"),
        (b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"X-More: x\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    ],
    ids=["lines", "a line", "a body", "an error", "chunks", "trailers", "continue", "hints"],
)
def test_an_answer_that_trickles_in_is_none(head: bytes, drop: bytes) -> None:
    with trickling(head, drop) as url:
        upstream = ClientUpstream(UpstreamOptions("a.test", url, timeout=60, patience=0.4))
        # Of an error nobody waits for the words.
        with pytest.raises((Unreachable, RemoteNotFound), match=r"in time|404"):
            upstream.manifest("a", "1", LIMIT)
        upstream.close()


@pytest.mark.long
def test_a_blob_may_take_its_time() -> None:
    with trickling(HEAD % 200 + b"\r\n", b"x" * 2000) as url:
        options = UpstreamOptions("a.test", url, timeout=60, patience=0.5, least_rate=4000)
        upstream = ClientUpstream(options)
        with upstream.blob("a", DIGEST, 0) as stream:
            came = 0
            while came < 40_000:  # that takes twice as long
                came += len(stream.read(2000))
        upstream.close()


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (HEAD % 200 + b"\r\n", b"x"),
        (b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x" * 100),
        (b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"X-More: x\r\n"),
        (b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"X: y\r\n" * 5000),
    ],
    ids=["a body", "chunks", "a chunk's line", "trailers", "many trailers"],
)
def test_a_blob_that_comes_too_slowly_ends(head: bytes, drop: bytes) -> None:
    with trickling(head, drop) as url:
        options = UpstreamOptions("a.test", url, timeout=60, patience=0.4, least_rate=4000)
        upstream = ClientUpstream(options)
        began = time.monotonic()
        with pytest.raises(Unreachable), upstream.blob("a", DIGEST, 0) as stream:
            list(iter(lambda: stream.read(2000), b""))
        assert time.monotonic() - began < 10
        upstream.close()


def test_credentials_go_to_the_token_server_and_not_to_a_storage(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")

    def store(_: Request) -> Reply:
        return Reply(200, CONTENT)

    with lying(store) as storage:

        def registry(request: Request) -> Reply:
            if request.path == "/token":
                return Reply(200, json.dumps({"token": "abc"}).encode())
            if request.headers.get("Authorization") != "Bearer abc":
                realm = f'Bearer realm="http://{liar.host}/token",service="it"'
                return Reply(401, b"{}", {"WWW-Authenticate": realm})
            return Reply(307, b"", {"Location": f"http://{storage.host}/elsewhere?signed=yes"})

        with lying(registry) as liar:
            upstream = asking(liar, username="me", password_file=tmp_path / "password")
            with upstream.blob("a", DIGEST, 0) as stream:
                assert stream.size == len(CONTENT)
                assert b"".join(iter(lambda: stream.read(1 << 20), b"")) == CONTENT
            upstream.close()
        asked = next(request for request in liar.seen if request.path == "/token")
        expected = "Basic " + base64.b64encode(b"me:s3cret").decode()
        assert asked.headers["Authorization"] == expected
        assert asked.query["scope"] == ["repository:library/a:pull"]
        assert [request.headers.get("Authorization") for request in storage.seen] == [None]


def test_parts_of_a_blob() -> None:
    said = {"Content-Range": f"bytes 100-{len(CONTENT) - 1}/{len(CONTENT)}"}
    with lying(lambda _: Reply(206, CONTENT[100:], said)) as liar:
        with asking(liar).blob("a", DIGEST, 100) as stream:
            assert (stream.start, stream.size) == (100, len(CONTENT))
        assert liar.seen[0].headers["Range"] == "bytes=100-"
        with pytest.raises(ProtocolViolation):
            asking(liar).blob("a", DIGEST, 50)
    with lying(lambda _: Reply(200, CONTENT)) as liar, asking(liar).blob("a", DIGEST, 100) as stream:
        assert (stream.start, stream.size) == (0, len(CONTENT))


def test_nobody_is_there() -> None:
    upstream = ClientUpstream(UpstreamOptions("a.test", f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(Unreachable):
        upstream.blob_size("a", DIGEST)
