"""Time options of commands: parsing, and how times are printed."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import click

from digestry.cli.output import note

if TYPE_CHECKING:
    from digestry.model.timestamps import Period

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGO: Final = (
    r"(?a:(?P<number>[0-9]{1,9})\s*(?P<unit>seconds?|secs?|s|minutes?|mins?|m|hours?|h|days?|d|weeks?|w)\s*)"
)
"""Compiled where it is used: few commands are given a time."""
_FORMS: Final = (
    "write 2026-11-27T02:34:31.123456Z as it is printed, 2026-11-27 02:34:31 or 2026-11-27 (in UTC), "
    "2h or 3d for so long ago, now, today or yesterday"
)


def time_option(
    name: str,
    *,
    last: bool,
    help: str,  # noqa: A002 - click's word
) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Return an option that is a time, as an aware datetime; which moment was taken goes to standard error.

    Of a whole second, minute or day it is the ``last`` moment, or else the first.
    """

    def read(
        _context: click.Context, _parameter: click.Parameter, text: str | None
    ) -> datetime.datetime | None:
        if text is None:
            return None
        from digestry.model.timestamps import rfc3339

        now = datetime.datetime.now(datetime.UTC)
        at = moment(text, last=last, now=now)
        later = ", which is still to come by this machine's clock" if at > now else ""
        note(f"{name} is {rfc3339(at)}{later}")
        return at

    return click.option(name, callback=read, metavar="TIME", help=help)


def moment(text: str, *, last: bool, now: datetime.datetime) -> datetime.datetime:
    """Read an option's value, for click: an aware datetime in UTC."""
    from digestry.model.timestamps import parse

    words = text.strip().lower()
    try:
        if words in {"now", "today", "yesterday"}:
            if words == "now":
                return now
            day = now.date() - datetime.timedelta(days=words == "yesterday")
            found = parse(day.isoformat())
        else:
            ago = _ago(words)
            if ago is not None:
                return now - ago
            found = parse(text)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{text!r} is not a time; {_FORMS}.") from error
    return _one(found, last=last)


def _one(found: Period, *, last: bool) -> datetime.datetime:
    return found.last if last else found.first


def _ago(text: str) -> datetime.timedelta | None:
    """Return the time of ``2h``, ``1d12h`` or ``90 minutes ago``; None for other text."""
    ago = re.compile(_AGO)
    rest = text.removesuffix(" ago")
    seconds = position = 0
    while position < len(rest):
        match = ago.match(rest, position)
        if match is None:
            return None
        seconds += int(match["number"]) * _UNITS[match["unit"][0]]
        position = match.end()
    return datetime.timedelta(seconds=seconds) if position else None
