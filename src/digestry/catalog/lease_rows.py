"""Leases: until when content is kept, even if nothing else holds it.

Functions on a transaction. A digest is text here, as it is in the tables.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select

from digestry.catalog import dialect
from digestry.catalog.schema import leases


def extend(connection: Connection, digest: str, until: int) -> None:
    """Keep content until then at the least."""
    connection.execute(dialect.of(connection).upserts.lease, {"digest": digest, "expires_at": until})


def lock(connection: Connection, digests: Iterable[str]) -> None:
    """Make all others that lock or lease this content wait until the transaction ends.

    A removal locks the content first, so that no client that has just leased it loses it.
    """
    speaking = dialect.of(connection)
    if not speaking.one_writer:
        # In one order, so that no two wait for each other. A lease that ends later is locked, and kept.
        rows = [{"digest": digest, "expires_at": 0} for digest in sorted(digests)]
        connection.execute(speaking.upserts.lease, rows)


def end(connection: Connection, digest: str) -> int | None:
    """Return when the lease of content ends; None if it has none."""
    return connection.execute(select(leases.c.expires_at).where(leases.c.digest == digest)).scalar()
