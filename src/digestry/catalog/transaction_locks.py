"""Locks on names, for the length of a transaction.

Functions on a transaction. Where one transaction at a time writes they do nothing.
"""

from __future__ import annotations

from sqlalchemy import Connection

from digestry.catalog import dialect


def lock(connection: Connection, name: str) -> None:
    """Lock ``name`` until the transaction ends; other transactions that lock it wait."""
    speaking = dialect.of(connection)
    if not speaking.one_writer:
        connection.execute(speaking.upserts.transaction_lock, {"name": name})
