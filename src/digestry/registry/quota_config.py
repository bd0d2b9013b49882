"""The ``[[quota]]`` sections of the configuration (docs/registry.md)."""

from __future__ import annotations

from typing import Final

from digestry.catalog.quotas import Quota
from digestry.errors import InvalidConfiguration
from digestry.model.name_pattern import check_pattern
from digestry.registry import toml
from digestry.registry.toml import Key, Where

KEYS: Final = (
    Key("repository", toml.text, "**"),
    Key("bytes", toml.size, None),
    Key("tags", toml.whole(0, 100_000_000), None),
    Key("each", toml.one_of("repository", "pattern"), "repository"),
)


def parse(table: object, where: Where) -> Quota:
    """Read one ``[[quota]]`` section. Raises :class:`InvalidConfiguration`."""
    values = toml.read(table, KEYS, where)
    if values["bytes"] is None and values["tags"] is None:
        raise where.wrong("it limits nothing: give bytes, tags, or both")
    try:
        pattern = check_pattern(values.pop("repository"))
    except InvalidConfiguration as error:
        raise where.wrong(f"repository: {error.message}", hint=error.hint) from error
    return Quota(pattern, **values)
