"""The database's clock, as a process reads it without asking each time."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from sqlalchemy import text

from digestry.coordination.postgresql.connections import Connections
from digestry.coordination.postgresql.leases import SteadyClock, steady
from digestry.coordination.postgresql.statements import MICROSECONDS, NOW
from digestry.errors import StorageError

log: Final = logging.getLogger("digestry.registry")

_NOW: Final = text(f"SELECT {NOW}")
_GOOD_SECONDS: Final = 30.0
"""For how long two clocks agree. Then the database is asked again."""
_TROUBLE_SECONDS: Final = 1.0


class DatabaseClock:
    """The present in microseconds since 1970, by the database's clock. Thread-safe.

    All nodes agree on it, even if their own clocks differ. The first call asks the database, and blocks.
    Later ones use a monotonic clock, and a thread asks again from time to time. Until the database first
    answers, the machine's own clock is used.
    """

    def __init__(self, connections: Connections, *, clock: SteadyClock = steady) -> None:
        self._connections = connections
        self._clock = clock
        self._lock = threading.Lock()
        self._offset: int | None = None
        self._ask_at = 0.0

    def __call__(self) -> int:
        now = self._clock()
        if now >= self._ask_at:
            self._ask_again(now)
        offset = self._offset
        return time.time_ns() // 1000 if offset is None else int(now * MICROSECONDS) + offset

    def _ask_again(self, now: float) -> None:
        with self._lock:
            if now < self._ask_at:
                return  # another thread does
            self._ask_at = now + _TROUBLE_SECONDS
            if self._offset is None:
                self._ask()
                return
        threading.Thread(target=self._ask, name="database clock", daemon=True).start()

    def _ask(self) -> None:
        try:
            with self._connections.statements() as connection:
                connection.execute(_NOW)  # a first connection takes longer
                sent = self._clock()
                there = connection.execute(_NOW).scalar_one()
        except StorageError as error:
            log.error("the database does not say what time it is: %s", error.message)
            return
        # It was read in the middle of the round trip, more or less.
        self._offset = there - int((sent + self._clock()) / 2 * MICROSECONDS)
        self._ask_at = sent + _GOOD_SECONDS
