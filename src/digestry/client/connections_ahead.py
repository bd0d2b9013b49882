"""Connections that are opened before they are needed, where opening one takes as long as a request or two."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from digestry.client.http_connection import HttpConnection

FAR: Final = 0.01
"""Seconds of a round trip from which connections are opened ahead."""
_PATIENCE: Final = 6.0
"""Round trips for which a request waits for a connection that is being opened; then it opens its own."""
_ROUND_TRIP: Final = 68  # the offset of tcpi_rtt, in microseconds, in Linux's struct tcp_info


class ConnectionsAhead:
    """The connections to one origin that are being opened ahead. Thread-safe.

    ``make`` makes one, not yet open; ``ready`` is called with each that is. One that cannot be opened is
    forgotten: the request that would have used it opens its own, and says why it cannot.
    """

    def __init__(
        self, make: Callable[[], HttpConnection], ready: Callable[[HttpConnection], None], timeout: float
    ) -> None:
        self._make = make
        self._ready = ready
        self._timeout = timeout
        self._changed = threading.Condition()
        self._expected = 0
        self._opening = self._waiting = 0
        self._round_trip: float | None = None

    @property
    def is_far(self) -> bool:
        """Whether a request to the origin takes far longer than to begin it in a thread."""
        return self._round_trip is not None and self._round_trip >= FAR

    def expect(self, count: int, idle: int) -> None:
        """Have ``count`` connections open soon, if the origin is far. ``idle`` are there already."""
        with self._changed:
            self._expected = count
            if self._round_trip is not None:
                self._open(idle)

    def opened(self, sock: socket.socket) -> None:
        """Take note that a connection was opened for a request: how far the origin is shows with it."""
        with self._changed:
            self._round_trip = round_trip(sock)
            self._open(1)

    def wait(self, began: float) -> bool:
        """Wait until a connection was opened, and return True; False if none can be waited for.

        ``began`` is when the request began to wait, on the monotonic clock.
        """
        with self._changed:
            if self._opening <= self._waiting or self._round_trip is None:
                return False
            left = began + _PATIENCE * self._round_trip - time.monotonic()
            if left <= 0:
                return False
            self._waiting += 1
            self._changed.wait(left)
            self._waiting -= 1
            return True

    def came(self) -> None:
        """Take note that a connection is idle, which one that waits may use."""
        if self._waiting:
            with self._changed:
                self._changed.notify()

    def _open(self, there: int) -> None:
        if not self.is_far:
            return
        for _ in range(self._expected - there - self._opening):
            self._opening += 1
            threading.Thread(target=self._run, name="digestry-connect", daemon=True).start()
        self._expected = 0

    def _run(self) -> None:
        connection = self._make()
        try:
            connection.timeout = self._timeout
            connection.open()
        except Exception:  # noqa: BLE001 - the request that needs one says it
            connection.close()
        else:
            self._ready(connection)
        finally:
            with self._changed:
                self._opening -= 1
                self._changed.notify_all()


def round_trip(sock: socket.socket) -> float | None:
    """Return the seconds of a round trip, as the kernel measured it; None where it does not say."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None:
        return None
    try:
        said = sock.getsockopt(socket.IPPROTO_TCP, option, _ROUND_TRIP + 4)
    except OSError:
        return None
    return float(struct.unpack_from("@I", said, _ROUND_TRIP)[0]) / 1e6 if len(said) > _ROUND_TRIP else None
