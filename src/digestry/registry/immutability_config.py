"""The ``[[immutability]]`` sections: which tags may move (docs/tags.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from digestry.catalog.tag_policy import MODES, TagPolicy, TagRule
from digestry.errors import InvalidConfiguration
from digestry.model.name_pattern import check_pattern
from digestry.registry import toml
from digestry.registry.toml import Key, Where


def patterns(value: object, where: Where) -> tuple[str, ...]:
    """Read a list of patterns of names, or a single one."""
    found = toml.texts(value, where)
    for pattern in found:
        try:
            check_pattern(pattern)
        except InvalidConfiguration as error:
            raise ValueError(f"{error.message} ({error.hint})") from error
    return found


KEYS: Final = (
    Key("mode", toml.one_of(*MODES)),
    Key("repository", patterns, ("**",)),
    Key("tag", patterns, ("*",)),
    Key("exclude", toml.unless_empty(patterns), ()),
    Key("deletable", toml.flag, None),
)


def parse(document: Mapping[str, object], where: Where) -> TagPolicy:
    """Read the sections of a document, in order. Raises :class:`InvalidConfiguration`."""
    rules = []
    for table, here in toml.tables(document, "immutability", where):
        values = toml.read(table, KEYS, here)
        rules.append(
            TagRule(
                mode=values["mode"],
                repositories=values["repository"],
                tags=values["tag"],
                exclude=values["exclude"],
                deletable=values["deletable"],
            )
        )
    return TagPolicy(tuple(rules))
