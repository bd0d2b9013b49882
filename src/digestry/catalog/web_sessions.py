"""The sessions of people who are signed in to the pages.

A session's cookie has a secret of 256 random bits; the catalog keeps its hash.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update

from digestry.catalog.database import Database
from digestry.catalog.robot_tokens import hash_of
from digestry.catalog.schema import web_sessions
from digestry.catalog.transactions import retried


@dataclass(frozen=True, slots=True)
class WebSession:
    """A session. ``credential`` is the fingerprint of what the user signed in with, and ``csrf`` the token
    that its forms send back. Times are in microseconds since 1970."""

    identity: str
    credential: str
    csrf: str
    created_at: int
    used_at: int
    expires_at: int


class WebSessions:
    """The sessions. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @retried
    def begin(self, identity: str, credential: str, *, now: int, expires_at: int) -> str:
        """Make a session and return its secret, which is kept nowhere. Sessions that have ended go."""
        secret = secrets.token_urlsafe(32)
        row = {
            "id_hash": hash_of(secret),
            "identity": identity,
            "credential": credential,
            "csrf": secrets.token_urlsafe(24),
            "created_at": now,
            "used_at": now,
            "expires_at": expires_at,
        }
        with self._database.write() as connection:
            connection.execute(delete(web_sessions).where(web_sessions.c.expires_at <= now))
            connection.execute(insert(web_sessions), row)
        return secret

    def find(self, secret: str) -> WebSession | None:
        """Return the session of a secret, ended or not."""
        with self._database.read() as connection:
            row = connection.execute(
                select(web_sessions).where(web_sessions.c.id_hash == hash_of(secret))
            ).first()
        if row is None:
            return None
        return WebSession(row.identity, row.credential, row.csrf, row.created_at, row.used_at, row.expires_at)

    @retried
    def touch(self, secret: str, *, now: int) -> None:
        """Note that the session of a secret was used."""
        with self._database.write() as connection:
            mine = web_sessions.c.id_hash == hash_of(secret)
            connection.execute(update(web_sessions).where(mine).values(used_at=now))

    @retried
    def end(self, secret: str) -> None:
        """End the session of a secret, if there is one."""
        with self._database.write() as connection:
            connection.execute(delete(web_sessions).where(web_sessions.c.id_hash == hash_of(secret)))
