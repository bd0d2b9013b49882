"""The registry's configuration: one frozen object, built at the edge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from digestry.errors import InvalidConfiguration
from digestry.model.digest import shown

DEFAULT_LISTEN: Final = "127.0.0.1:5000"
_HIGHEST_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """How one registry runs. Sizes in bytes, times in seconds."""

    root: Path
    host: str = "127.0.0.1"
    port: int = 5000
    workers: int = 1
    manifest_limit: int = 4 << 20
    """The largest manifest that is taken; distribution-spec, "Pushing Manifests", wants 4 MiB or more."""
    upload_timeout: float = 24 * 3600.0
    """An upload that nothing was written to for so long is dropped."""
    patience: float = 120.0
    """A request whose body stops coming for so long is given up: a connection that died without a
    word must not hold its upload for ever."""


def parse_listen(text: str) -> tuple[str, int]:
    """Reads ``HOST:PORT``; port 0 means a free one. Raises :class:`InvalidConfiguration`."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > _HIGHEST_PORT:
        raise InvalidConfiguration(
            f"{shown(text)} is no address to listen on",
            hint=f"write it as HOST:PORT, such as {DEFAULT_LISTEN}",
        )
    return host, int(port)
