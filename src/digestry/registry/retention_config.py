"""The ``[collection]`` and ``[[retention]]`` sections of the configuration (docs/collection.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from digestry.catalog.retention_rules import DAY, Retention, TagRetention
from digestry.coordination.note_files import SUFFIX
from digestry.coordination.protocol import Notes
from digestry.errors import InvalidConfiguration, StorageError
from digestry.model.json_types import prepared
from digestry.model.text import length_of_time
from digestry.registry import toml
from digestry.registry.immutability_config import patterns
from digestry.registry.toml import Key, Where

_NOTE: Final = "kept"
FILE: Final = f"{_NOTE}{SUFFIX}"
"""The file in the root with the retention of the registry that was served there last."""

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


def record_served_retention(notes: Notes, retention: Retention) -> None:
    """Record the served registry's retention for :func:`check_against_served`.

    Raises :class:`StorageError`.
    """
    content = msgspec.json.encode(_Kept(retention.untagged, retention.sighted))
    with contextlib.suppress(StorageError):
        if notes.read(_NOTE) == content:
            return
    notes.write(_NOTE, content)


def check_against_served(notes: Notes, retention: Retention) -> None:
    """Check that ``retention``, a default, removes nothing that the served registry keeps.

    Raises :class:`InvalidConfiguration` if it does, :class:`StorageError` if that cannot be known.
    """
    content = notes.read(_NOTE)
    if content is None:
        return  # it was never served, or not since digestry notes that
    try:
        kept = msgspec.json.decode(content, type=prepared(_Kept))
    except (ValueError, RecursionError) as error:
        raise StorageError(
            f"{notes.location(_NOTE)} is damaged: {error}",
            hint="give --config; the server's next start writes it anew",
        ) from error
    for key, served, mine in (
        ("untagged", kept.untagged, retention.untagged),
        ("sighted", kept.sighted, retention.sighted),
    ):
        if mine is not None and (served is None or mine < served):
            long = "off" if served is None else length_of_time(served)
            raise InvalidConfiguration(
                f"the registry is served with {key} = {long}; without a configuration, what that keeps would"
                f" go after {length_of_time(mine)} ({notes.location(_NOTE)})",
                hint="give the server's registry.toml with --config",
            )
