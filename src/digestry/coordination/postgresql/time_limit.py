"""A limit for how long the database may take to answer, also through proxies and networks that are silent."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

_LOOK_SECONDS: Final = 0.5
_IDLE_SECONDS: Final = 5.0


class TimeLimit:
    """Cuts connections that a block uses for more than ``seconds``.

    The server's own limits end its statements. They do not end the wait for a server, or for a proxy before
    it, that has become silent. A thread checks while connections are used. Some seconds after the last use it
    calls ``idle``, and ends.
    """

    def __init__(self, seconds: float, *, idle: Callable[[], object]) -> None:
        self._seconds = seconds
        self._idle = idle
        self._lock = threading.Lock()
        self._used: dict[object, tuple[float, int]] = {}
        self._last = 0.0
        self._watched = False

    @contextlib.contextmanager
    def around(self, descriptor: int) -> Iterator[None]:
        """Cut the connection with this socket if the block takes too long, so that its reads fail."""
        use, now = object(), time.monotonic()
        with self._lock:
            self._used[use] = now + self._seconds, descriptor
            self._last = now
            if not self._watched:
                threading.Thread(target=self._watch, name="time limit", daemon=True).start()
                self._watched = True
        try:
            yield
        finally:
            with self._lock:
                self._used.pop(use, None)

    def _watch(self) -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            with self._lock:
                now = time.monotonic()
                for use, (until, descriptor) in list(self._used.items()):
                    if until <= now:
                        del self._used[use]
                        _cut(descriptor)
                if not self._used and now - self._last > _IDLE_SECONDS:
                    self._watched = False
                    break
        self._idle()


def _cut(descriptor: int) -> None:
    """End a connection in both directions. Its owner closes it."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as own:
        own.shutdown(socket.SHUT_RDWR)
