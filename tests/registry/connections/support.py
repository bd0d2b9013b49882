"""What the tests of connections share: a server with its own limits, and clients that misbehave."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.support import PATIENCE, RegistryServer, start_registry


@contextlib.contextmanager
def server_with(folder: Path, text: str, *arguments: str) -> Iterator[RegistryServer]:
    """A server whose configuration is ``text``."""
    config = folder / "registry.toml"
    config.write_text(text)
    server = start_registry(folder / "root", "--config", str(config), *arguments)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


OPENED: list[socket.socket] = []
"""What :func:`connect` made; closed at the end of each test."""


def connect(server: RegistryServer, content: bytes = b"", *, buffer: int = 0) -> socket.socket:
    """A client's connection that sent ``content``, and takes in no more than ``buffer`` bytes unread."""
    connection = socket.socket()
    OPENED.append(connection)
    if buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(PATIENCE)
    connection.connect(("127.0.0.1", server.port))
    with contextlib.suppress(ConnectionError):
        connection.sendall(content)
    return connection


def is_open(connection: socket.socket) -> bool:
    """Whether the server has not ended it; what it sent is read away."""
    patience = connection.gettimeout()
    connection.setblocking(False)
    try:
        while connection.recv(1 << 16):
            pass
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        connection.settimeout(patience)
    return False


def still_open(connections: Iterable[socket.socket], *, within: float = PATIENCE) -> int:
    """How many are open when all were ended, or ``within`` seconds have passed."""
    end = time.monotonic() + within
    left = list(connections)
    while left and time.monotonic() < end:
        left = [one for one in left if is_open(one)]
        time.sleep(0.05)
    return len(left)


def ended(server: RegistryServer) -> dict[str, int]:
    """How many connections the server says that it ended, by reason."""
    lines = server.request("GET", "/metrics").body.decode().splitlines()
    found = {}
    for line in lines:
        if line.startswith("digestry_connections_ended_total{"):
            labels, _, count = line.partition("} ")
            found[labels.split('"')[1]] = int(float(count))
    return found


def held(server: RegistryServer) -> int:
    """How many sockets the server's processes have open."""
    found = 0
    for process in server.processes():
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                found += str(descriptor.readlink()).startswith("socket:")
    return found


def memory(server: RegistryServer) -> int:
    """Bytes of resident memory of all of the server's processes."""
    total = 0
    for process in server.processes():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{process}/statm").read_text().split()
            total += int(fields[1]) * 4096
    return total
