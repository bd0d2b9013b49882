"""A temporary copy of a catalog: no other connection sees its tables, and it ends with its transaction."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from sqlalchemy import Connection, text

from digestry.catalog.database import Job, Outcome, attempt
from digestry.catalog.postgresql.database import database_errors
from digestry.catalog.schema import metadata


class TemporaryCopy:
    """The :class:`~digestry.catalog.database.Database` of a copy, used by one thread at a time."""

    writers: Final = 1

    def __init__(self, connection: Connection, name: str) -> None:
        """Copy all tables of the database of ``connection``, whose transaction has one snapshot."""
        self._connection = connection
        self._name = name
        self._turn = threading.RLock()
        for table in metadata.sorted_tables:
            # Temporary tables come first wherever a name has no schema.
            connection.execute(
                text(f"CREATE TEMPORARY TABLE {table.name}_copy (LIKE {table.name} INCLUDING ALL)")
            )
            connection.execute(text(f"INSERT INTO {table.name}_copy SELECT * FROM {table.name}"))  # noqa: S608
        for table in metadata.sorted_tables:
            connection.execute(text(f"ALTER TABLE {table.name}_copy RENAME TO {table.name}"))
            connection.execute(text(f"ANALYZE pg_temp.{table.name}"))

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Open the copy as it is now."""
        with self._turn, database_errors(self._name):
            yield self._connection

    @contextlib.contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """Open a part of the transaction, which is undone alone if the block raises."""
        with self._turn, database_errors(self._name), self._connection.begin_nested():
            yield self._connection

    def group_commit(self, jobs: Sequence[Job], *, durable: bool = True) -> list[Outcome]:
        """Call ``jobs`` one after the other."""
        return [attempt(job) for job in jobs]

    def check(self, tables: Iterable[str], *, pause: Callable[[], None] = lambda: None) -> None:
        """Return: the tables were just made."""

    def migrate(self) -> None:
        """Return: the copy has the schema of the catalog."""

    def describe(self) -> str:
        """Return the name of the database that it is a copy of."""
        return self._name

    def size(self) -> int:
        """Return how many bytes the copy takes."""
        sizes = (
            f"pg_catalog.pg_total_relation_size('pg_temp.{table.name}')" for table in metadata.sorted_tables
        )
        with self.read() as connection:
            return int(connection.execute(text(f"SELECT {' + '.join(sizes)}")).scalar_one())

    def close(self) -> None:
        """Return: the copy ends with its transaction."""
