"""A proxy before a registry that passes bytes on slowly, counts them, and cuts connections."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time

from tests.tcp_relay import TcpRelay, running

_PIECE = 16 << 10


class SlowProxy(TcpRelay):
    """Passes TCP connections on; ``rate`` is bytes a second from the registry, on all of them together.

    With ``cut_after`` a connection is cut after about so many bytes. ``uploads`` says that all this is about
    the bytes to the registry instead.
    """

    def __init__(self, port: int, rate: float, cut_after: int = 0, *, uploads: bool = False) -> None:
        self._uploads = uploads
        self._rate = rate
        self._cut_after = cut_after
        self._lock = threading.Lock()
        self._free_at = 0.0
        self._random = random.Random(1)
        self.sent = self.cuts = 0
        super().__init__(port, room=_PIECE)

    def relay(self, client: socket.socket, upstream: socket.socket) -> None:
        ahead = threading.Thread(target=self._pass, args=(client, upstream, self._uploads), daemon=True)
        ahead.start()
        self._pass(upstream, client, not self._uploads)
        ahead.join()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        left = self._random.randint(1, 2 * self._cut_after) if counted and self._cut_after else None
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                if counted:
                    self._wait(len(data))
                target.sendall(data)
                if counted:
                    with self._lock:
                        self.sent += len(data)
                if left is not None:
                    left -= len(data)
                    if left <= 0:
                        with self._lock:
                            self.cuts += 1
                        break
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _wait(self, count: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + count / self._rate
            pause = self._free_at - now
        time.sleep(pause)


def slow_proxy(
    port: int, *, rate: float, cut_after: int = 0, uploads: bool = False
) -> contextlib.AbstractContextManager[SlowProxy]:
    """Run a proxy before the registry at ``port``."""
    return running(SlowProxy(port, rate, cut_after, uploads=uploads))
