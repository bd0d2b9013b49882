"""The connection that writes to the catalog's file, and the groups of writes that it commits as one.

A commit is one fsync of SQLite's log. While it is under way, others come who want to write. A group has them
in one transaction, each behind a savepoint: they wait for one fsync, and one that fails undoes no other.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from digestry.catalog.database import Job, Outcome, attempt
from digestry.catalog.sqlite.prepared import PreparedConnection
from digestry.errors import StorageError


class _Undone(Exception):
    """A group's transaction ended without its commit: nothing of it is in the catalog."""


class Writer:
    """The one connection of a process that writes. Thread-safe: its threads take turns."""

    def __init__(self, connect: Callable[[], PreparedConnection]) -> None:
        """``connect`` opens the connection, whose transactions are as SQLAlchemy begins them."""
        self._connect = connect
        self._connection: PreparedConnection | None = None
        self._turn = threading.Lock()
        self._waits = True
        self._grouped_thread = 0
        self._group_is_durable = False

    @contextlib.contextmanager
    def transaction(self, *, durable: bool) -> Iterator[Connection]:
        """Open a transaction, or in the thread of a group a part of the group's."""
        if self._grouped_thread == threading.get_ident():
            with self._part(durable=durable) as connection:
                yield connection
        else:
            with self._turn, self._begun(durable=durable) as connection:
                yield connection

    def _opened(self) -> PreparedConnection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    @contextlib.contextmanager
    def _begun(self, *, durable: bool) -> Iterator[PreparedConnection]:
        connection = self._opened()
        if durable != self._waits:
            # In WAL mode only FULL waits for the disk in a commit (sqlite.org/pragma.html, "synchronous").
            connection.bare.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._waits = durable
        with connection.transaction():
            yield connection

    @contextlib.contextmanager
    def _part(self, *, durable: bool) -> Iterator[Connection]:
        if durable and not self._group_is_durable:
            raise RuntimeError("a durable write is in a group that does not wait for the disk")
        connection = self._opened()
        bare = connection.bare
        bare.execute("SAVEPOINT part")
        try:
            yield connection
        except BaseException:
            if bare.in_transaction:  # else SQLite has undone it all, as on a full disk
                bare.execute("ROLLBACK TO part")
                bare.execute("RELEASE part")
            raise
        bare.execute("RELEASE part")

    def together(self, jobs: Sequence[Job], *, durable: bool) -> list[Outcome]:
        """Call ``jobs`` in one transaction; see :meth:`Database.together`.

        If it cannot be committed, each job is called again, alone: then it fails, or not, for itself.
        """
        if len(jobs) > 1:
            try:
                return self._in_one(jobs, durable=durable)
            except StorageError as error:  # it could not begin
                return [Outcome(error=error)] * len(jobs)
            except _Undone:
                pass
        return [attempt(job) for job in jobs]

    def _in_one(self, jobs: Sequence[Job], *, durable: bool) -> list[Outcome]:
        outcomes: list[Outcome] = []
        with self._turn:
            try:
                with self._begun(durable=durable) as connection:
                    self._group_is_durable = durable
                    self._grouped_thread = threading.get_ident()
                    try:
                        for job in jobs:
                            outcomes.append(attempt(job))
                            if not connection.bare.in_transaction:
                                raise _Undone
                    finally:
                        self._grouped_thread = 0
            except (sqlite3.Error, SQLAlchemyError) as error:
                raise _Undone from error
        return outcomes

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
