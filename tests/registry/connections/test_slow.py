"""Bodies that drip, and answers that nobody takes: they are given up, and hold little until then."""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry.connections.support import connect, ended, held, memory, server_with, still_open
from tests.registry.support import Upload
from tests.stores import needs_disk
from tests.support import RegistryServer, wait_until

LIMITS = "[limits]\nbody-seconds = 2\n"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A server that gives bodies and answers two seconds for two kilobytes."""
    with server_with(tmp_path_factory.mktemp("strict"), LIMITS) as server:
        yield server


def drip(connection: socket.socket, piece: bytes, every: float = 0.2) -> float:
    """Sends a piece again and again until the server ends the connection; how long that took."""
    began = time.monotonic()
    while still_open([connection], within=0):
        try:
            connection.sendall(piece)
        except OSError:
            break
        assert time.monotonic() - began < 60, "it goes on and on"
        time.sleep(every)
    return time.monotonic() - began


@pytest.mark.long
@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Content-Length: 100000"])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_an_upload_that_drips_lets_the_upload_go(strict: RegistryServer, method: str, framing: str) -> None:
    upload = Upload.begin(strict, "slow/drip")
    query = f"?digest=sha256:{'0' * 64}" if method == "PUT" else ""
    head = f"{method} {upload.path}{query} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n"
    connection = connect(strict, head.encode())
    drip(connection, b"1\r\na\r\n" if "chunked" in framing else b"a")
    assert upload.patch(b"x").status == 202


@pytest.mark.long
@pytest.mark.parametrize(
    "path", ["/v2/slow/drip/manifests/t", "/v2/slow/drip/blobs/uploads/?digest=sha256:" + "0" * 64]
)
def test_other_bodies_that_drip_are_given_up(strict: RegistryServer, path: str) -> None:
    method = "PUT" if "manifests" in path else "POST"
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n"
    assert drip(connect(strict, head.encode()), b"{") < 30


@pytest.mark.long
def test_a_body_that_is_fast_enough_is_taken_however_long_it_takes(strict: RegistryServer) -> None:
    upload = Upload.begin(strict, "slow/steady")
    with connect(strict) as connection:
        head = f"PATCH {upload.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\n\r\n"
        connection.sendall(head.encode())
        for _ in range(20):
            connection.sendall(b"x" * 1000)
            time.sleep(0.25)
        assert connection.recv(4096).startswith(b"HTTP/1.1 202")


def open_blobs(server: RegistryServer) -> int:
    """How many blobs' files the server's processes have open."""
    found = 0
    for process in server.processes():
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            try:
                found += "/blobs/" in str(descriptor.readlink())
            except OSError:
                continue
    return found


@pytest.mark.long
@pytest.mark.parametrize("size", [60 << 10, 300 << 10, 32 << 20], ids=["whole", "parts", "large"])
def test_who_never_reads_is_cut_off(strict: RegistryServer, size: int) -> None:
    digest = strict.push_blob("slow/read", os.urandom(size))
    head = f"GET /v2/slow/read/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    before, sockets, already = memory(strict), held(strict), ended(strict).get("stalled", 0)
    readers = [connect(strict, head * (1 if size > 1 << 20 else 40), buffer=4096) for _ in range(50)]
    time.sleep(1)
    assert (memory(strict) - before) / len(readers) < 1 << 20
    wait_until(lambda: open_blobs(strict) == 0, what="the end of the readers")
    wait_until(lambda: held(strict) <= sockets, what="the end of their connections")
    wait_until(lambda: ended(strict)["stalled"] == already + 50, what="the count of their connections")
    assert "Traceback" not in strict.log.read_text()


@pytest.mark.long
def test_who_is_slow_in_either_direction_is_counted_once(strict: RegistryServer) -> None:
    """Whether the guard closes the connection, or the server whose answer ends."""
    digest = strict.push_blob("slow/both", os.urandom(16 << 20))
    upload = Upload.begin(strict, "slow/both")
    before = ended(strict)
    for _ in range(3):
        connect(
            strict,
            f"GET /v2/slow/both/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
            buffer=4096,
        )
    connect(strict, f"PATCH {upload.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\na".encode())
    for reason, count in (("stalled", 3), ("slow-body", 1)):
        wanted = before.get(reason, 0) + count
        wait_until(lambda r=reason, n=wanted: ended(strict)[r] >= n, what=f"the end of all that are {reason}")
        assert ended(strict)[reason] == wanted


def unsent(server: RegistryServer, readers: list[socket.socket]) -> list[int]:
    """Bytes that the kernel keeps of the server's for each of these clients: proc(5), tx_queue."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        if int(local.partition(":")[2], 16) == server.port:
            found[int(remote.partition(":")[2], 16)] = int(queues.partition(":")[0], 16)
    return [found.get(reader.getsockname()[1], 0) for reader in readers]


@pytest.mark.long
def test_of_many_that_never_read_each_is_sent_little_and_one_that_reads_gets_all(tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 8
    with server_with(tmp_path, "") as server:
        digest = server.push_blob("slow/many", content)
        head = f"GET /v2/slow/many/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\n"
        readers = [connect(server, f"{head}\r\n".encode(), buffer=4096) for _ in range(400)]
        needs_disk(server.root)  # whose open files are counted
        wait_until(lambda: open_blobs(server) == len(readers), what="the beginning of all answers")
        time.sleep(2)  # in which megabytes could be sent to each
        assert statistics.median(unsent(server, readers)) < 128 << 10
        with connect(server, f"{head}Connection: close\r\n\r\n".encode()) as connection:
            received = b"".join(iter(lambda: connection.recv(1 << 20), b""))
        assert received.endswith(content)
        late = readers[-1]
        received = b""
        while not received.endswith(content[-64:]) or len(received) < len(content):
            part = late.recv(1 << 20)
            assert part, "it was ended, and there was room for it"
            received += part


@pytest.mark.long
def test_who_reads_slowly_but_fast_enough_gets_all(strict: RegistryServer) -> None:
    content = os.urandom(300_000)
    digest = strict.push_blob("slow/steady", content)
    head = f"GET /v2/slow/steady/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with connect(strict, head.encode(), buffer=4096) as connection:
        received = b""
        while part := connection.recv(5000):
            received += part
            time.sleep(0.1)
        assert received.endswith(content)


@pytest.mark.long
def test_requests_without_an_end_and_without_a_reader_are_cut_off(strict: RegistryServer) -> None:
    """Pipelined ones, whose answers fill what there is for them."""
    sockets = held(strict)
    connection = connect(strict, buffer=4096)
    connection.settimeout(1)
    try:
        while True:
            connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
    except OSError:
        pass
    wait_until(lambda: held(strict) <= sockets, what="the end of the connection")
    assert strict.request("GET", "/livez").status == 200
