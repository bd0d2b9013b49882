"""Bare connections to a catalog's file, without SQLAlchemy's cost for each statement."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from digestry.catalog.sqlite.failures import failure

BUSY_SECONDS: Final = 30
"""How long a connection waits for SQLite's lock."""


def connect_directly(path: Path) -> sqlite3.Connection:
    """Return a bare connection that only reads. Raises :class:`StorageError`."""
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            isolation_level=None,
            timeout=BUSY_SECONDS,
            cached_statements=64,
        )
        connection.execute("PRAGMA query_only=ON")
    except sqlite3.Error as error:
        raise failure(path, error) from error
    return connection
