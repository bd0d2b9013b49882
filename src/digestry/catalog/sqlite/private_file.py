"""An SQLite file of a program's own, without migrations: it can be made anew if it is lost."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from digestry.errors import StorageError, StorageFull
from digestry.fsio import lacks_room


class PrivateFile:
    """The file ``path`` with the tables that ``schema`` (``CREATE … IF NOT EXISTS``) makes. Thread-safe.

    Every method raises :class:`StorageError` with ``hint``, which says how the file is made anew.
    """

    def __init__(self, path: Path, schema: str, *, hint: str) -> None:
        self._path = path
        self._hint = hint
        self._lock = threading.Lock()
        with self._errors():
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(schema)

    def close(self) -> None:
        """Close the file."""
        with self._errors():
            self._connection.close()

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._errors(), self._lock:
            return self._connection.execute(query, values).fetchall()

    def write(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        """Execute a statement for each of the rows, in one transaction."""
        with self._errors(), self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(statement, rows)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite has undone it, if the disk is full
                    self._connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            full = code == sqlite3.SQLITE_IOERR and lacks_room(self._path.parent)
            if full or code == sqlite3.SQLITE_FULL:
                raise StorageFull(
                    f"{self._path}: the disk is full",
                    hint="free some space on that file system; what was written before is whole",
                ) from error
            raise StorageError(f"{self._path}: {error}", hint=self._hint) from error
