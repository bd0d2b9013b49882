"""What asks for nothing ends, whatever it sent of a request; too many end; who asks does not."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.registry.connections.config import ConnectionLimits
from digestry.registry.connections.guard import ADDRESS, CROWDED, ConnectionGuard
from digestry.registry.connections.table import Connections
from digestry.registry.proxies import share_of
from tests.registry.access.test_tls import certificate
from tests.registry.connections.support import connect, ended, is_open, memory, server_with, still_open
from tests.registry.support import still_answers
from tests.support import PATIENCE, RegistryServer

LIMITS = "[limits]\nheader-seconds = 1\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
UNFINISHED = {
    "silent": b"",
    "a letter": b"G",
    "a line": b"GET /v2/ HTTP/1.1\r\n",
    "half a head": b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-A: aaa",
    "half a preface": PREFACE[:10],
    "half a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A server that waits a second for a request."""
    with server_with(tmp_path_factory.mktemp("impatient"), LIMITS) as server:
        yield server


@pytest.mark.long
@pytest.mark.parametrize("content", UNFINISHED.values(), ids=UNFINISHED)
def test_what_never_asks_is_ended(impatient: RegistryServer, content: bytes) -> None:
    connections = [connect(impatient, content) for _ in range(20)]
    assert still_open(connections) == 0


@pytest.mark.long
def test_what_asked_once_is_ended_later(impatient: RegistryServer) -> None:
    connection = connect(impatient, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    time.sleep(0.3)
    connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    assert still_open([connection]) == 0


@pytest.mark.long
@pytest.mark.parametrize("content", [PREFACE, PREFACE[:10], b""], ids=["preface", "half", "silent"])
def test_http2_that_asks_for_nothing_is_ended(tmp_path: Path, content: bytes) -> None:
    with server_with(tmp_path, f"http2 = true\n{LIMITS}") as server:
        assert still_open([connect(server, content)]) == 0
        assert server.request("GET", "/livez").status == 200


def test_http2_is_not_spoken_unless_asked_for(impatient: RegistryServer) -> None:
    with connect(impatient, PREFACE) as connection:
        assert connection.recv(4096)[:5] in {b"HTTP/", b""}


@pytest.mark.long
def test_half_a_tls_handshake_is_ended(tmp_path: Path) -> None:
    public, key = certificate(tmp_path, "server")
    text = f'[tls]\ncertificate = "{public}"\nkey = "{key}"\n{LIMITS}'
    with server_with(tmp_path, text) as server:
        assert still_open([connect(server, UNFINISHED["half a TLS hello"]) for _ in range(20)]) == 0
        assert still_open([connect(server) for _ in range(20)]) == 0


@pytest.mark.long
def test_a_long_head_that_does_not_end_is_not_kept(impatient: RegistryServer) -> None:
    head = b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX-A: "
    held: list[int] = []
    most = 200 * (128 << 10)
    # What the first ones took for a moment is used again, not taken anew. How many are there in one moment
    # depends on the machine: kept heads would make each round take more than the one before, by far.
    while len(held) < 2 or held[-1] - held[-2] >= most:
        assert len(held) < 8, held
        connections = [connect(impatient, head + b"a" * 400_000) for _ in range(100)]
        connections += [connect(impatient, head + b"a" * 2_000_000) for _ in range(100)]
        assert still_open(connections) == 0
        held.append(memory(impatient))
    whole = head + b"a" * 30_000 + b"\r\n\r\n"
    assert connect(impatient, whole).recv(4096).startswith(b"HTTP/1.1 200")


@pytest.mark.long
def test_a_request_is_no_idle_connection(impatient: RegistryServer) -> None:
    """A body that comes slowly, but fast enough, may take longer than any head."""
    with connect(impatient) as connection:
        content = os.urandom(4096)
        head = "POST /v2/slow/x/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        connection.sendall(head.encode())
        place = connection.recv(4096).decode().lower().partition("location: ")[2].split()[0]
        connection.sendall(
            f"PATCH {place} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4096\r\n\r\n".encode()
        )
        for start in range(0, len(content), 1024):
            time.sleep(0.6)
            connection.sendall(content[start : start + 1024])
        assert connection.recv(4096).startswith(b"HTTP/1.1 202")


@pytest.mark.long
def test_who_asks_is_answered_beside_many_that_do_not(tmp_path: Path) -> None:
    with server_with(tmp_path, "[limits]\nconnections = 200\n") as server:
        waiting: list[socket.socket] = []
        for number in range(1000):
            waiting.append(connect(server, (b"", b"GET /", b"\x16\x03\x01\x02")[number % 3]))
            if number % 100 == 0:
                still_answers(server)
        still_answers(server)
        time.sleep(1)
        assert sum(is_open(one) for one in waiting) <= 200
        assert ended(server)[CROWDED] >= 300  # the server itself ended what began as TLS
        still_answers(server)


@pytest.mark.long
def test_a_transfer_goes_on_beside_many_that_do_nothing(tmp_path: Path) -> None:
    with server_with(tmp_path, "[limits]\nconnections = 64\n") as server:
        content = os.urandom(2 << 20)
        digest = server.push_blob("busy/x", content)
        read = connect(server, f"GET /v2/busy/x/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        stop = threading.Event()

        def crowd() -> None:
            held: list[socket.socket] = []
            while not stop.is_set():
                held.append(connect(server))
                time.sleep(0.002)

        thread = threading.Thread(target=crowd)
        thread.start()
        try:
            received = 0
            while received < len(content):
                part = read.recv(64 << 10)
                assert part, "it was broken off"
                received += len(part)
                time.sleep(0.05)
        finally:
            stop.set()
            thread.join()


Ends = tuple[list[socket.socket], list[socket.socket]]


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


@contextlib.contextmanager
def accepted(listening: socket.socket, count: int) -> Iterator[Ends]:
    """``count`` connections of clients, and the server's ends of them."""
    with contextlib.ExitStack() as opened:
        clients, servers = [], []
        for _ in range(count):
            clients.append(opened.enter_context(socket.create_connection(listening.getsockname(), PATIENCE)))
            servers.append(opened.enter_context(listening.accept()[0]))
        yield clients, servers


def test_an_address_has_so_many_and_no_more(listening: socket.socket) -> None:
    table = Connections()
    table.guarded = True
    guard = ConnectionGuard(ConnectionLimits(per_address=10), table, listening.getsockname())
    with accepted(listening, 30) as (clients, _):
        busy = [table.enter(tuple(map(str, client.getsockname()))) for client in clients[-5:]]  # type: ignore[arg-type]
        guard.check_all()
        assert [is_open(client) for client in clients[-5:]] == [True] * 5
        assert sum(is_open(client) for client in clients) == 10
        assert guard.ended[ADDRESS] == 20
        for connection in busy:
            table.leave(connection, time.perf_counter())


def test_this_machine_and_proxies_have_as_many_as_they_like(listening: socket.socket) -> None:
    guard = ConnectionGuard(
        ConnectionLimits(per_address=10),
        Connections(),
        listening.getsockname(),
        exempt=bool,
    )
    with accepted(listening, 30) as (clients, _):
        guard.check_all()
        assert all(is_open(client) for client in clients)


def test_while_the_event_loop_is_behind_nobody_is_taken_for_idle(listening: socket.socket) -> None:
    table = Connections()
    guard = ConnectionGuard(ConnectionLimits(total=16), table, listening.getsockname())
    table.turn = time.perf_counter() - 1
    with accepted(listening, 20):
        guard.check_all()
        guard.check_all()
        assert not guard.ended, "they came after its last turn, and may have asked"
        table.turn = time.perf_counter()
        guard.check_all()
        assert guard.ended["too-many"] == 8


def test_other_sockets_of_the_process_are_let_alone(listening: socket.socket) -> None:
    """Those to other registries, to receivers of webhooks, and what listens."""
    guard = ConnectionGuard(
        ConnectionLimits(total=16, per_address=1, header_seconds=0), Connections(), ("127.0.0.1", 1)
    )
    with accepted(listening, 30) as (clients, servers):
        guard.check_all()
        time.sleep(0.01)
        guard.check_all()
        assert all(is_open(one) for one in (*clients, *servers))
        assert guard.open == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
    ],
)
def test_whom_an_address_is_counted_as(one: str, other: str, *, same: bool) -> None:
    assert (share_of(one) == share_of(other)) == same


def test_short_connections_leave_nothing_behind(impatient: RegistryServer) -> None:
    """The table of connections does not grow with those that came and went."""
    for _ in range(50):
        still_answers(impatient)
    first = memory(impatient)
    for _ in range(500):
        still_answers(impatient)
    assert memory(impatient) - first < 8 << 20
