"""Leases: until when content is kept, whatever else holds it.

Functions on a transaction. A digest is text here, as it is in the tables.
"""

from __future__ import annotations

from sqlalchemy import Connection, select

from digestry.catalog import dialect
from digestry.catalog.schema import leases


def extend(connection: Connection, digest: str, until: int) -> None:
    """Keep content until then at the least."""
    connection.execute(dialect.of(connection).upserts.lease, {"digest": digest, "expires_at": until})


def end(connection: Connection, digest: str) -> int | None:
    """Return when the lease of content ends; None if it has none."""
    return connection.execute(select(leases.c.expires_at).where(leases.c.digest == digest)).scalar()
