"""Many large manifests at once: what they take is measured."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from digestry.model.digest import Digest
from digestry.registry.body_memory import BodyMemory
from digestry.registry.error_responses import ErrorResponse
from tests.registry.connections.support import memory
from tests.registry.support import put_manifest
from tests.support import descriptor, start_registry, wait_until

MiB = 1 << 20
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.mark.long
def test_large_bodies_that_come_slowly_have_a_bound(tmp_path: Path) -> None:
    """From as many connections as there may be of an address, and of whoever may ask what tags point to."""
    server = start_registry(tmp_path / "root", "--workers", "1")
    opened = []
    try:
        before = memory(server)
        part = b" " * (3 * MiB)
        for number in range(100):
            path = ("PUT /v2/x/manifests/1", "POST /v2/_digestry/resolve")[number % 2]
            opened.append(send_all_but_one_byte(server.port, path, part))
        refused = sum(connection_is_answered(connection) for connection in opened)
        assert 40 < refused < 90
        assert memory(server) - before < 220 * MiB  # 300 MiB were sent
        # What is small goes on, and so does all once they have left.
        server.push_image("small", "1")
        while put_manifest(server, "x", "t", b" " * (4 * MiB - 1)).status != 429:
            # Those that were refused together have left some room.
            assert len(opened) < 200
            opened.append(send_all_but_one_byte(server.port, "PUT /v2/x/manifests/1", part))
            connection_is_answered(opened[-1])
        for connection in opened:
            connection.close()
        wait_until(
            lambda: put_manifest(server, "x", "t", part).status == 400, what="room for a large manifest"
        )
    finally:
        for connection in opened:
            connection.close()
        server.stop()


def send_all_but_one_byte(port: int, path: str, body: bytes) -> socket.socket:
    """Send a request whose body never ends; its connection."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = f"{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {MANIFEST}\r\n"
    with contextlib.suppress(OSError):  # refused before all of it came
        connection.sendall(f"{head}Content-Length: {len(body) + 1}\r\n\r\n".encode() + body)
    return connection


def connection_is_answered(connection: socket.socket) -> bool:
    """Whether it was refused; the others wait for the end of their bodies."""
    connection.settimeout(0.05)
    try:
        return connection.recv(4096) is not None
    except TimeoutError:
        return False
    except OSError:
        return True


def test_nobody_has_more_than_what_is_left_for_others() -> None:
    shared = BodyMemory(1000)

    def taken(owner: str) -> int:
        size = 0
        with contextlib.suppress(ErrorResponse):
            while True:
                shared.take(owner, 1)
                size += 1
        return size

    assert [taken(owner) for owner in "abcd"] == [500, 250, 125, 62]
    shared.give_back("a", 500)
    assert taken("e") > 200


@pytest.mark.long
def test_one_is_read_at_a_time(tmp_path: Path) -> None:
    entry = descriptor("a/b", Digest.of(b"never"), 1)
    document = {"SchemaVersion": 2, "config": entry, "layers": [entry] * 34_000}
    raw = json.dumps(document, separators=(",", ":")).encode()
    server = start_registry(tmp_path / "root")
    try:
        assert put_manifest(server, "x", "t", raw).status == 400  # what one takes is there from now on
        before, most, ended = memory(server), 0, threading.Event()

        def watch() -> None:
            nonlocal most
            while not ended.wait(0.02):
                most = max(most, memory(server))

        with ThreadPoolExecutor(13) as pool:
            watching = pool.submit(watch)
            answers = list(pool.map(lambda _: put_manifest(server, "x", "t", raw).status, range(12)))
            ended.set()
            watching.result()
    finally:
        server.stop()
    assert answers == [400] * 12
    assert most - before < 200 * MiB
