"""A body is read only of who may do something with it."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.registry.connections.support import connect, memory, server_with
from tests.support import RegistryServer, program

LENGTH = 1 << 20
ROUTES = [
    ("POST", "/v2/_digestry/resolve"),
    ("POST", "/v2/_digestry/sightings"),
    ("PUT", "/v2/a/b/manifests/t"),
    ("POST", "/v2/a/b/blobs/uploads/"),
    ("POST", "/v2/a/b/blobs/uploads/?digest=sha256:" + "0" * 64),
    ("PATCH", "/v2/a/b/blobs/uploads/00000000-0000-0000-0000-000000000000"),
    ("POST", "/v2/a/b/_digestry/restore"),
    ("DELETE", "/v2/a/b/manifests/t"),
]


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry that asks for a login for everything."""
    folder = tmp_path_factory.mktemp("private")
    made = [program("htpasswd"), "-cbB", "-C", "4", str(folder / "users"), "ann", "secret-of-ann"]
    subprocess.run(made, check=True, capture_output=True)
    with server_with(folder, '[auth]\nhtpasswd = "users"\n') as server:
        yield server


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_who_is_unknown_is_told_so_before_the_body(private: RegistryServer, method: str, path: str) -> None:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LENGTH}\r\n"
    with connect(private, head.encode() + b"Expect: 100-continue\r\n\r\n") as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 401")


@pytest.mark.long
@pytest.mark.parametrize(("method", "path"), ROUTES[:3])
def test_bodies_that_do_not_end_hold_little(private: RegistryServer, method: str, path: str) -> None:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LENGTH}\r\n\r\n".encode()
    before = memory(private)
    held = [connect(private, head + b"[" * (LENGTH - 1)) for _ in range(100)]
    time.sleep(1)
    assert (memory(private) - before) / len(held) < 256 << 10
    for connection in held:
        connection.close()
    assert isinstance(held[0], socket.socket)
