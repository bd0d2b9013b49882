"""A catalog that is a SQLite file in the registry's root."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from digestry import fsio
from digestry.catalog import clock
from digestry.catalog.dialect import OPTION
from digestry.catalog.journal_views import JournalViews
from digestry.catalog.registry_identity import RegistryIdentity
from digestry.catalog.sqlite import schema_version, snapshot
from digestry.catalog.sqlite.connection import connect_directly
from digestry.catalog.sqlite.database import FILE, SqliteDatabase
from digestry.catalog.sqlite.dialect import DIALECT
from digestry.catalog.sqlite.failures import failure, failures
from digestry.catalog.sqlite.read_cache import ReadCache
from digestry.catalog.sqlite.robot_reads import SqliteRobotReads
from digestry.catalog.sqlite.snapshot import SqliteSnapshot
from digestry.errors import NotFound, StorageError

_PAGE: Final = 4096
"""Bytes of a file that has no table, and of one whose tables are in its log yet."""


class SqliteStore(JournalViews):
    """The :class:`~digestry.catalog.store.CatalogFile` under ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.path = root / FILE

    def describe(self) -> str:
        """Return the file's path."""
        return str(self.path)

    def is_empty(self) -> bool:
        """Return whether there is no file yet, or one without a table. Raises :class:`StorageError`.

        A process that was killed before its first transaction leaves a file without tables.
        """
        with fsio.storage_errors("look at", self.path):
            try:
                size = self.path.stat().st_size
            except FileNotFoundError:
                return True
        return size == 0 or (size <= _PAGE and not self._has_table())

    def _has_table(self) -> bool:
        """Return whether there is a table, or may be: on a full disk SQLite cannot look into its log."""
        try:
            with contextlib.closing(connect_directly(self.path)) as connection, failures(self.path):
                return connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is not None
        except StorageError:
            return True

    def require(self) -> None:
        """Raise :class:`NotFound` unless there is a file."""
        if not self.path.is_file():
            raise NotFound(
                f"there is no registry under {self._root}: it has no {FILE}",
                hint="name the directory that digestry serve has as its root",
            )

    def identity(self) -> RegistryIdentity | None:
        """Return which registry the catalog is of; None for one from before there were IDs.

        Raises :class:`StorageError`.
        """
        table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'identity'"
        with contextlib.closing(connect_directly(self.path)) as connection, failures(self.path):
            if connection.execute(table).fetchone() is None:
                return None
            rows = connection.execute("SELECT id, bound, generation FROM identity").fetchall()
        if len(rows) != 1:
            raise StorageError(f"the catalog {self.path} does not say which registry it is of")
        (found,) = rows
        return RegistryIdentity(found[0], bool(found[1]), found[2])

    def owner(self) -> int | None:
        """Return the number of the user whom the file belongs to. Raises FileNotFoundError."""
        return self.path.stat().st_uid

    def file_names(self) -> frozenset[str]:
        """Return the names of the file and of those that SQLite puts beside it."""
        return frozenset({FILE, f"{FILE}-wal", f"{FILE}-shm"})

    def open(self) -> SqliteDatabase:
        """Open the database, making it if it is not there."""
        return SqliteDatabase(self._root)

    def open_reads(self) -> ReadCache:
        """Open the reads of one event loop. Raises :class:`StorageError`."""
        return ReadCache(self.path)

    def open_robot_reads(self, now: clock.Clock) -> SqliteRobotReads:
        """Open the look-ups of robot tokens for one event loop. Raises :class:`StorageError`."""
        return SqliteRobotReads(self.path, now)

    def open_changes(self) -> SqliteChanges:
        """Open the listener for changes. Raises :class:`StorageError`."""
        return SqliteChanges(self.path)

    @contextlib.contextmanager
    def copied(self, directory: Path) -> Iterator[SqliteDatabase]:
        """Open a copy of the catalog as it is at one moment, a file in ``directory``; see
        :meth:`CatalogStore.copied`."""
        self.require()
        snapshot.copy(self.path, directory / FILE)
        database = SqliteDatabase(directory)
        try:
            yield database
        finally:
            database.close()

    def as_file(self) -> SqliteStore:
        """Return this store."""
        return self

    def install(self, directory: Path) -> None:
        """Move the file from ``directory`` to its place. Durable. Raises :class:`StorageError`."""
        fsio.publish(directory / FILE, self.path)

    def snapshot_to(self, directory: Path) -> SqliteStore:
        """Copy the catalog to ``directory`` for a backup; see :meth:`CatalogFile.snapshot_to`."""
        self.require()
        copy = SqliteStore(directory)
        snapshot.take(self.path, copy.path)
        return copy

    def open_snapshot(self) -> SqliteSnapshot:
        """Open the file as a read-only snapshot. Raises :class:`StorageError`, :class:`Conflict`."""
        return SqliteSnapshot(self.path)

    @contextlib.contextmanager
    def view(self, *, older: bool) -> Iterator[Connection]:
        """Open one consistent view of the catalog, whether or not it is being served. Nothing is written."""
        self.require()
        engine = create_engine(
            "sqlite://",
            creator=lambda: self._checked(older=older),
            poolclass=NullPool,
            execution_options={OPTION: DIALECT},
        )
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("BEGIN")
                yield connection
        except (DBAPIError, SQLAlchemyError) as error:
            raise failure(self.path, error) from error
        finally:
            engine.dispose()

    def _checked(self, *, older: bool) -> sqlite3.Connection:
        connection = connect_directly(self.path)
        try:
            with failures(self.path):
                schema_version.check(connection, self.path, older=older)
        except BaseException:
            connection.close()
            raise
        return connection


class SqliteChanges:
    """The :class:`~digestry.catalog.store.CatalogChanges` of a file, from its change counter."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = connect_directly(path)

    def number(self) -> int:
        """Return a number that another connection's commit moves (sqlite.org/pragma.html)."""
        with failures(self._path):
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        """End the connection."""
        self._connection.close()
