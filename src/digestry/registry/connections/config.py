"""The ``[limits]`` keys for connections, and the address to listen on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from digestry.errors import InvalidConfiguration
from digestry.model.digest import shown
from digestry.registry import toml
from digestry.registry.toml import Key, Where

UNIX: Final = "unix:"
"""How an address to listen on begins that is a socket's path."""

_MODE: Final = re.compile(r"0?[0-7]{3}", re.ASCII)
_LONGEST_PATH: Final = 107  # sun_path, unix(7), without its closing null


def _mode(value: object, _: Where) -> str:
    if not isinstance(value, str) or not _MODE.fullmatch(value):
        raise ValueError('permissions are required as chmod takes them, in quotes, such as "0660"')
    return value


LISTEN_KEYS: Final = (
    Key("http2", toml.flag, False),
    Key("socket-mode", _mode, "0660"),
)
LIMIT_KEYS: Final = (
    Key("connections", toml.whole(16, 1_000_000), 8192),
    Key("connections-per-address", toml.whole(1, 1_000_000), 2048),
    Key("header-seconds", toml.seconds(1, 600), 30.0),
    Key("body-seconds", toml.seconds(1, 3600), 120.0),
    Key("least-rate", toml.size, 1 << 10),
    Key("worker-seconds", toml.seconds(2, 600), 15.0),
)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limits of connections in one worker process. Sizes in bytes, times in seconds."""

    total: int = 8192
    per_address: int = 2048
    """Of one address; of IPv6, of one /64. This machine and trusted proxies have no such limit."""
    header_seconds: float = 30.0
    """How long a connection may be open without a request: a new one until its first request's headers are
    there, TLS included, and a used one until the next."""
    body_seconds: float = 120.0
    """A request whose body stops coming, or whose answer is not taken, for so long is given up."""
    least_rate: int = 1 << 10
    """The least rate of a body, and of a client's reading of an answer, in bytes per second over
    ``body_seconds``."""
    worker_seconds: float = 15.0
    """A worker process that gives no sign of life for so long is replaced."""


def limits(values: toml.Values) -> ConnectionLimits:
    """Return the limits from the values that :data:`LIMIT_KEYS` read."""
    return ConnectionLimits(
        total=values["connections"],
        per_address=values["connections_per_address"],
        header_seconds=values["header_seconds"],
        body_seconds=values["body_seconds"],
        least_rate=values["least_rate"],
        worker_seconds=values["worker_seconds"],
    )


def socket_path(listen: str, base: Path) -> Path | None:
    """Return the path of a ``unix:PATH`` address, relative to ``base``; None for any other address.

    Raises :class:`InvalidConfiguration` for a path that no socket can have.
    """
    if not listen.startswith(UNIX):
        return None
    text = listen.removeprefix(UNIX)
    path = (base / text).absolute()
    if not text or len(str(path).encode()) > _LONGEST_PATH:
        raise InvalidConfiguration(
            f"{shown(listen)} is not a socket to listen on",
            hint=f"write it as unix:PATH; the path may have {_LONGEST_PATH} bytes",
        )
    return path
