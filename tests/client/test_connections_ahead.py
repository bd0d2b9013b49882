"""Connections that are opened before they are needed, to registries that are far away."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from digestry.client import connections_ahead
from digestry.client.bounded_http import BoundedConnection, ResponseTimeouts
from digestry.client.connections_ahead import round_trip
from digestry.client.http_pool import HttpPool
from digestry.client.trust import Trust
from digestry.client.wait_budget import WaitBudget
from tests import certificates
from tests.certificates import Certificates
from tests.support import PATIENCE, wait_until


class Server:
    """A server that keeps its connections, and counts them. Its answers wait for ``go``."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self.opened = self.requests = 0
        self.go = threading.Event()
        self.go.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.opened += 1
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain:
            sock = self._context.wrap_socket(plain, server_side=True) if self._context else plain
            with sock:
                while sock.recv(65536):
                    self.requests += 1
                    self.go.wait(PATIENCE)
                    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.make(tmp_path_factory.mktemp("ahead") / "pki")


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(scheme: str, pki: Certificates) -> Iterator[Server]:
    opened = Server(pki.context() if scheme == "https" else None)
    yield opened
    opened.go.set()
    opened.close()


@pytest.fixture
def pool(pki: Certificates) -> Iterator[HttpPool]:
    timeouts = ResponseTimeouts(None, PATIENCE, WaitBudget(None, 60))
    opened = HttpPool(
        lambda scheme, host, port, trust, proxy: BoundedConnection(
            scheme, host, port, trust, proxy, timeouts=timeouts
        ),
        Trust([pki.authority]),
        None,
        8,
    )
    yield opened
    opened.close_idle()


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every registry is far away, and a request waits long for a connection that is being opened."""
    monkeypatch.setattr(connections_ahead, "FAR", 0.0)
    monkeypatch.setattr(connections_ahead, "_PATIENCE", 1e6)


def ask(pool: HttpPool, scheme: str, server: Server, path: str = "/") -> bytes:
    response = pool.request(
        "GET",
        f"{scheme}://127.0.0.1:{server.port}{path}",
        headers={},
        body=None,
        connect_timeout=PATIENCE,
        timeout=PATIENCE,
    )
    return response.read1(10)


@pytest.mark.usefixtures("far")
def test_requests_use_what_was_opened_ahead(pool: HttpPool, server: Server, scheme: str) -> None:
    pool.expect((scheme, "127.0.0.1", server.port), 3, PATIENCE)
    assert ask(pool, scheme, server) == b"ok"
    wait_until(lambda: server.opened == 3, what="the connections that were expected")
    assert server.requests == 1
    server.go.clear()
    with ThreadPoolExecutor(3) as threads:
        answers = [threads.submit(ask, pool, scheme, server) for _ in range(3)]
        wait_until(lambda: server.requests == 4, what="requests at the same time")
        server.go.set()
        assert [answer.result() for answer in answers] == [b"ok"] * 3
    assert server.opened == 3


def test_a_registry_that_is_near_gets_no_more_connections_than_requests(
    pool: HttpPool, server: Server, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections_ahead, "FAR", 60.0)
    pool.expect((scheme, "127.0.0.1", server.port), 3, PATIENCE)
    assert ask(pool, scheme, server) == b"ok"
    assert ask(pool, scheme, server) == b"ok"
    assert server.opened == 1


@pytest.mark.usefixtures("far")
def test_what_is_expected_later_is_opened_beside_what_is_there(
    pool: HttpPool, server: Server, scheme: str
) -> None:
    origin = (scheme, "127.0.0.1", server.port)
    pool.expect(origin, 1, PATIENCE)
    ask(pool, scheme, server)
    assert server.opened == 1
    pool.expect(origin, 3, PATIENCE)
    wait_until(lambda: server.opened == 3, what="two more connections")


@pytest.mark.usefixtures("far")
def test_connections_that_cannot_be_opened_harm_no_request(
    pool: HttpPool, server: Server, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(connection: BoundedConnection) -> None:
        if threading.current_thread().name == "digestry-connect":
            raise ConnectionRefusedError
        opens(connection)

    opens = BoundedConnection.open
    monkeypatch.setattr(BoundedConnection, "open", refuse)
    pool.expect((scheme, "127.0.0.1", server.port), 3, PATIENCE)
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(lambda _: ask(pool, scheme, server), range(3))) == [b"ok"] * 3


@pytest.mark.usefixtures("far")
def test_one_that_the_registry_closed_meanwhile_is_not_used(
    pool: HttpPool, scheme: str, pki: Certificates
) -> None:
    class Short(Server):
        def _serve(self, plain: socket.socket) -> None:
            if self.opened == 1:
                super()._serve(plain)
            elif self._context is None:
                plain.close()
            else:
                with contextlib.suppress(OSError):
                    self._context.wrap_socket(plain, server_side=True).close()

    server = Short(pki.context() if scheme == "https" else None)
    try:
        pool.expect((scheme, "127.0.0.1", server.port), 2, PATIENCE)
        ask(pool, scheme, server)
        wait_until(lambda: server.opened == 2, what="the connection that is closed")
        assert ask(pool, scheme, server) == b"ok"
    finally:
        server.close()


def test_a_round_trip_is_what_the_kernel_says() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as sock:
            measured = round_trip(sock)
        assert measured is None or 0 <= measured < 1
    with socket.socket(socket.AF_UNIX) as other:
        assert round_trip(other) is None


@pytest.mark.usefixtures("far")
def test_closing_the_pool_closes_what_is_opened_after(
    pool: HttpPool, server: Server, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, closed = threading.Event(), threading.Event()
    opens, closes = BoundedConnection.open, BoundedConnection.close

    def wait(connection: BoundedConnection) -> None:
        ahead = threading.current_thread().name == "digestry-connect"
        if ahead:
            gate.wait(PATIENCE)
        opens(connection)

    def note(connection: BoundedConnection) -> None:
        closes(connection)
        if threading.current_thread().name == "digestry-connect":
            closed.set()

    monkeypatch.setattr(BoundedConnection, "open", wait)
    monkeypatch.setattr(BoundedConnection, "close", note)
    pool.expect((scheme, "127.0.0.1", server.port), 2, PATIENCE)
    ask(pool, scheme, server)
    pool.close_idle()
    gate.set()
    assert closed.wait(PATIENCE)
