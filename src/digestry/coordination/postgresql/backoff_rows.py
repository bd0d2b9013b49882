"""The back-offs from upstreams, in rows: all nodes obey a back-off that one of them received."""

from __future__ import annotations

import logging
from typing import Final

from sqlalchemy import text

from digestry.coordination.postgresql.connections import Connections
from digestry.coordination.postgresql.statements import MICROSECONDS, NOW
from digestry.errors import StorageError

log: Final = logging.getLogger("digestry.registry")

_HOLD: Final = text(
    "INSERT INTO upstream_limits (host, expires_at, reason)"
    f" VALUES (:host, {NOW} + CAST(:seconds AS bigint), :reason)"
    " ON CONFLICT (host) DO UPDATE SET expires_at = excluded.expires_at, reason = excluded.reason"
)
_LIFT: Final = text("DELETE FROM upstream_limits WHERE host = :host")
_REMAINING: Final = text(
    f"SELECT expires_at - {NOW} AS remaining, reason FROM upstream_limits WHERE host = :host"
)


class BackoffRow:
    """The back-off from the upstream ``host``. No longer than ``longest`` seconds."""

    def __init__(self, connections: Connections, host: str, *, longest: float) -> None:
        self._connections = connections
        self._host = host
        self._longest = longest

    def start(self, seconds: float, why: str) -> None:
        """Start the back-off; see :meth:`Backoff.start`."""
        values = {"host": self._host, "seconds": int(seconds * MICROSECONDS), "reason": why}
        try:
            with self._connections.statements() as connection:
                connection.execute(_HOLD, values)
        except StorageError as error:
            log.error("other nodes do not learn that %s is left alone: %s", self._host, error.message)

    def end(self) -> None:
        """End the back-off; see :meth:`Backoff.end`."""
        try:
            with self._connections.statements() as connection:
                connection.execute(_LIFT, {"host": self._host})
        except StorageError as error:
            log.error("other nodes do not learn that %s answers again: %s", self._host, error.message)

    def remaining(self) -> tuple[float, str]:
        """Return the seconds that are left, and the reason; see :meth:`Backoff.remaining`."""
        try:
            with self._connections.statements() as connection:
                row = connection.execute(_REMAINING, {"host": self._host}).first()
        except StorageError:
            return 0.0, ""
        left = 0.0 if row is None else row.remaining / MICROSECONDS
        # A clock that was set back must not make it longer than it can have been.
        return (left, row.reason) if row is not None and 0 < left <= self._longest else (0.0, "")
