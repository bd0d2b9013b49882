"""The ``[scan]`` section: a scanner that looks at the images that run (docs/fleet.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from digestry.registry import toml
from digestry.registry.toml import Key, Where

LEAST_MEMORY: Final = 64 << 20
"""Bytes that a scan takes at the least."""

_SEVERITIES: Final = ("negligible", "low", "medium", "high", "critical")


def _severity(value: object, where: Where) -> str:
    text = toml.text(value, where)
    if text not in _SEVERITIES:
        raise ValueError(f"one of {', '.join(_SEVERITIES)} is required")
    return text


def _memory(value: object, where: Where) -> int:
    found = toml.size(value, where)
    if found < LEAST_MEMORY:
        raise ValueError(f"{LEAST_MEMORY >> 20} MiB or more are required")
    return found


KEYS: Final = (
    Key("every", toml.unless_off(toml.span(60, 366 * 86400)), 86400.0),
    Key("scanner", toml.text, ""),
    Key("registry", toml.text, ""),
    Key("docker-config", toml.file, None),
    Key("severity", _severity, ""),
    Key("timeout-seconds", toml.seconds(1, 86400), 1800.0),
    Key("memory", _memory, 2 << 30),
)


@dataclass(frozen=True, slots=True)
class ScanConfig:
    """When and how images that run are scanned.

    ``every`` is seconds between two scans of one image (None: no scans). ``scanner`` is as for ``digestry
    scan``; ``registry`` is where the registry is reached, by default the address that it listens on, and
    ``docker_config`` a folder with the login for it. ``severity`` leaves out what is less severe. A scan may
    take ``timeout`` seconds, and ``memory`` bytes.
    """

    every: float | None = None
    scanner: str = ""
    registry: str = ""
    docker_config: Path | None = None
    severity: str = ""
    timeout: float = 1800.0
    memory: int = 2 << 30


def parse(sections: Mapping[str, object], where: Where) -> ScanConfig:
    """Read ``[scan]``; without it nothing is scanned. Raises :class:`InvalidConfiguration`."""
    if "scan" not in sections:
        return ScanConfig()
    values = toml.read(sections["scan"], KEYS, Where(where.file, "scan"))
    return ScanConfig(
        every=values["every"],
        scanner=values["scanner"],
        registry=values["registry"],
        docker_config=values["docker_config"],
        severity=values["severity"],
        timeout=values["timeout_seconds"],
        memory=values["memory"],
    )
