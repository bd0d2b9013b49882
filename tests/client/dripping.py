"""A registry that answers ``GET /v2/`` and then keeps whoever asks waiting, in one of many ways."""

from __future__ import annotations

import contextlib
import itertools
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

PAUSE = 0.02
_PING = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n"


@dataclass
class Drip:
    """One request's answer in pieces, each ``pause`` seconds after the other."""

    pieces: Callable[[bytes], Iterator[bytes]]
    pause: float = PAUSE


def forever(head: bytes, piece: bytes) -> Callable[[bytes], Iterator[bytes]]:
    """``head``, and ``piece`` again and again."""
    return lambda _: itertools.chain([head], itertools.repeat(piece))


def bytewise(content: bytes) -> Callable[[bytes], Iterator[bytes]]:
    """``content``, a byte at a time."""
    return lambda _: (content[at : at + 1] for at in range(len(content)))


def _pages(entries: bytes) -> Callable[[bytes], Iterator[bytes]]:
    numbers = itertools.count(1)

    def page(request: bytes) -> Iterator[bytes]:
        body = b'{"tags":[' + entries + b"]}"
        path = request.split(b" ")[1].partition(b"?")[0]
        yield (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLink: <%s?last=%d>; rel=next\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (path, next(numbers), len(body), body)
        )

    return page


def _redirects(request: bytes) -> Iterator[bytes]:
    path = request.split(b" ")[1]
    yield b"HTTP/1.1 307 X\r\nLocation: %s0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % path


CHUNKED = _JSON + b"Transfer-Encoding: chunked\r\n\r\n"
SLOW: dict[str, Drip] = {
    "nothing": Drip(forever(b"", b"")),
    "a head a byte at a time": Drip(bytewise(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000)),
    "header fields without end": Drip(forever(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n")),
    "100 Continue": Drip(forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), 0.2),
    "102 Processing": Drip(forever(b"", b"HTTP/1.1 102 Processing\r\n\r\n"), 0.2),
    "103 Early Hints with fields": Drip(forever(b"HTTP/1.1 103 Early Hints\r\n", b"Link: <x>\r\n")),
    "a body a byte at a time": Drip(forever(_JSON + b"Content-Length: 9999999\r\n\r\n", b" ")),
    "a body without a length": Drip(forever(_JSON + b"Connection: close\r\n\r\n", b" ")),
    "chunks of a byte": Drip(forever(CHUNKED, b"1\r\n \r\n")),
    "the line of a chunk": Drip(forever(CHUNKED, b"0")),
    "an extension of a chunk": Drip(forever(CHUNKED + b"1;", b"x")),
    "trailers": Drip(forever(CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: y\r\n")),
    "one trailer": Drip(forever(CHUNKED + b"2\r\n{}\r\n0\r\nX: ", b"y")),
    "an error a byte at a time": Drip(forever(b"HTTP/1.1 404 X\r\nContent-Length: 9999\r\n\r\n", b" ")),
}
"""Ways to be slow, each without an end."""
FAST: dict[str, Drip] = {
    "100 Continue": Drip(forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50), 0),
    "header fields": Drip(forever(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 500), 0),
    "a header field": Drip(forever(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 8192), 0),
    "interim header fields": Drip(forever(b"HTTP/1.1 103 Early Hints\r\n", b"Link: <x>\r\n" * 500), 0),
    "trailers": Drip(forever(CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: y\r\n" * 500), 0),
    "chunks with long extensions": Drip(forever(CHUNKED, b"1;" + b"x" * 60_000 + b"\r\n \r\n"), 0),
    "switching protocols": Drip(forever(b"HTTP/1.1 101 X\r\n\r\n", b"y" * 8192), 0),
    "redirects": Drip(_redirects, 0),
}
"""Ways to send without an end, fast."""


def empty_pages() -> Drip:
    """Pages of a list that have nothing, and each a next one."""
    return Drip(_pages(b""), 0)


def slow_pages() -> Drip:
    """Pages of one entry, each in 0.1 s."""
    return Drip(_pages(b'"a"'), 0.1)


@dataclass
class Dripping:
    """The host, and the requests but those of ``/v2/``."""

    host: str
    seen: list[bytes] = field(default_factory=list)


@contextlib.contextmanager
def dripping(drip: Drip) -> Iterator[Dripping]:
    """A server that answers so, for the block."""
    ended = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                request = self.rfile.readline()
                while self.rfile.readline().strip():
                    pass
                if b" /v2/ " in request:
                    self.wfile.write(_PING)
                    return
                server.seen.append(request)
                for piece in drip.pieces(request):
                    if ended.wait(drip.pause):
                        return
                    self.wfile.write(piece)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    listener = Server(("127.0.0.1", 0), Handler)
    server = Dripping(f"127.0.0.1:{listener.server_address[1]}")
    thread = threading.Thread(target=lambda: listener.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        ended.set()
        listener.shutdown()
        listener.server_close()
        thread.join()


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """The host of a server that takes connections, reads nothing and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
