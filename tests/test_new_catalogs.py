"""The copies that new catalogs of tests are, beside catalogs that are migrated."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from digestry.catalog.sqlite.database import SqliteDatabase
from tests import new_catalogs


def identity(file: Path) -> str:
    with closing(sqlite3.connect(file)) as connection:
        [(found,)] = connection.execute("SELECT id FROM identity")
    return str(found)


def made(root: Path) -> Path:
    """The file of a new catalog."""
    root.mkdir()
    database = SqliteDatabase(root)
    database.migrate()
    database.close()
    return database.path


def test_a_copy_is_a_migrated_catalog_but_for_its_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqliteDatabase, "migrate", new_catalogs.migrate)
    migrated = made(tmp_path / "migrated")
    monkeypatch.setattr(SqliteDatabase, "migrate", new_catalogs.copy_or_migrate)
    copies = [made(tmp_path / name) for name in ("one", "other")]
    assert len({identity(file) for file in (migrated, *copies)}) == 3
    for copy in copies:
        content = copy.read_bytes().replace(identity(copy).encode(), identity(migrated).encode())
        assert content == migrated.read_bytes()
        assert copy.stat().st_mode == migrated.stat().st_mode


def test_a_catalog_that_is_there_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SqliteDatabase, "migrate", new_catalogs.copy_or_migrate)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "catalog.db").touch()
    database = SqliteDatabase(tmp_path / "root")
    database.migrate()
    database.close()
    assert identity(database.path)
