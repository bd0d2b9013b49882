"""The challenges in ``WWW-Authenticate`` headers (RFC 9110, section 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - a grammar, not a secret
_PARAMETER: Final = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*(?:,|$)')
_SCHEME: Final = re.compile(rf"[\s,]*({_TOKEN})(?:\s+|,|$)")
_LONGEST: Final = 8192


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge. ``scheme`` is in lower case; ``parameters`` have lower-case names."""

    scheme: str
    parameters: dict[str, str]


def parse(values: Iterable[str]) -> list[Challenge]:
    """Return the challenges in the header's values, in order. A malformed challenge ends its value."""
    found: list[Challenge] = []
    for value in values:
        text = value[:_LONGEST]
        position = 0
        while scheme := _SCHEME.match(text, position):
            if scheme.end() == scheme.start():
                break
            position = scheme.end()
            parameters: dict[str, str] = {}
            while parameter := _PARAMETER.match(text, position):
                name, quoted, plain = parameter.groups()
                parameters.setdefault(
                    name.lower(), re.sub(r"\\(.)", r"\1", quoted) if plain is None else plain
                )
                position = parameter.end()
            found.append(Challenge(scheme[1].lower(), parameters))
    return found
