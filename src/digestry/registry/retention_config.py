"""The ``[collection]`` and ``[[retention]]`` sections of the configuration (docs/collection.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from digestry import fsio
from digestry.catalog.retention_rules import DAY, Retention, TagRetention
from digestry.errors import InvalidConfiguration, StorageError
from digestry.model.text import length_of_time
from digestry.registry import toml
from digestry.registry.immutability_config import patterns
from digestry.registry.toml import Key, Where

FILE: Final = "kept.json"
"""In the root: how long the registry that was served there last keeps things."""

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


class _Kept(msgspec.Struct, frozen=True):
    untagged: float | None
    sighted: float | None


def record_served_retention(root: Path, retention: Retention) -> None:
    """Record the served registry's retention for :func:`check_against_served`."""
    content = msgspec.json.encode(_Kept(retention.untagged, retention.sighted))
    try:
        if fsio.read_file(root / FILE) == content:
            return
    except OSError:
        pass
    fsio.write_file(root / FILE, content)


def check_against_served(root: Path, retention: Retention) -> None:
    """Check that ``retention``, a default, removes nothing that the registry served from ``root`` keeps.

    Raises :class:`InvalidConfiguration` if it does, :class:`StorageError` if that cannot be known.
    """
    try:
        kept = msgspec.json.decode(fsio.read_file(root / FILE), type=_Kept)
    except FileNotFoundError:
        return  # it was never served, or not since digestry notes that
    except OSError as error:
        raise fsio.storage_error("read", root / FILE, error) from error
    except (ValueError, RecursionError) as error:
        raise StorageError(
            f"{root / FILE} is damaged: {error}", hint="give --config; the server's next start mends it"
        ) from error
    for key, served, mine in (
        ("untagged", kept.untagged, retention.untagged),
        ("sighted", kept.sighted, retention.sighted),
    ):
        if mine is not None and (served is None or mine < served):
            long = "off" if served is None else length_of_time(served)
            raise InvalidConfiguration(
                f"the registry under {root} is served with {key} = {long}; without a configuration, what that"
                f" keeps would go after {length_of_time(mine)}",
                hint="give the server's registry.toml with --config",
            )
