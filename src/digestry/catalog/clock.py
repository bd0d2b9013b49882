"""Time as the catalog keeps it: microseconds since 1970, UTC."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from typing import Final

from digestry.errors import CallerError
from digestry.model.digest import shown

Clock = Callable[[], int]
"""Gives the present in microseconds since 1970, UTC. Tests put their own here."""

SECOND: Final = 1_000_000
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND: Final = datetime.timedelta(microseconds=1)


def now() -> int:
    """The present, by the machine's clock."""
    return time.time_ns() // 1000


def to_datetime(microseconds: int) -> datetime.datetime:
    """As an aware datetime in UTC."""
    return _EPOCH + datetime.timedelta(microseconds=microseconds)


def from_datetime(moment: datetime.datetime) -> int:
    """An aware datetime as microseconds."""
    return (moment - _EPOCH) // _MICROSECOND


def to_rfc3339(microseconds: int) -> str:
    """As ``2026-11-21T10:02:03.000004Z``, always with six decimals, so that text sorts as time."""
    return to_datetime(microseconds).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def from_rfc3339(text: str) -> int:
    """Reads an RFC 3339 time. Raises :class:`CallerError` for anything else."""
    try:
        moment = datetime.datetime.fromisoformat(text.upper())
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or "T" not in text.upper():
        raise CallerError(
            f"{shown(text)} is not a time as RFC 3339 has it", hint="such as 2026-11-21T10:02:03Z"
        )
    return from_datetime(moment)


class Clocks:
    """Compares a clock with one that nobody sets."""

    def __init__(self, now: Clock) -> None:
        self._now = now
        self._last = self._both()

    def _both(self) -> tuple[float, float]:
        # CLOCK_BOOTTIME goes on while the machine sleeps, where there is one.
        steady = time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
        return self._now() / SECOND, steady

    def jump(self) -> float:
        """By how many seconds the clock went forward more than time did, since the last call."""
        (wall, steady), self._last = self._last, self._both()
        return (self._last[0] - wall) - (self._last[1] - steady)
