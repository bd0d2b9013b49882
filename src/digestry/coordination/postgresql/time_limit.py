"""A limit for how long the database may take to answer, whatever lies between it and this process."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import Connection

_LOOK_SECONDS: Final = 0.5


class TimeLimit:
    """Cuts connections that a block uses for more than ``seconds``. A thread looks while there are any.

    The server's own limits end what the server does. They do not end the wait for a server, or a proxy before
    it, that says nothing any more.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._changed = threading.Condition()
        self._used: dict[object, tuple[float, int]] = {}
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def around(self, connection: Connection) -> Iterator[None]:
        """Cut ``connection`` if the block takes too long: what waits for it then fails."""
        driver: Any = connection.connection.driver_connection
        use = object()
        with self._changed:
            self._used[use] = time.monotonic() + self._seconds, driver.fileno()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="time limit", daemon=True)
                self._thread.start()
            elif len(self._used) == 1:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._used.pop(use, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._used:
                    self._changed.wait()
                now = time.monotonic()
                for use, (until, descriptor) in list(self._used.items()):
                    if until <= now:
                        del self._used[use]
                        _cut(descriptor)
            time.sleep(_LOOK_SECONDS)


def _cut(descriptor: int) -> None:
    """End a connection in both directions. Its owner closes it."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as own:
        own.shutdown(socket.SHUT_RDWR)
