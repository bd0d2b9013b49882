"""The stores of a registry, for tests that need no server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from digestry.backend import open_backend
from digestry.catalog import clock
from digestry.catalog.catalog import Catalog, CatalogOptions
from digestry.catalog.sqlite.database import SqliteDatabase


def open_catalog(root: Path, *, now: clock.Clock = clock.now, **options: Any) -> Catalog:
    """Open the catalog under ``root``; ``options`` are those of :class:`CatalogOptions`."""
    return open_backend(root, CatalogOptions(**options), now=now).open_catalog()


def file_of(catalog: Catalog) -> Path:
    """Return the file of a catalog that is in one."""
    return Path(catalog.describe())


def sqlite_database(catalog: Catalog) -> SqliteDatabase:
    """Return the database of a catalog that is in SQLite."""
    database = catalog._database
    assert isinstance(database, SqliteDatabase)
    return database
