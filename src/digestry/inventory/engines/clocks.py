"""How far an engine's clock is ahead of this machine's, as its answers say.

Times of containers are by the engine's clock. On one host that is the agent's, too; an engine of another
machine may have a clock that is off, or this process may (RFC 9110, section 6.6.1: ``Date``).
"""

from __future__ import annotations

import datetime
import email.utils
from typing import Final

TOLERANCE: Final = 2.0
"""Seconds. Clocks that differ by less are taken as equal."""


class EngineClock:
    """The estimate, narrowed by each answer, and begun anew when an answer contradicts it."""

    def __init__(self) -> None:
        self._low, self._high = -TOLERANCE, TOLERANCE
        self._ahead = 0.0

    @property
    def ahead(self) -> float:
        """The seconds by which the engine's clock is ahead: 0 if the clocks may be equal."""
        return self._ahead

    def note(self, date: str | None, asked: float, answered: float) -> None:
        """Note the ``Date`` of an answer to a question of the time ``asked``, by this machine's clock in
        seconds since 1970; ``answered`` is when it came. A date that is missing or invalid says nothing."""
        at = _seconds_of(date)
        if at is None or answered < asked:  # this machine's clock was set meanwhile
            return
        low, high = at - answered, at + 1 - asked  # a date is cut to its second
        if low <= TOLERANCE and high >= -TOLERANCE:
            self._low, self._high, self._ahead = -TOLERANCE, TOLERANCE, 0.0
            return
        if max(low, self._low) <= min(high, self._high) and self._ahead:
            self._low, self._high = max(low, self._low), min(high, self._high)
        else:
            self._low, self._high = low, high
        if not self._low <= self._ahead <= self._high:
            # What was told before with another estimate stays as near as that allows.
            self._ahead = (self._low + self._high) / 2


def _seconds_of(date: str | None) -> float | None:
    try:
        found = email.utils.parsedate_to_datetime(date or "")
    except (ValueError, TypeError, OverflowError):
        return None
    if found.tzinfo is None:
        found = found.replace(tzinfo=datetime.UTC)
    return found.timestamp()
