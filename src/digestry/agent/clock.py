"""The clock of the host, and its steps.

The wall clock may be off, and be set while entries wait in the buffer. The clock that counts from the start
of the machine is never set: the difference of the two tells by how much the wall clock was.
"""

from __future__ import annotations

import datetime
import math
import time
from pathlib import Path
from typing import Final

import msgspec

from digestry.model.fleet import Entry, Gap, RunReport, Snapshot, Started, Stopped

STEP: Final = 0.5
"""Seconds. A smaller change of the clock is its ordinary correction."""

_READINGS: Final = 5
_PRECISE: Final = 0.01
"""Seconds that the reading of both clocks takes at the most, as a rule."""
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class ClockReading(msgspec.Struct, frozen=True):
    """The seconds by which the wall clock was ahead of the machine's own clock, since its start ``boot``."""

    ahead: float
    boot: str = ""

    def step_to(self, other: ClockReading) -> float:
        """Return by how many seconds the wall clock was set since; 0 for a step too small to tell."""
        step = other.ahead - self.ahead
        return step if self.boot == other.boot and abs(step) >= STEP else 0.0


class HostClock:
    """Reads both clocks of the host."""

    def __init__(self) -> None:
        try:
            self._boot = _BOOT.read_text().strip()
        except OSError:
            self._boot = ""

    def read(self) -> ClockReading:
        """Return the difference of the clocks now."""
        # A busy machine may let this process wait between two readings.
        which = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        least, ahead = math.inf, 0.0
        for _ in range(_READINGS):
            before, now, after = time.clock_gettime(which), time.time(), time.clock_gettime(which)
            if after - before < least:
                least, ahead = after - before, now - (before + after) / 2
            if least < _PRECISE:
                break
        return ClockReading(ahead, self._boot)


def shifted(entry: Entry, seconds: float) -> Entry:
    """Return an entry with all of its times moved by so many seconds."""
    by = datetime.timedelta(seconds=seconds)
    if isinstance(entry, Started):
        return msgspec.structs.replace(entry, run=_run(entry.run, by))
    if isinstance(entry, Stopped):
        after = None if entry.after is None else entry.after + by
        return msgspec.structs.replace(entry, at=entry.at + by, after=after)
    if isinstance(entry, Snapshot):
        runs = tuple(_run(run, by) for run in entry.runs)
        return msgspec.structs.replace(entry, at=entry.at + by, runs=runs)
    assert isinstance(entry, Gap)  # noqa: S101 - for the type checker
    return shifted_gap(entry, seconds)


def shifted_gap(gap: Gap, seconds: float) -> Gap:
    """Return a gap with its times moved by so many seconds."""
    by = datetime.timedelta(seconds=seconds)
    return msgspec.structs.replace(gap, from_=gap.from_ + by, until=gap.until + by)


def _run(run: RunReport, by: datetime.timedelta) -> RunReport:
    return msgspec.structs.replace(run, started_at=run.started_at + by)
