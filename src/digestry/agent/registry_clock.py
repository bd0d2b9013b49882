"""The registry's clock, as its receipts tell it to the agent."""

from __future__ import annotations

import datetime
from typing import Final

from digestry.agent.clock import ClockReading, HostClock

_LONGEST_TRIP: Final = 2.0
"""Seconds. The registry's time is somewhere in the time of the round trip: a longer one says too little."""


class RegistryClock:
    """By how much the host's clock is ahead of the registry's, which both may be set.

    A report that is held up on its way carries what was measured before: it does not look like one of a
    clock that is behind.
    """

    def __init__(self, clock: HostClock | None = None) -> None:
        self._clock = clock or HostClock()
        self._measured: tuple[float, ClockReading] | None = None

    def read(self) -> ClockReading:
        """Return a reading of the host's clocks, for :meth:`learn`, before a report is sent."""
        return self._clock.read()

    def learn(self, sent: datetime.datetime, before: ClockReading, registry: datetime.datetime) -> bool:
        """Learn from a receipt: the ``registry``'s time, for a report that was ``sent`` at a time of this
        clock. Return whether the round trip was short enough."""
        now, after = datetime.datetime.now(datetime.UTC), self._clock.read()
        trip = max(0.0, (now - sent).total_seconds() - (after.ahead - before.ahead))
        if before.boot != after.boot or trip > _LONGEST_TRIP:
            return False
        self._measured = (now - registry).total_seconds() - trip / 2, after
        return True

    @property
    def ahead(self) -> float | None:
        """The seconds by which the host's clock is ahead now; None if that is not known."""
        if self._measured is None:
            return None
        seconds, then = self._measured
        now = self._clock.read()
        return seconds + now.ahead - then.ahead if now.boot == then.boot else None
