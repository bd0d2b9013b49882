"""The failed logins at all nodes of a registry, in rows: one for each network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import text

from digestry.coordination.postgresql.connections import Connections
from digestry.coordination.postgresql.statements import MICROSECONDS, NOW

_MOST: Final = 10_000
_ADD: Final = text(
    "INSERT INTO login_failures (source, strikes, expires_at)"
    f" SELECT source, strikes, {NOW} + CAST(:seconds AS bigint)"
    " FROM unnest(CAST(:sources AS text[]), CAST(:strikes AS bigint[])) AS added (source, strikes)"
    " ON CONFLICT (source) DO UPDATE SET expires_at = excluded.expires_at, strikes = greatest(0,"
    f" CASE WHEN login_failures.expires_at > {NOW} THEN greatest(0, login_failures.strikes) ELSE 0 END"
    " + excluded.strikes)"
)
_FORGET: Final = text(
    "DELETE FROM login_failures WHERE source IN"
    f" (SELECT source FROM login_failures WHERE expires_at <= {NOW} LIMIT 100)"
)
_SUSPECTS: Final = text(
    "SELECT source, strikes FROM login_failures"
    f" WHERE strikes > :more_than AND expires_at > {NOW} ORDER BY expires_at DESC LIMIT {_MOST}"
)


class LoginFailureRows:
    """The strikes in the table ``login_failures``."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def add(self, strikes: Mapping[str, int], seconds: float) -> None:
        """Add to the strikes of networks; see :meth:`LoginFailures.add`."""
        sources = sorted(strikes)  # in one order at all nodes: none waits for another in a circle
        values = {
            "sources": sources,
            "strikes": [strikes[source] for source in sources],
            "seconds": int(seconds * MICROSECONDS),
        }
        with self._connections.statements() as connection:
            connection.execute(_ADD, values)

    def suspects(self, more_than: int) -> dict[str, int]:
        """Return the networks with more strikes than that; see :meth:`LoginFailures.suspects`."""
        with self._connections.statements() as connection:
            connection.execute(_FORGET)
            rows = connection.execute(_SUSPECTS, {"more_than": more_than}).all()
        return {row.source: row.strikes for row in rows}
