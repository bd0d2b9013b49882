"""The ``[collection]`` and ``[[retention]]`` sections of the configuration (docs/collection.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from digestry.catalog.retention_rules import DAY, Retention, TagRetention
from digestry.registry import toml
from digestry.registry.immutability_config import patterns
from digestry.registry.toml import Key, Where

_TEN_YEARS: Final = 3650 * DAY

COLLECTION_KEYS: Final = (
    Key("every", toml.unless_off(toml.span(0, 365 * DAY)), DAY),
    Key("lease", toml.span(1, 30 * DAY), DAY),
    Key("untagged", toml.unless_off(toml.span(0, _TEN_YEARS)), 90 * DAY),
    Key("sighted", toml.unless_off(toml.span(0, _TEN_YEARS)), 90 * DAY),
)
RETENTION_KEYS: Final = (
    Key("repository", patterns, ("**",)),
    Key("tag", patterns, ("*",)),
    Key("exclude", toml.unless_empty(patterns), ()),
    Key("keep-newest", toml.whole(0, 1_000_000), None),
    Key("keep-for", toml.span(0, _TEN_YEARS), None),
)


@dataclass(frozen=True, slots=True)
class CollectionConfig:
    """The schedule of garbage collection (None: never), and how long pushed, mounted or found content is
    leased. In seconds."""

    every: float | None = DAY
    lease: float = DAY
    retention: Retention = field(default_factory=Retention)


def parse(document: Mapping[str, object], where: Where) -> CollectionConfig:
    """Read both sections of a document. Raises :class:`InvalidConfiguration`."""
    here = Where(where.file, "collection")
    values = toml.read(document.get("collection", {}), COLLECTION_KEYS, here)
    rules = tuple(_rule(table, at) for table, at in toml.tables(document, "retention", where))
    return CollectionConfig(
        every=values["every"],
        lease=values["lease"],
        retention=Retention(rules, untagged=values["untagged"], sighted=values["sighted"]),
    )


def _rule(table: object, where: Where) -> TagRetention:
    values = toml.read(table, RETENTION_KEYS, where)
    if values["keep_newest"] is None and values["keep_for"] is None:
        raise where.wrong(
            "it would keep no tag at all",
            hint='give keep-newest, keep-for, or both; keep-for = "0s" if every tag is to go',
        )
    return TagRetention(
        repositories=values["repository"],
        tags=values["tag"],
        exclude=values["exclude"],
        newest=values["keep_newest"],
        seconds=values["keep_for"],
    )
