"""The check that a catalog has the schema which this digestry works with."""

from __future__ import annotations

import functools
import pkgutil
import sqlite3
from pathlib import Path

from digestry.catalog.migrations import versions
from digestry.errors import StorageError


@functools.cache
def newest_schema() -> str:
    """Return the newest schema that this digestry knows, such as ``0004``."""
    return max(module.name[1:5] for module in pkgutil.iter_modules(versions.__path__))


def check(connection: sqlite3.Connection, path: Path, *, older: bool = False) -> None:
    """Raise :class:`StorageError` unless the catalog at ``path`` has the newest schema; with ``older``, an
    older one will do."""
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if not str(error).startswith("no such table"):
            raise
        row = None
    if row is None or not isinstance(row[0], str):
        raise StorageError(
            f"{path} is no catalog: it does not say which schema it has",
            hint="restore the catalog from a backup; the blobs beside it are not touched",
        )
    (schema,) = row
    if schema > newest_schema():
        raise StorageError(
            f"the catalog {path} has schema {schema}, and this digestry knows none after {newest_schema()}",
            hint="a newer digestry has changed it: use that one, or one newer still",
        )
    if schema < newest_schema() and not older:
        raise StorageError(
            f"the catalog {path} has schema {schema}, and this digestry works with {newest_schema()}",
            hint="digestry serve brings it up to date; or use the digestry that serves it",
        )
