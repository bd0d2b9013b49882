"""The ``[[min-age]]`` sections: for how long a digest must have stood under a tag (docs/min-age.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from digestry.catalog import clock
from digestry.catalog.age_policy import AgePolicy, AgeRule
from digestry.registry import toml
from digestry.registry.immutability_config import patterns
from digestry.registry.pull_through.config import MirrorConfig
from digestry.registry.toml import Key, Where

SECTION: Final = "min-age"
LONGEST: Final = 3650 * 86400.0
"""The longest minimum age, in seconds."""

KEYS: Final = (
    Key("age", toml.unless_off(toml.span(1, LONGEST))),
    Key("repository", patterns, ("**",)),
    Key("tag", patterns, ("*",)),
    Key("exclude", toml.unless_empty(patterns), ()),
    Key("advisories", toml.one_of("signed", "any", "off"), "signed"),
)


def parse(document: Mapping[str, object], where: Where, mirrors: Iterable[MirrorConfig] = ()) -> AgePolicy:
    """Read the sections of a document, in order; the ``min-age`` of a mirror is a rule after them, for all
    that it has. Raises :class:`InvalidConfiguration`."""
    rules = []
    for table, here in toml.tables(document, SECTION, where):
        values = toml.read(table, KEYS, here)
        rules.append(
            AgeRule(
                age=_microseconds(values["age"]),
                repositories=values["repository"],
                tags=values["tag"],
                exclude=values["exclude"],
                advice=values["advisories"],
            )
        )
    rules += [
        AgeRule(
            age=_microseconds(mirror.min_age),
            repositories=(f"{mirror.prefix}/**",),
            advice=mirror.advisories,
        )
        for mirror in mirrors
        if mirror.min_age
    ]
    return AgePolicy(tuple(rules))


def _microseconds(seconds: float | None) -> int:
    return 0 if seconds is None else int(seconds * clock.SECOND)
