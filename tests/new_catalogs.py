"""New catalogs as copies of one that was migrated, so that not every test migrates its own."""

from __future__ import annotations

import functools
import os
import sqlite3
import tempfile
import uuid
from contextlib import closing
from pathlib import Path
from typing import Final

from digestry.catalog.sqlite.database import SqliteDatabase

VARIABLE: Final = "DIGESTRY_TESTS_MIGRATE"
"""The environment variable that makes :mod:`tests.fork_server` migrate each new catalog."""

migrate = SqliteDatabase.migrate
"""The real one."""


@functools.cache
def migrated() -> tuple[bytes, bytes]:
    """Migrate a new catalog; return its file's content, and the identity in it, which no other has."""
    with tempfile.TemporaryDirectory(prefix="digestry-test-") as directory:
        database = SqliteDatabase(Path(directory))
        migrate(database)
        database.close()
        with closing(sqlite3.connect(database.path)) as connection:
            (identity,) = connection.execute("SELECT id FROM identity").fetchone()
        return database.path.read_bytes(), str(identity).encode()


def install() -> None:
    """Let each new catalog of this process be a copy, with an identity of its own."""
    migrated()
    SqliteDatabase.migrate = copy_or_migrate  # type: ignore[method-assign]


def copy_or_migrate(self: SqliteDatabase) -> None:
    """Do what :meth:`SqliteDatabase.migrate` does."""
    content, identity = migrated()
    try:
        with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
            file.write(content.replace(identity, uuid.uuid4().hex.encode()))
    except FileExistsError:
        migrate(self)
    except OSError:
        self.path.unlink(missing_ok=True)
        migrate(self)
