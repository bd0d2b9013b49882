"""A network between a node and its database, which can be cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Network:
    """Passes bytes on to a port of this machine. While it is cut it drops them, and takes no connection."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._whole = threading.Event()
        self._whole.set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._whole.wait()
                server = socket.create_connection(("127.0.0.1", self._target))
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, source: socket.socket, destination: socket.socket) -> None:
        with contextlib.suppress(OSError), source, destination:
            while data := source.recv(1 << 16):
                if self._whole.is_set():
                    destination.sendall(data)


@contextlib.contextmanager
def network_to(port: int) -> Iterator[Network]:
    """A network that leads to ``port``."""
    network = Network(port)
    try:
        yield network
    finally:
        network.mend()
        network.close()
