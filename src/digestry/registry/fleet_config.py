"""The ``[fleet]`` section of the configuration: how long what agents reported is kept (docs/registry.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from digestry.catalog.retention_rules import DAY
from digestry.registry import toml
from digestry.registry.toml import Key, Where

KEYS: Final = (Key("keep", toml.unless_off(toml.span(DAY, 36500 * DAY)), 400 * DAY),)


@dataclass(frozen=True, slots=True)
class FleetConfig:
    """For how many seconds a run is kept after its end, and a place after it was confirmed last; None for
    ever."""

    keep: float | None = 400 * DAY


def parse(sections: Mapping[str, object], where: Where) -> FleetConfig:
    """Read the section. Raises :class:`InvalidConfiguration`."""
    return FleetConfig(**toml.read(sections.get("fleet", {}), KEYS, Where(where.file, "fleet")))
