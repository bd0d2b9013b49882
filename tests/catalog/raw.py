"""A catalog's database as somebody has it who goes around the catalog."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import psycopg

_GUARDS = tuple(
    (table, f"{table}_no_{action}")
    for table in ("journal", "log_entries", "log_nodes", "log_checkpoints")
    for action in ("update", "delete")
)


class Raw(Protocol):
    """The database behind a catalog's back."""

    def query(self, statement: str) -> list[Any]:
        """Return the rows of a statement."""
        ...

    def refused(self, statement: str) -> str:
        """Return with which words the database refuses a statement."""
        ...

    def edit(self, *statements: str) -> None:
        """Change the database as its owner could: what guards the journal and its log is taken away first."""
        ...


class SqliteRaw:
    """The file of a catalog in SQLite."""

    def __init__(self, root: Path) -> None:
        self._path = root / "catalog.db"

    def query(self, statement: str) -> list[Any]:
        with closing(sqlite3.connect(self._path)) as connection:
            return connection.execute(statement).fetchall()

    def refused(self, statement: str) -> str:
        with closing(sqlite3.connect(self._path)) as connection:
            try:
                connection.execute(statement)
            except sqlite3.IntegrityError as error:
                return str(error)
        raise AssertionError(f"{statement} was not refused")

    def edit(self, *statements: str) -> None:
        with closing(sqlite3.connect(self._path)) as connection, connection:
            for _, guard in _GUARDS:
                connection.execute(f"DROP TRIGGER IF EXISTS {guard}")
            for statement in statements:
                connection.execute(statement)


class PostgresqlRaw:
    """The database of a catalog in PostgreSQL."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, statement: str) -> list[Any]:
        with psycopg.connect(self._url) as connection:
            return connection.execute(statement).fetchall()

    def refused(self, statement: str) -> str:
        with psycopg.connect(self._url) as connection:
            try:
                connection.execute(statement)
            except psycopg.errors.RaiseException as error:
                return str(error)
        raise AssertionError(f"{statement} was not refused")

    def edit(self, *statements: str) -> None:
        with psycopg.connect(self._url) as connection:
            for table, guard in _GUARDS:
                connection.execute(f"DROP TRIGGER IF EXISTS {guard} ON {table}")
            for statement in statements:
                connection.execute(statement)
