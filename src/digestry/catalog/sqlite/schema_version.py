"""The schema that a catalog's file says it has."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from digestry.catalog.schema_version import check_schema


def check(connection: sqlite3.Connection, path: Path, *, older: bool = False) -> None:
    """Raise :class:`StorageError` unless the catalog at ``path`` has a schema that this
    digestry works with; with ``older``, an older one will do."""
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if not str(error).startswith("no such table"):
            raise
        row = None
    check_schema(
        None if row is None else row[0], str(path), older=older, oldest=lambda: _oldest_support(connection)
    )


def _oldest_support(connection: sqlite3.Connection) -> object:
    """Return what :func:`digestry.catalog.schema_version.oldest_support` does."""
    row = connection.execute("SELECT oldest FROM schema_support").fetchone()
    return None if row is None else row[0]
