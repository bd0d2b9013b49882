"""Rows of links: which repository may serve which blob.

Functions on a transaction. A digest is text here, as it is in the tables.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, CursorResult, delete, select

from digestry.catalog import damage, dialect, manifest_rows
from digestry.catalog.schema import links, repositories


def add(connection: Connection, repository: int, digest: str, size: int, now: int) -> CursorResult[Any]:
    """Give the repository the right to serve a blob; return a result whose ``rowcount`` is 0 if it had it.

    To ask for that may cost a round trip.
    """
    values = {"repository_id": repository, "digest": digest, "size": size, "linked_at": now}
    return connection.execute(dialect.of(connection).upserts.link, values)


def remove(connection: Connection, repository: int, digest: str) -> bool:
    """Take that right away; return False if it was not there."""
    statement = delete(links).where(links.c.repository_id == repository, links.c.digest == digest)
    return connection.execute(statement).rowcount > 0


def size_of(connection: Connection, digest: str, repository: str | None) -> int | None:
    """Return a blob's size in bytes, if ``repository`` (None: any repository) may serve it, and can."""
    query = select(links.c.size).where(links.c.digest == digest, damage.whole(links.c.digest))
    if repository is not None:
        query = query.join(repositories).where(repositories.c.name == repository)
    return connection.execute(query.limit(1)).scalar()


def repositories_of(connection: Connection, digest: str) -> list[str]:
    """Return the repositories that may serve a blob."""
    query = select(repositories.c.name).select_from(links.join(repositories)).where(links.c.digest == digest)
    return list(connection.execute(query.order_by(repositories.c.name)).scalars())


def serves(connection: Connection, repository: int, digest: str) -> bool:
    """Return whether the repository may serve this, as a blob or as a manifest."""
    linked = select(links.c.size).where(links.c.repository_id == repository, links.c.digest == digest)
    return (
        connection.execute(linked).first() is not None
        or manifest_rows.find(connection, repository, digest) is not None
    )
