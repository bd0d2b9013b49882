"""The times of a report, corrected to the registry's clock."""

from __future__ import annotations

import datetime
from typing import Final

from digestry.catalog import clock

TOLERANCE: Final = 2 * clock.SECOND
"""Clocks that differ by less are taken as equal."""

_EARLIEST: Final = clock.from_datetime(datetime.datetime(2008, 1, 1, tzinfo=datetime.UTC))
"""No container is older: an engine that does not know a time says 0001-01-01, or 1970-01-01."""
_FUTURE: Final = 60 * clock.SECOND
"""Times that are later than the present by less are taken as the present without a word."""


class ReportTimes:
    """Converts an agent's times to microseconds of the registry's clock; counts those that cannot be.

    ``ahead`` is by how much the agent's clock is ahead of the registry's, whose time is ``now``.
    """

    def __init__(self, now: int, ahead: int) -> None:
        self.now = now
        self._ahead = ahead if abs(ahead) > TOLERANCE else 0
        self.impossible = 0
        """How many times were before all containers, or in the future, and were replaced."""

    def at(self, moment: datetime.datetime, *, instead: int | None = None) -> int:
        """Return ``moment`` by the registry's clock, never later than now.

        ``instead`` is taken for a time before there were containers; without it, the present.
        """
        found = self.corrected(clock.from_datetime(moment))
        if found < _EARLIEST:
            self.impossible += 1
            return self.now if instead is None else instead
        if found > self.now + _FUTURE:
            self.impossible += 1
        return min(found, self.now)

    def corrected(self, at: int) -> int:
        """Return a time by the registry's clock, which may be impossible."""
        return at - self._ahead


def clock_ahead(measured: int, before: int | None, stated: int | None = None) -> int:
    """Return by how much an agent's clock is ahead of the registry's.

    ``measured`` is the time that a report says it was sent at less the time that it came, and ``before`` that
    of the report before it. A report that was held up on its way looks as if the clock were behind, so the
    larger of the two is right. A clock that was set back is believed at the second report.

    Several reports may have been held up and come together. So an agent has ``stated`` what it measured by
    an earlier receipt; that counts instead of ``before``, for it knows when its clock was set.
    """
    known = before if stated is None else stated
    return measured if known is None else max(measured, known)
