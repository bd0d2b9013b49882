"""A long line before a registry: each connection has its own delay and rate, as where packets are lost."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time

from tests.tcp_relay import TcpRelay, running

_PIECE = 16 << 10
_ON_THE_WAY = 64
"""Pieces that are on the line at a time."""


class FarLine(TcpRelay):
    """Passes TCP connections on: every byte ``delay`` seconds late, and ``rate`` bytes a second from the
    registry on each connection.
    """

    def __init__(self, port: int, *, rate: float, delay: float) -> None:
        super().__init__(port)
        self._rate = rate
        self._delay = delay

    def relay(self, client: socket.socket, upstream: socket.socket) -> None:
        threads = []
        for source, target, rate in ((client, upstream, None), (upstream, client, self._rate)):
            line: queue.Queue[tuple[float, bytes]] = queue.Queue(_ON_THE_WAY)
            threads.append(threading.Thread(target=self._enter, args=(source, line), daemon=True))
            threads.append(threading.Thread(target=self._leave, args=(line, target, rate), daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _enter(self, source: socket.socket, line: queue.Queue[tuple[float, bytes]]) -> None:
        data = b"."
        while data:
            try:
                data = source.recv(_PIECE)
            except OSError:
                data = b""
            line.put((time.monotonic() + self._delay, data))

    def _leave(
        self, line: queue.Queue[tuple[float, bytes]], target: socket.socket, rate: float | None
    ) -> None:
        free_at = 0.0
        data = b"."
        with contextlib.suppress(OSError):
            while True:
                due, data = line.get()
                if rate is not None:
                    free_at = max(free_at, due) + len(data) / rate
                    due = free_at
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    break
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
        while data:  # whoever enters must not wait for ever
            _, data = line.get()


def far_line(port: int, *, rate: float, delay: float = 0.0) -> contextlib.AbstractContextManager[FarLine]:
    """Run a line before the registry at ``port``."""
    return running(FarLine(port, rate=rate, delay=delay))
