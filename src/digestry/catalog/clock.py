"""Time as the catalog keeps it: microseconds since 1970, UTC."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from typing import Final

from digestry.model.timestamps import rfc3339

Clock = Callable[[], int]
"""Gives the present in microseconds since 1970, UTC. Tests put their own here."""

SECOND: Final = 1_000_000
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND: Final = datetime.timedelta(microseconds=1)


def now() -> int:
    """Return the present, by the machine's clock."""
    return time.time_ns() // 1000


def to_datetime(microseconds: int) -> datetime.datetime:
    """Return a time as an aware datetime in UTC."""
    return _EPOCH + datetime.timedelta(microseconds=microseconds)


def from_datetime(moment: datetime.datetime) -> int:
    """Return an aware datetime as microseconds."""
    return (moment - _EPOCH) // _MICROSECOND


def to_rfc3339(microseconds: int) -> str:
    """Return a time as ``2026-11-21T10:02:03.000004Z``, always with six decimals, so that text sorts as
    time."""
    return rfc3339(to_datetime(microseconds))


class Clocks:
    """Compares the wall clock with one that cannot be set."""

    def __init__(self, now: Clock) -> None:
        self._now = now
        self._last = self._both()

    def _both(self) -> tuple[float, float]:
        # CLOCK_BOOTTIME, where it exists, also counts while the machine sleeps.
        steady = time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
        return self._now() / SECOND, steady

    def jump(self) -> float:
        """Return by how many seconds the clock went forward more than time did, since the last call."""
        (wall, steady), self._last = self._last, self._both()
        return (self._last[0] - wall) - (self._last[1] - steady)
