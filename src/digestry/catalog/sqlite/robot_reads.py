"""Look-ups of robot tokens on the event loop, in microseconds: one bare SQLite connection."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from digestry.catalog import clock
from digestry.catalog.robot_tokens import RobotToken, fingerprint, hash_of
from digestry.catalog.sqlite.connection import connect_directly
from digestry.errors import StorageError

_COLUMNS: Final = "SELECT name, secret_hash, created_at, expires_at, revoked_at, place FROM robot_tokens"
_BY_SECRET: Final = f"{_COLUMNS} WHERE secret_hash = ?"
_BY_NAME: Final = f"{_COLUMNS} WHERE name = ?"


class SqliteRobotReads:
    """The :class:`~digestry.catalog.robot_tokens.RobotReads` of a file. For one thread; no call suspends."""

    def __init__(self, path: Path, now: clock.Clock) -> None:
        self._path = path
        self._connection = connect_directly(path)
        self._now = now

    async def by_secret(self, secret: str) -> RobotToken | None:
        """Return the token of this secret, if it can be used now. Raises :class:`StorageError`."""
        return self._read(_BY_SECRET, hash_of(secret))

    async def by_name(self, name: str) -> RobotToken | None:
        """Return the token of this name, if it can be used now. Raises :class:`StorageError`."""
        return self._read(_BY_NAME, name)

    def _read(self, query: str, value: str) -> RobotToken | None:
        try:
            row = self._connection.execute(query, (value,)).fetchone()
        except sqlite3.Error as error:
            raise StorageError(f"the catalog {self._path} cannot be read: {error}") from error
        if row is None:
            return None
        token = RobotToken(row[0], fingerprint(row[1]), row[2], row[3], row[4], row[5])
        return token if token.holds(self._now()) else None

    async def close(self) -> None:
        """End the connection."""
        self._connection.close()
