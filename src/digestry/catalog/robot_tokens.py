"""Robot tokens: long secrets for programs, kept as hashes, with an expiry, and revocable.

A secret is 256 random bits, which cannot be guessed, so that a fast hash is enough, and a look-up is one
indexed read.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sqlalchemy import Row, select, update

from digestry.catalog import clock, dialect
from digestry.catalog.database import Database
from digestry.catalog.schema import robot_tokens
from digestry.catalog.transactions import retried
from digestry.errors import Conflict, NotFound

PREFIX: Final = "dgr_"
"""The prefix of every secret, by which scanners find leaked secrets."""


@dataclass(frozen=True, slots=True)
class RobotToken:
    """A token, without its secret; times in microseconds since 1970, None for never.

    ``place`` is where an agent's token may report from, which may do nothing else; None for other tokens.
    """

    name: str
    fingerprint: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    place: str | None = None

    def holds(self, now: int) -> bool:
        """Return whether it can be used at that time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def hash_of(secret: str) -> str:
    """Return the hash that is stored in place of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


class RobotTokens:
    """The robot tokens of a registry, for its operator. Blocks."""

    def __init__(self, database: Database, *, now: clock.Clock = clock.now) -> None:
        self._database = database
        self._now = now

    def close(self) -> None:
        """End the connections to the database."""
        self._database.close()

    @retried
    def create(self, name: str, *, expires_at: int | None, place: str | None = None) -> str:
        """Make a token and return its secret, which is kept nowhere. With ``place`` it is an agent's, which
        may report what runs there, or within it, and do nothing else.

        Raises :class:`Conflict` while a token of this name can still be used.
        """
        secret = PREFIX + secrets.token_urlsafe(32)
        now = self._now()
        with self._database.write() as connection:
            row = {
                "name": name,
                "secret_hash": hash_of(secret),
                "created_at": now,
                "expires_at": expires_at,
                "revoked_at": None,
                "place": place,
            }
            if connection.execute(dialect.of(connection).upserts.robot_token, row).rowcount == 0:
                raise Conflict(
                    f"there is a token named {name} already",
                    hint=f"digestry token revoke {name}, or another name",
                )
        return secret

    def all(self) -> list[RobotToken]:
        """Return all tokens, by name, including expired and revoked ones."""
        with self._database.read() as connection:
            rows = connection.execute(select(robot_tokens).order_by(robot_tokens.c.name)).all()
        return [_token(row) for row in rows]

    @retried
    def revoke(self, name: str) -> None:
        """End a token. Raises :class:`NotFound`."""
        with self._database.write() as connection:
            usable = (robot_tokens.c.name == name) & robot_tokens.c.revoked_at.is_(None)
            result = connection.execute(update(robot_tokens).where(usable).values(revoked_at=self._now()))
            if result.rowcount == 0:
                raise NotFound(f"there is no token named {name}, or it is revoked already")


def _token(row: Row[Any]) -> RobotToken:
    return RobotToken(
        row.name, fingerprint(row.secret_hash), row.created_at, row.expires_at, row.revoked_at, row.place
    )


def fingerprint(secret_hash: str) -> str:
    """Return the fingerprint of a secret, which names it in an access token that was issued for it."""
    return secret_hash[:16]


class RobotReads(Protocol):
    """Look-ups of robot tokens: each sees what was committed before it began.

    Each is awaited on the event loop and raises :class:`StorageError`.
    """

    async def by_secret(self, secret: str) -> RobotToken | None:
        """Return the token of this secret, if it can be used now."""
        ...

    async def by_name(self, name: str) -> RobotToken | None:
        """Return the token of this name, if it can be used now."""
        ...

    async def close(self) -> None:
        """End the connections."""
        ...
