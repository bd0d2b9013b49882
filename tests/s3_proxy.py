"""A proxy before an S3 server, which injects what such servers and networks do."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

SLOW_DOWN: Final = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
INTERNAL: Final = (
    b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
)


@dataclass
class Fault:
    """What happens to the next ``times`` requests that ``match``.

    ``forward`` tells whether the server gets them; ``answer`` is sent instead of its own, after ``delay``
    seconds, or the connection is cut if ``cut``. With ``pass_on`` the server's answer is sent after all.
    ``body`` changes what the server gets.
    """

    match: Callable[[str, str], bool]
    times: int = 1
    forward: bool = False
    status: int = 503
    answer: bytes = SLOW_DOWN
    cut: bool = False
    delay: float = 0.0
    body: Callable[[bytes], bytes] | None = None
    pass_on: bool = False


@dataclass
class S3Proxy:
    """A proxy that runs. ``requests`` are the methods and the paths of all that came."""

    endpoint: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def fail(self, method: str, text: str = "", **fault: Any) -> Fault:
        """Injects a fault into requests with that method and with ``text`` in their path or query."""
        made = Fault(lambda got, path: got == method and text in path, **fault)
        self.faults.append(made)
        return made

    def count(self, method: str, text: str = "") -> int:
        """How many requests had that method and that text."""
        return sum(got == method and text in path for got, path in self.requests)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: S3Proxy
    target: str

    def handle_one_request(self) -> None:
        with contextlib.suppress(OSError):
            super().handle_one_request()
            return
        self.close_connection = True

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        self.proxy.requests.append((self.command, self.path))
        fault = next(
            (one for one in self.proxy.faults if one.times > 0 and one.match(self.command, self.path)), None
        )
        if fault is not None:
            fault.times -= 1
            time.sleep(fault.delay)
            if fault.body is not None:
                body = fault.body(body)
        if fault is None or fault.pass_on:
            self._answer(*self._forward(body))
            return
        if fault.forward:
            self._forward(body)
        if fault.cut:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._answer(fault.status, [("Content-Type", "application/xml")], fault.answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any  # noqa: N815 - as the base class calls them

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.target, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            length = response.getheader("content-length") if self.command == "HEAD" else None
            content = response.read()
            headers = [
                (name, value)
                for name, value in response.getheaders()
                if name.lower() not in {"content-length", "connection", "transfer-encoding"}
            ]
            if length is not None:
                headers.append(("Content-Length", length))
            return response.status, headers, content
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def running_proxy(target: str) -> Iterator[S3Proxy]:
    """A proxy before the server at the URL ``target``."""
    handler = type("Handler", (_Handler,), {"target": urlsplit(target).netloc})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    proxy = handler.proxy = S3Proxy(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
