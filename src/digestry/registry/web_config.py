"""The ``[web]`` section of the configuration (docs/web.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from digestry.registry import toml
from digestry.registry.toml import Key, Where

KEYS: Final = (
    Key("enabled", toml.flag, True),
    Key("idle", toml.span(60, 90 * 86400), 12 * 3600.0),
    Key("session", toml.span(60, 366 * 86400), 7 * 86400.0),
)


@dataclass(frozen=True, slots=True)
class WebConfig:
    """The configured pages. A session ends ``idle`` seconds after its last request, and ``session`` seconds
    after its sign-in."""

    enabled: bool = True
    idle: float = 12 * 3600.0
    session: float = 7 * 86400.0


def parse(sections: Mapping[str, object], where: Where) -> WebConfig:
    """Read the section. Raises :class:`InvalidConfiguration`."""
    return WebConfig(**toml.read(sections.get("web", {}), KEYS, Where(where.file, "web")))
