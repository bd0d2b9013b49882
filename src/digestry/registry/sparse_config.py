"""The ``[[sparse]]`` sections: repositories whose indexes may list missing manifests (docs/registry.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from digestry.registry import toml
from digestry.registry.immutability_config import patterns
from digestry.registry.toml import Key, Where

KEYS: Final = (Key("repository", patterns),)


def parse(document: Mapping[str, object], where: Where) -> tuple[str, ...]:
    """Return the patterns of all tables of a document. Raises :class:`InvalidConfiguration`."""
    return tuple(
        pattern
        for table, here in toml.tables(document, "sparse", where)
        for pattern in toml.read(table, KEYS, here)["repository"]
    )
