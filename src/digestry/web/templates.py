"""The templates: their environment, and the filters for times, sizes and digests.

Everything that a template inserts is escaped, and a name that a view does not have is an error.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from importlib import resources
from urllib.parse import quote, urlencode

from jinja2 import Environment, FunctionLoader, StrictUndefined

from digestry.catalog import clock
from digestry.model.digest import Digest
from digestry.web.static_files import StaticFile

_DIGEST = re.compile(r"\bsha(?:256|512):([0-9a-f]{12})[0-9a-f]{52,116}\b")
_UNITS = ("B", "KB", "MB", "GB", "TB")


def environment(static_files: Mapping[str, StaticFile]) -> Environment:
    """Return the environment of all templates. Addresses of ``static_files`` come from ``static(NAME)``."""
    made = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["static"] = lambda name: static_files[name].address
    made.globals["address"] = address
    made.filters |= {
        "short": short,
        "shortened": shortened,
        "bytes": size_text,
        "moment": moment,
        "iso": iso,
        "ago": ago,
        "lasting": lasting,
        "count": count,
        "capitalize_first": capitalize_first,
        "plural": plural,
    }
    return made


def _source(name: str) -> str:
    return resources.files("digestry.web").joinpath("templates", name).read_text(encoding="utf-8")


def address(path: str, **parameters: object) -> str:
    """Return the address of a page: its path, and the parameters that are not empty as its query."""
    query = urlencode({name: value for name, value in parameters.items() if value not in {"", None}})
    text = quote(path, safe="/:@._-")
    return f"{text}?{query}" if query else text


def short(digest: Digest | str) -> str:
    """Return the first 12 digits of a digest."""
    return str(digest).partition(":")[2][:12]


def shortened(text: str) -> str:
    """Return a text in which digests have their first 12 digits alone."""
    return _DIGEST.sub(r"\1", text)


def size_text(size: int | None) -> str:
    """Return a number of bytes in the unit that fits, such as ``12.3 MB``; ``?`` for None."""
    if size is None:
        return "?"
    value, unit = float(size), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 or value >= 100 else f"{value:.1f} {_UNITS[unit]}"


def _time(at: int | datetime.datetime) -> datetime.datetime:
    return at if isinstance(at, datetime.datetime) else clock.to_datetime(at)


def moment(at: int | datetime.datetime) -> str:
    """Return a time to the minute, in UTC."""
    return f"{_time(at):%Y-%m-%d %H:%M}"


def iso(at: int | datetime.datetime) -> str:
    """Return a time to the second, in UTC, as RFC 3339 has it."""
    return f"{_time(at):%Y-%m-%dT%H:%M:%SZ}"


def ago(at: int | datetime.datetime, now: int) -> str:
    """Return how long before ``now`` a time was, in its largest unit."""
    seconds = int((clock.to_datetime(now) - _time(at)).total_seconds())
    for unit, length in (("year", 31_557_600), ("month", 2_629_800), ("day", 86400), ("hour", 3600)):
        if seconds >= length:
            return f"{plural(seconds // length, unit)} ago"
    return f"{plural(seconds // 60, 'minute')} ago" if seconds >= 60 else "just now"


def capitalize_first(text: str) -> str:
    """Return a text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def lasting(since: int | datetime.datetime, until: int | datetime.datetime) -> str:
    """Return how long it was between two times, in its two largest units, such as ``3 days 4 hours``."""
    seconds = int((_time(until) - _time(since)).total_seconds())
    parts = []
    for unit, length in (("year", 31_557_600), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= length:
            parts.append(plural(seconds // length, unit))
            seconds %= length
        elif parts:
            break
    return " ".join(parts[:2]) or "less than a second"


def count(number: int) -> str:
    """Return a number with a thin space between thousands."""
    return f"{number:,}".replace(",", "\u202f")


def plural(number: int, noun: str) -> str:
    """Return a number with its noun in the right form."""
    if number == 1:
        return f"1 {noun}"
    ending = f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeiou" else f"{noun}s"
    return f"{count(number)} {ending}"
