"""Unix sockets: who may connect, what of an old one is replaced, and that nobody's is taken away."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.errors import InvalidConfiguration
from digestry.registry.connections import listening
from digestry.registry.connections.listening import listen_unix
from tests.forked_process import ForkedProcess
from tests.support import PATIENCE, start_digestry


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self._path))


def ask(
    path: Path, method: str = "GET", target: str = "/v2/", body: bytes | None = None
) -> tuple[int, bytes]:
    connection = UnixConnection(path)
    try:
        connection.request(method, target, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def start(root: Path, *arguments: str) -> ForkedProcess:
    return start_digestry(
        "serve",
        "--root",
        root,
        *arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, ForkedProcess]]:
    path = tmp_path / "registry.sock"
    with start(tmp_path / "root", "--listen", f"unix:{path}", "--workers", "2") as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().decode() == f"unix:{path}\n"
            yield path, process
        finally:
            process.terminate()
            process.wait(PATIENCE)


def test_a_registry_on_a_unix_socket(served: tuple[Path, ForkedProcess]) -> None:
    path, process = served
    assert ask(path) == (200, b"{}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    content = os.urandom(3 << 20)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    status, _ = ask(path, "POST", f"/v2/unix/x/blobs/uploads/?digest={digest}", content)
    assert status == 201
    assert ask(path, "GET", f"/v2/unix/x/blobs/{digest}") == (200, content)
    process.terminate()
    assert process.wait(PATIENCE) == 0
    assert not path.exists()


@pytest.mark.long
def test_one_socket_one_server(served: tuple[Path, ForkedProcess], tmp_path: Path) -> None:
    path, _ = served
    with start(tmp_path / "other", "--listen", f"unix:{path}") as second:
        _, told = second.communicate(timeout=PATIENCE)
    assert second.returncode == 2
    assert b"another server does" in told
    assert b"Traceback" not in told
    assert ask(path) == (200, b"{}")


def test_what_a_killed_server_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "old.sock"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    found = listen_unix(path, 0o600)
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with found.connect(1):
            pass
    finally:
        found.close()
    assert not path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_nothing_else_of_that_name_is_touched(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "taken", tmp_path / "other"
    if kind == "file":
        path.write_text("somebody's")
    elif kind == "folder":
        path.mkdir()
    else:
        other.write_text("somebody's")
        path.symlink_to(other)
    with pytest.raises(InvalidConfiguration, match="something else of that name"):
        listen_unix(path, 0o600)
    assert path.exists()
    assert not other.exists() or other.read_text() == "somebody's"


def test_a_socket_that_another_server_has_by_now_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = listen_unix(path, 0o600)
    path.unlink()
    second = listen_unix(path, 0o600)
    first.close()
    assert path.exists()
    second.close()
    assert not path.exists()


@pytest.mark.parametrize(
    "listen", ["unix:", "unix:" + "a" * 200, "unix:/nowhere/at/all/s", "unix:/proc/s", "unix:."]
)
def test_paths_that_cannot_be(tmp_path: Path, listen: str) -> None:
    with start(tmp_path / "root", "--listen", listen) as process:
        out, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert out == b""
    assert b"listen" in told
    assert b"Traceback" not in told


@pytest.mark.long
def test_a_relative_path_counts_from_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "registry.toml").write_text('listen = "unix:here.sock"\nsocket-mode = "0600"\n')
    with start(tmp_path / "root", "--config", str(tmp_path / "registry.toml")) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().decode() == f"unix:{tmp_path}/here.sock\n"
            assert stat.S_IMODE((tmp_path / "here.sock").stat().st_mode) == 0o600
        finally:
            process.terminate()
            process.wait(PATIENCE)


def test_a_port_is_taken_or_not() -> None:
    first = listening.listen("127.0.0.1", 0, patience=1)
    with pytest.raises(InvalidConfiguration, match="already in use"):
        listening.listen("127.0.0.1", first.port, patience=1)
    first.close()
    listening.listen("127.0.0.1", first.port, patience=1).close()
