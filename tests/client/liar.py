"""A registry that answers whatever a test tells it to, true or not, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Request:
    """What the client asked."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)


@dataclass
class Reply:
    """What it is told. ``length`` lies about the body's size; ``endless`` never ends it;
    ``cut`` breaks the connection after the body; its second half comes when ``gate`` is set. With
    ``hangs_up`` there is no answer at all, and with ``drip`` the body comes a byte at a time, with so many
    seconds between two."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    endless: bool = False
    cut: bool = False
    chunked: bool = False
    gate: threading.Event | None = None
    hangs_up: bool = False
    drip: float = 0.0


Answering = Callable[[Request], Reply]


@dataclass
class Liar:
    """``answer`` decides; ``seen`` has every request but the ``GET /v2/`` that looks for TLS."""

    host: str
    answer: Answering
    seen: list[Request] = field(default_factory=list)

    def paths(self) -> list[str]:
        return [f"{request.method} {request.target}" for request in self.seen]


def not_found(_: Request) -> Reply:
    return Reply(404, b'{"errors":[{"code":"NAME_UNKNOWN","message":"no such repository"}]}')


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else an answer in two pieces waits for an acknowledgement
    liar: Liar

    def log_message(self, *_: Any) -> None:
        pass

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        request = Request(self.command, self.path, dict(self.headers.items()), self.rfile.read(length))
        if request.target == "/v2/":
            reply = Reply()
        else:
            self.liar.seen.append(request)
            reply = self.liar.answer(request)
        with contextlib.suppress(OSError):
            self._send(request, reply)

    def _send(self, request: Request, reply: Reply) -> None:
        if reply.hangs_up:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        names = {name.lower() for name in reply.headers}
        if reply.endless or reply.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif "content-length" not in names:
            self.send_header("Content-Length", str(len(reply.body) if reply.length is None else reply.length))
        self.end_headers()
        if request.method == "HEAD":
            return
        if reply.drip:
            for place in range(len(reply.body)):
                self.wfile.write(reply.body[place : place + 1])
                time.sleep(reply.drip)
        elif reply.endless:
            while True:
                self._chunk(b"x" * 65536)
        elif reply.chunked:
            self._chunk(reply.body)
            if not reply.cut:
                self.wfile.write(b"0\r\n\r\n")
        else:
            half = len(reply.body) // 2 if reply.gate is not None else len(reply.body)
            self.wfile.write(reply.body[:half])
            if reply.gate is not None and reply.gate.wait(60):
                self.wfile.write(reply.body[half:])
        if reply.cut or (reply.length is not None and reply.length != len(reply.body)):
            self.close_connection = True

    def _chunk(self, content: bytes) -> None:
        if content:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # of a few, the kernel drops what comes while other tests have the processor

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is what many tests want."""


@contextlib.contextmanager
def lying(
    answer: Answering = not_found, tls: ssl.SSLContext | None = None, *, address: str = "127.0.0.1"
) -> Iterator[Liar]:
    """A server on a port of its own, for the block; with ``tls`` it speaks nothing else."""
    handler = type("Handler", (_Handler,), {})
    server = _Server((address, 0), handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    liar = Liar(f"{address}:{server.server_address[1]}", answer)
    handler.liar = liar  # type: ignore[attr-defined]
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield liar
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
