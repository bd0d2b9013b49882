"""Label selectors in the text form of Kubernetes: ``env=prod, tier in (web, api), !legacy``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

_NAME: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_KEY: Final = rf"(?:[a-z0-9](?:[a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_NAME}"
_VALUE: Final = rf"(?:{_NAME})?"
_EQUALS: Final = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})", re.ASCII)
_IN: Final = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)", re.ASCII)
_EXISTS: Final = re.compile(rf"(!?)\s*({_KEY})", re.ASCII)
_PARTS: Final = re.compile(r",(?![^(]*\))")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on a label. ``values`` are those of ``in`` and ``notin``."""

    key: str
    operator: Literal["in", "notin", "exists", "absent"]
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether ``labels`` meet it. As in Kubernetes, ``notin`` and ``!=`` hold for a label that is
        not there."""
        value = labels.get(self.key)
        if self.operator == "exists":
            return value is not None
        if self.operator == "absent":
            return value is None
        return (value in self.values) == (self.operator == "in")


@dataclass(frozen=True, slots=True)
class Selector:
    """Requirements that all have to be met; any labels meet none."""

    requirements: tuple[Requirement, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.requirements)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether ``labels`` meet all requirements."""
        return all(requirement.matches(labels) for requirement in self.requirements)


EVERYTHING: Final = Selector()


def parse_selector(text: str) -> Selector:
    """Parse the text form. Raises :class:`ValueError`, which says what is wrong."""
    if not text.strip():
        return EVERYTHING
    return Selector(tuple(_requirement(part.strip()) for part in _PARTS.split(text)))


def _requirement(text: str) -> Requirement:
    found = _EQUALS.fullmatch(text)
    if found is not None:
        return Requirement(found[1], "notin" if found[2] == "!=" else "in", frozenset({found[3]}))
    found = _IN.fullmatch(text)
    if found is not None:
        values = [value.strip() for value in found[3].split(",")]
        wrong = next((value for value in values if re.fullmatch(_VALUE, value, re.ASCII) is None), None)
        if wrong is not None:
            raise ValueError(f"{wrong!r} is not the value of a label")
        return Requirement(found[1], "in" if found[2] == "in" else "notin", frozenset(values))
    found = _EXISTS.fullmatch(text)
    if found is not None:
        return Requirement(found[2], "absent" if found[1] else "exists")
    raise ValueError(
        f"{text!r} is not a requirement of labels: write key=value, key!=value, key in (a, b),"
        " key notin (a, b), key or !key"
    )
