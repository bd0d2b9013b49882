"""A reader of ``registry.toml``: each section declares its keys once, with their kinds and defaults.

A section's module has a tuple of :class:`Key` and a function from :func:`read` 's values to a frozen
object; :mod:`digestry.registry.config` hangs the objects together. docs/registry.md lists the same
keys, which a test compares.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from digestry.errors import InvalidConfiguration
from digestry.model.digest import shown
from digestry.model.text import did_you_mean, length_of_time

_UNITS: Final = {"": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
_SPANS: Final = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?(s|min|h|d|w)", re.ASCII)
_SIZE: Final = re.compile(r"([0-9]{1,15}) ?([KMGT]iB)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Where:
    """The section of the file that is read, for messages."""

    file: Path
    section: str = ""

    def wrong(self, what: str, *, hint: str = "") -> InvalidConfiguration:
        """Return the error with the message ``what`` and this location."""
        place = f"{self.file}: [{self.section}]" if self.section else str(self.file)
        return InvalidConfiguration(f"{place}: {what}", hint=hint)


Kind = Callable[[object, Where], object]
"""Checks a TOML value and returns it converted. Raises ValueError, saying what is required."""

Values = dict[str, Any]
"""The values of a section, by field name. Each has the type that its key's kind returns, which only the
declaration of the keys states: hence ``Any``."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section. A ``default`` of ``...`` means that the key must be given."""

    name: str
    kind: Kind
    default: object = ...

    @property
    def field(self) -> str:
        """The name as Python has it."""
        return self.name.replace("-", "_")


def read(table: object, keys: Iterable[Key], where: Where) -> Values:
    """Return the values of a section, defaults filled in.

    Raises :class:`InvalidConfiguration` for an unknown key, a missing one, or one of a wrong kind.
    """
    if not isinstance(table, dict):
        raise where.wrong("a table is required")
    known = {key.name: key for key in keys}
    for name in table:
        if name not in known:
            suggestion = did_you_mean(name, known)
            raise where.wrong(
                f"unknown key {shown(name)}{suggestion}", hint=f"the keys are: {', '.join(known)}"
            )
    values: Values = {}
    for key in known.values():
        if key.name not in table:
            if key.default is ...:
                raise where.wrong(f"the key {key.name} is missing")
            values[key.field] = key.default
            continue
        try:
            values[key.field] = key.kind(table[key.name], where)
        except ValueError as error:
            raise where.wrong(f"{key.name}: {error}") from error
    return values


def tables(document: Mapping[str, object], name: str, where: Where) -> list[tuple[object, Where]]:
    """Return the tables of ``[[name]]``, each with its location."""
    found = document.get(name, [])
    if not isinstance(found, list):
        raise where.wrong(f"{name} is a list of tables: write [[{name}]]")
    return [(table, Where(where.file, f"{name} {number}")) for number, table in enumerate(found, 1)]


# -- kinds --------------------------------------------------------------------------------------


def text(value: object, _: Where) -> str:
    """Return a string that is not empty."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("a string is required")
    return value


def http_address(text: str) -> SplitResult | None:
    """Return the parts of an ``http`` or ``https`` URL with a host; None for any other text."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if good else None


def texts(value: object, where: Where) -> tuple[str, ...]:
    """Return strings, from a list or from a single one."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value:
        raise ValueError("a list of strings is required")
    return tuple(text(item, where) for item in value)


def flag(value: object, _: Where) -> bool:
    """Return ``true`` or ``false``."""
    if not isinstance(value, bool):
        raise ValueError("true or false is required")
    return value


def file(value: object, where: Where) -> Path:
    """Return a path; a relative one counts from the configuration file's directory."""
    return where.file.parent / text(value, where)


def size(value: object, _: Where) -> int:
    """Return a number of bytes, from a number or a string such as ``"10 GiB"``."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('a number of bytes is required, or a string such as "10 GiB"')
    return int(found[1]) * _UNITS[(found[2] or "").lower()]


def whole(least: int, most: int) -> Kind:
    """Return the kind of a whole number from ``least`` to ``most``."""

    def kind(value: object, _: Where) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"a whole number from {least} to {most} is required")
        return value

    return kind


def seconds(least: float, most: float) -> Callable[[object, Where], float]:
    """Return the kind of a number of seconds from ``least`` to ``most``."""

    def kind(value: object, _: Where) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"a number of seconds from {least:.10g} to {most:.10g} is required")
        return float(value)

    return kind


def span(least: float, most: float) -> Kind:
    """Return the kind of a length of time: seconds from ``least`` to ``most``, or a string such as
    ``"90d"``."""

    def kind(value: object, where: Where) -> float:
        found = _SPAN.fullmatch(value) if isinstance(value, str) else None
        if found is None and isinstance(value, str):
            raise ValueError('seconds are required, or a string such as "90d", "12h", "15min" or "30s"')
        length = value if found is None else float(found[1]) * _SPANS[found[2]]
        try:
            return seconds(least, most)(length, where)
        except ValueError:
            range_ = f"from {length_of_time(least)} to {length_of_time(most)}"
            raise ValueError(f'a length of time {range_} is required, in seconds or such as "90d"') from None

    return kind


def unless_off(kind: Kind) -> Kind:
    """Return ``kind``, extended by ``"off"``, which is None."""

    def either(value: object, where: Where) -> object:
        return None if value == "off" else kind(value, where)

    return either


def unless_empty(kind: Kind) -> Kind:
    """Return ``kind``, extended by an empty list."""

    def either(value: object, where: Where) -> object:
        return () if value == [] else kind(value, where)

    return either


def one_of(*choices: str) -> Kind:
    """Return the kind of one of some words."""

    def kind(value: object, _: Where) -> str:
        if value not in choices:
            raise ValueError(f"one of {', '.join(choices)} is required, not {shown(str(value))}")
        return str(value)

    return kind
