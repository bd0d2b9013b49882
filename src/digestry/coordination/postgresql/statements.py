"""The SQL of the coordination: locks that end by themselves, in rows.

Times are microseconds since 1970 by the database's clock. No statement needs a session's state or an advisory
lock, so that a pooler may run each in another session.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import TextClause, text

# Not the time when the statement began: one that waited for a row must not judge by an earlier time.
NOW: Final = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"
"""The present by the database's clock."""
MICROSECONDS: Final = 1_000_000
"""Of a second."""

# A lock that ends later than any lease would is of a clock that was set back since.
_FREE: Final = f"(locks.expires_at <= {NOW} OR locks.expires_at > {NOW} + 2 * CAST(:lease AS bigint))"
_HELD: Final = f"expires_at > {NOW}"
# A crash of the database may lose the rows of shared guards; the connections of the pushes end with it.
_NO_FSYNC: Final = "set_config('synchronous_commit', 'off', true) = 'off'"


def _statement(sql: str) -> TextClause:
    return text(" ".join(sql.split()))


TAKE: Final = _statement(
    f"""
    INSERT INTO locks (name, holder, fence, expires_at)
    VALUES (:name, :holder, 1, {NOW} + CAST(:lease AS bigint))
    ON CONFLICT (name) DO UPDATE
    SET holder = excluded.holder, fence = locks.fence + 1, expires_at = excluded.expires_at
    WHERE {_FREE}
    RETURNING fence
    """
)
"""Take a free lock: returns its new fence number, or no row."""

RENEW: Final = _statement(
    f"""
    UPDATE locks SET expires_at = {NOW} + CAST(:lease AS bigint)
    FROM unnest(CAST(:names AS text[]), CAST(:fences AS bigint[])) AS held (name, fence)
    WHERE locks.name = held.name AND locks.fence = held.fence AND locks.{_HELD}
    RETURNING locks.name
    """
)
"""Renew locks: returns the names of those that were still held."""

RELEASE: Final = _statement(
    """
    UPDATE locks SET expires_at = 0
    FROM unnest(CAST(:names AS text[]), CAST(:fences AS bigint[])) AS held (name, fence)
    WHERE locks.name = held.name AND locks.fence = held.fence
    """
)
"""Release locks, unless another has taken them since. The rows stay: a fence number comes once."""

CONFIRM: Final = _statement(
    f"SELECT 1 FROM locks WHERE name = :name AND fence = :fence AND {_HELD} FOR SHARE"
)
"""Find a lock that is still held, and keep others from taking it until the transaction ends."""

HOLDERS: Final = _statement(f"SELECT name, holder FROM locks WHERE name LIKE :pattern AND {_HELD}")
"""List the holders of locks."""

SHARE: Final = _statement(
    f"""
    WITH free AS (
        SELECT name FROM locks WHERE name = :name AND {_FREE} AND {_NO_FSYNC} FOR SHARE
    )
    INSERT INTO shared_guards (token, name, expires_at)
    SELECT :token, free.name, {NOW} + CAST(:lease AS bigint) FROM free
    """
)
"""Share a guard: inserts no row while somebody has it exclusively."""

RENEW_SHARED: Final = _statement(
    f"""
    UPDATE shared_guards SET expires_at = {NOW} + CAST(:lease AS bigint)
    WHERE token = ANY (CAST(:tokens AS text[])) AND {_HELD} AND {_NO_FSYNC}
    RETURNING token
    """
)
"""Renew shared guards: returns the tokens of those that were still held."""

RELEASE_SHARED: Final = _statement(
    f"DELETE FROM shared_guards WHERE token = ANY (CAST(:tokens AS text[])) AND {_NO_FSYNC}"
)
"""Release shared guards."""

IS_SHARED: Final = _statement(f"SELECT 1 FROM shared_guards WHERE name = :name AND {_HELD} LIMIT 1")
"""Find a process that shares a guard."""

FORGET_SHARED: Final = _statement(f"DELETE FROM shared_guards WHERE name = :name AND NOT {_HELD}")
"""Remove the rows of dead nodes for a guard."""
