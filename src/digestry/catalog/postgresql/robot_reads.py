"""Look-ups of robot tokens on the event loop, gathered into one statement for all that wait."""

from __future__ import annotations

from typing import Final

from digestry.catalog import clock
from digestry.catalog.postgresql.address import DatabaseAddress
from digestry.catalog.postgresql.batched_lookups import BatchedLookups, Question, question
from digestry.catalog.robot_tokens import RobotToken, fingerprint, hash_of

_COLUMNS: Final = (
    "SELECT w.number, t.name, t.secret_hash, t.created_at, t.expires_at, t.revoked_at, t.place"
    " FROM unnest((SELECT $1::text[])) WITH ORDINALITY AS w(wanted, number) JOIN robot_tokens t"
)
_BY_SECRET: Final = question(f"{_COLUMNS} ON t.secret_hash = w.wanted")
_BY_NAME: Final = question(f"{_COLUMNS} ON t.name = w.wanted")


class PostgresqlRobotReads:
    """The :class:`~digestry.catalog.robot_tokens.RobotReads` of a database. Connects at the first query."""

    def __init__(self, address: DatabaseAddress, now: clock.Clock) -> None:
        self._gathering = BatchedLookups(address, connections=1)
        self._now = now

    async def by_secret(self, secret: str) -> RobotToken | None:
        """Return the token of this secret, if it can be used now. Raises :class:`StorageError`."""
        return await self._read(_BY_SECRET, hash_of(secret))

    async def by_name(self, name: str) -> RobotToken | None:
        """Return the token of this name, if it can be used now. Raises :class:`StorageError`."""
        return await self._read(_BY_NAME, name)

    async def _read(self, question: Question, value: str) -> RobotToken | None:
        row = await self._gathering.ask(question, (value,))
        if row is None:
            return None
        token = RobotToken(row[0], fingerprint(row[1]), row[2], row[3], row[4], row[5])
        return token if token.holds(self._now()) else None

    async def close(self) -> None:
        """End the connection."""
        await self._gathering.close()
