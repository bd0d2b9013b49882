"""A port before a server: what comes in there is passed on to the server, and back, in a way of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import TypeVar


class TcpRelay:
    """Accepts connections at ``host``, and has :meth:`relay` pass each on to the server at ``port``.

    ``connections`` counts them. ``room`` is the most bytes that the kernel keeps of each in either
    direction, if it is not 0.
    """

    def __init__(self, port: int, *, room: int = 0) -> None:
        self._target = ("127.0.0.1", port)
        self._room = room
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        if room:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * room)
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                if self._room:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._room)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as upstream:
            self.relay(client, upstream)

    def relay(self, client: socket.socket, upstream: socket.socket) -> None:
        """Pass bytes in both directions until one side ends."""
        raise NotImplementedError

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.close()


Relay = TypeVar("Relay", bound=TcpRelay)


@contextlib.contextmanager
def running(relay: Relay) -> Iterator[Relay]:
    """Close the relay at the end of the block."""
    try:
        yield relay
    finally:
        relay.close()
