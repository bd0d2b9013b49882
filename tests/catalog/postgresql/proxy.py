"""A proxy before a PostgreSQL server that cuts a connection at its COMMIT."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Final, Literal

_COMMIT: Final = b"COMMIT\0"
_COMMITTED: Final = b"COMMIT\0"  # the server's command tag

When = Literal["before", "after"]


class CommitProxy:
    """Passes connections on to ``target``. Once ``cut`` is set it ends the next connection that commits,
    before the server has its COMMIT, or after the server has executed it; then it is unset."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port = int(self._listening.getsockname()[1])
        self.cut: When | None = None
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open += [client, server]
                committing = threading.Event()
                for way in (self._to_server, self._to_client):
                    threading.Thread(target=way, args=(client, server, committing), daemon=True).start()

    def _to_server(self, client: socket.socket, server: socket.socket, committing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                if _COMMIT in data and self.cut == "before":
                    self._count()
                    break
                if _COMMIT in data and self.cut == "after":
                    committing.set()
                server.sendall(data)
        _end(client, server)

    def _to_client(self, client: socket.socket, server: socket.socket, committing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if committing.is_set() and _COMMITTED in data:
                    self._count()
                    break
                client.sendall(data)
        _end(client, server)

    def _count(self) -> None:
        self.cut = None
        self.cuts += 1

    def close(self) -> None:
        self._listening.close()
        _end(*self._open)


def _end(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


@contextlib.contextmanager
def proxy_to(port: int) -> Iterator[CommitProxy]:
    """A proxy before the server at ``port``."""
    proxy = CommitProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
