"""The balancer itself lets pass what clients and servers send, and holds nothing back."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest

from tests.cluster.balancer import tcp_proxy
from tests.support import PATIENCE

_LARGE = 64_000_000  # more than the buffers between a client and a server take


class _Server(http.server.BaseHTTPRequestHandler):
    """Answers a GET with the request's ``Connection``, and refuses a PUT without reading its body."""

    protocol_version = "HTTP/1.1"
    done: threading.Event

    def do_GET(self) -> None:
        self._answer(200, str(self.headers.get("connection")).encode())

    def do_PUT(self) -> None:
        time.sleep(0.2)  # until all buffers are full
        self._answer(413, b"too large")
        self.done.wait(PATIENCE)
        self.close_connection = True

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def target() -> Iterator[tuple[str, int]]:
    done = threading.Event()
    handler = type("Handler", (_Server,), {"done": done})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield "127.0.0.1", server.server_port
    done.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("one_request", [False, True])
def test_a_client_that_tries_tls_first_hears_at_once_that_there_is_none(
    *, one_request: bool, target: tuple[str, int]
) -> None:
    """Go's clients wait ten seconds for the answer to their greeting, in each command."""
    with tcp_proxy(target, one_request=one_request) as balancer:
        for _ in range(20):  # a greeting has random bytes, which may look like the end of a line
            with (
                socket.create_connection(("127.0.0.1", balancer.port), timeout=PATIENCE) as plain,
                pytest.raises(ssl.SSLError, match=r"WRONG_VERSION_NUMBER|RECORD_LAYER|record layer"),
            ):
                ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")


@pytest.mark.parametrize(("one_request", "said"), [(False, b"None"), (True, b"close")])
def test_one_request_a_connection_is_asked_for(
    *, one_request: bool, said: bytes, target: tuple[str, int]
) -> None:
    with tcp_proxy(target, one_request=one_request) as balancer:
        connection = http.client.HTTPConnection("127.0.0.1", balancer.port, timeout=PATIENCE)
        connection.request("GET", "/")
        assert connection.getresponse().read() == said
        connection.close()


def test_an_answer_comes_while_the_server_takes_no_more_of_the_body(target: tuple[str, int]) -> None:
    with tcp_proxy(target, one_request=True) as balancer:
        connection = socket.create_connection(("127.0.0.1", balancer.port), timeout=PATIENCE)
        sender = threading.Thread(target=_send_a_large_body, args=(connection,), daemon=True)
        with connection:
            sender.start()
            assert connection.recv(12) == b"HTTP/1.1 413"
            connection.shutdown(socket.SHUT_RDWR)
            sender.join()


def _send_a_large_body(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % _LARGE)
        connection.sendall(bytes(_LARGE))
