"""The ``[metrics]``, ``[health]`` and ``[log]`` sections of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from digestry.registry import toml
from digestry.registry.toml import Key, Where

AUDIT_FILE: Final = "audit.log"
"""The audit log's name below the root, unless the configuration has another place for it."""
OFF: Final = "off"
STDERR: Final = "stderr"


def _audit(value: object, where: Where) -> Path | str:
    return str(value) if value in {OFF, STDERR} else toml.file(value, where)


METRICS_KEYS: Final = (
    Key("enabled", toml.flag, True),
    Key("who", toml.texts, ()),
)
HEALTH_KEYS: Final = (Key("free", toml.size, 64 << 20),)
LOG_KEYS: Final = (
    Key("format", toml.one_of("text", "json"), "text"),
    Key("requests", toml.one_of("none", "errors", "all"), "errors"),
    Key("audit", _audit, None),
    Key("audit-size", toml.size, 64 << 20),
    Key("audit-files", toml.whole(0, 1000), 8),
)


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """The users who may read ``/metrics`` of a registry with logins: those that match ``who``, as in a rule;
    without any, those who may administer every repository."""

    enabled: bool = True
    who: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """The health check's limit: with fewer than ``free`` bytes free on the root's file system the registry is
    not ready."""

    free: int = 64 << 20


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The log's format, the requests that it contains, and the audit log's destination.

    ``audit`` is a file, ``stderr``, ``off``, or None for :data:`AUDIT_FILE` below the root. A file that is
    larger than ``audit_size`` bytes is put aside, and ``audit_files`` of those are kept; with a size of
    0 it never is.
    """

    format: str = "text"
    requests: str = "errors"
    audit: Path | str | None = None
    audit_size: int = 64 << 20
    audit_files: int = 8

    def audit_file(self, root: Path) -> Path | None:
        """Return the audit log's file; None if it is not a file."""
        if self.audit is None:
            return root / AUDIT_FILE
        return self.audit if isinstance(self.audit, Path) else None

    def for_anonymous_refusals(self, root: Path) -> LogConfig:
        """Return the configuration of the log of refused anonymous requests: a second file beside the audit
        log.

        Where it goes to a pipe or a device, there is no other, and nothing that could be put aside.
        """
        file = self.audit_file(root)
        if file is None or file.is_relative_to("/dev") or file.is_relative_to("/proc"):
            return self
        if file.exists() and not file.is_file():
            return self
        return replace(self, audit=file.with_name(f"{file.stem}-refused{file.suffix}"))


def metrics(document: Mapping[str, object], where: Where) -> MetricsConfig:
    """Read ``[metrics]`` of a document. Raises :class:`InvalidConfiguration`."""
    return MetricsConfig(**_section(document, "metrics", METRICS_KEYS, where))


def health(document: Mapping[str, object], where: Where) -> HealthConfig:
    """Read ``[health]`` of a document. Raises :class:`InvalidConfiguration`."""
    return HealthConfig(**_section(document, "health", HEALTH_KEYS, where))


def log(document: Mapping[str, object], where: Where) -> LogConfig:
    """Read ``[log]`` of a document. Raises :class:`InvalidConfiguration`."""
    return LogConfig(**_section(document, "log", LOG_KEYS, where))


def _section(document: Mapping[str, object], name: str, keys: tuple[Key, ...], where: Where) -> toml.Values:
    return toml.read(document.get(name, {}), keys, Where(where.file, name))
