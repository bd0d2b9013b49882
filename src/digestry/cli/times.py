"""Times on the command line: a date, which is its first moment in UTC, or RFC 3339."""

from __future__ import annotations

import datetime
import re
from typing import Final

import click

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII | re.IGNORECASE,
)


def moment(text: str) -> datetime.datetime:
    """Reads an option's value, for click: an aware datetime in UTC."""
    try:
        if _DATE.fullmatch(text):
            return datetime.datetime.fromisoformat(f"{text}T00:00:00+00:00")
        if _TIME.fullmatch(text):
            return datetime.datetime.fromisoformat(text.upper()).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        pass
    raise click.BadParameter(f"{text!r} is no time; write 2026-11-01, or 2026-11-01T08:00:00Z.")


def stamp(at: datetime.datetime) -> str:
    """A time as RFC 3339 in UTC, to the second or, where it has more, to the microsecond."""
    return at.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")


def shown(at: datetime.datetime) -> str:
    """A time for a table whose heading says UTC, to the second."""
    return at.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
