"""Timestamps as text: the one form that is written, and the forms that are read.

A time that is read is a period: ``02:34:31`` is a second, and a date is a day. *At* a time means its last
moment, *since* a time its first.
"""

from __future__ import annotations

import datetime
import re
from typing import Final, NamedTuple

_MICROSECOND: Final = datetime.timedelta(microseconds=1)
_ABSOLUTE: Final = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:(?:[Tt]|[ ]+)(?P<minute>[0-9]{2}:[0-9]{2})(?::(?P<second>[0-9]{2})(?:[.,](?P<part>[0-9]{1,30}))?)?"
    r"[ ]*(?P<zone>[Zz]|UTC|GMT|[+-][0-9]{2}:?[0-9]{2})?)?",
    re.ASCII,
)

_RFC3339: Final = re.compile(r"\S{10}[Tt][0-9:]{8}(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})\Z", re.ASCII)


class Period(NamedTuple):
    """The first and the last microsecond of the period that a text names. Both are aware, in UTC."""

    first: datetime.datetime
    last: datetime.datetime


def rfc3339(at: datetime.datetime) -> str:
    """Return ``at`` (aware) as ``2026-11-27T02:34:31.123456Z``: always with six decimals, as precise as the
    journal, so that it can be parsed back, and so that text sorts as time."""
    if at.tzinfo is not datetime.UTC:
        at = at.astimezone(datetime.UTC)
    return at.isoformat(timespec="microseconds")[:26] + "Z"


def parse(text: str) -> Period:
    """Read a date, a date with a time to the minute, the second or any part of one, or RFC 3339.

    Without a zone, it is UTC. Raises :class:`ValueError`, also for a day or an hour that no calendar has.
    """
    match = _ABSOLUTE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a time")
    part = match["part"] or ""
    try:
        first = datetime.datetime.fromisoformat(
            f"{match['date']}T{match['minute'] or '00:00'}:{match['second'] or '00'}.{part[:6]:0<6}+00:00"
        )
        first -= _offset(match["zone"])
        return Period(first, first + (_length(match, part) - _MICROSECOND))
    except OverflowError as error:
        raise ValueError(f"{text!r} is out of the calendar's range") from error


def parse_rfc3339(text: str) -> Period:
    """Read RFC 3339 alone, of a second or a part of one, with its zone. Raises :class:`ValueError`."""
    if not _RFC3339.match(text):
        raise ValueError(f"{text!r} is not a time as RFC 3339 has it")
    return parse(text)


def _offset(zone: str | None) -> datetime.timedelta:
    if zone is None or zone[0] not in "+-":
        return datetime.timedelta()
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    if hours > 23 or minutes > 59:
        raise ValueError(f"{zone!r} is not an offset from UTC")
    offset = datetime.timedelta(hours=hours, minutes=minutes)
    return -offset if zone[0] == "-" else offset


def _length(match: re.Match[str], part: str) -> datetime.timedelta:
    """Return the length of the time that a text names."""
    if part:
        return datetime.timedelta(microseconds=10 ** max(0, 6 - len(part)))
    if match["second"]:
        return datetime.timedelta(seconds=1)
    return datetime.timedelta(minutes=1) if match["minute"] else datetime.timedelta(days=1)
