"""A plain TCP balancer, and a network between a node and its stores that can be cut."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Final

_CHUNK: Final = 1 << 16
_CONNECT_SECONDS: Final = 5.0


class TcpProxy:
    """Listens on a free port of loopback, and carries each connection to the next of ``targets``.

    A target that refuses is passed over. :meth:`cut` drops everything in silence until :meth:`mend`: open
    connections stay open and no byte passes, as when a cable is pulled.
    """

    def __init__(self, *targets: tuple[str, int], one_request: bool = False) -> None:
        self._one_request = one_request
        self._targets: Sequence[tuple[str, int]] = targets
        self._turns = itertools.count()
        self._whole = threading.Event()
        self._whole.set()
        self._closed = False
        self._open: set[socket.socket] = set()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept_forever, daemon=True).start()

    @property
    def host(self) -> str:
        """``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.port}"

    def retarget(self, *targets: tuple[str, int]) -> None:
        """Carry new connections to these from now on."""
        self._targets = targets

    def cut(self) -> None:
        """Let no byte pass."""
        self._whole.clear()

    def mend(self) -> None:
        """Let bytes pass again, those that waited first."""
        self._whole.set()

    def reset(self) -> None:
        """End all open connections at once."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening, and end all connections."""
        self._closed = True
        self._whole.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.reset()

    def _accept_forever(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _connect(self) -> socket.socket | None:
        targets = self._targets
        turn = next(self._turns)
        for number in range(len(targets)):
            with contextlib.suppress(OSError):
                return socket.create_connection(
                    targets[(turn + number) % len(targets)], timeout=_CONNECT_SECONDS
                )
        return None

    def _carry(self, client: socket.socket) -> None:
        with client:
            self._whole.wait()
            server = self._connect()
            if server is None:
                return
            with server:
                server.settimeout(None)
                for one in (client, server):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open |= {client, server}
                # Each direction by itself: a server may answer while it takes no more of the request.
                back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
                back.start()
                with contextlib.suppress(OSError):
                    if self._one_request:
                        server.sendall(_asking_to_close(client))
                    self._pump(client, server)
                back.join()
                self._open -= {client, server}

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        """Carry bytes one way, until their end."""
        with contextlib.suppress(OSError):
            while content := source.recv(_CHUNK):
                self._whole.wait()
                sink.sendall(content)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def _asking_to_close(client: socket.socket) -> bytes:
    """The beginning of a request, with the header that ends the connection after it.

    What begins otherwise is returned as it is: TLS, which many clients try first, has no lines to wait for.
    """
    begun = client.recv(_CHUNK)
    while begun[:1].isupper() and b"\r\n" not in begun:
        content = client.recv(_CHUNK)
        if not content:
            return begun
        begun += content
    if not begun[:1].isupper():
        return begun
    line, rest = begun.split(b"\r\n", 1)
    return line + b"\r\nConnection: close\r\n" + rest


@contextlib.contextmanager
def tcp_proxy(*targets: tuple[str, int], one_request: bool = False) -> Iterator[TcpProxy]:
    """A proxy for the length of a block."""
    proxy = TcpProxy(*targets, one_request=one_request)
    try:
        yield proxy
    finally:
        proxy.close()
