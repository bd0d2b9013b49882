"""The connection that writes to the catalog's file, and the groups of writes that it commits as one.

A commit is one fsync of SQLite's log. Writes that arrive while it is under way form a group, which is one
transaction with one fsync. If a write of the group fails after it has written something, the transaction is
rolled back, and each write runs alone. (Savepoints cost more: SQLite copies each page that changes after
one.)
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


def _attempt_in(bare: sqlite3.Connection, job: Job) -> Outcome:
    """Call ``job`` in a transaction that it shares. Raises :class:`_Undone` if others cannot go on in it."""
    changes = bare.total_changes
    outcome = attempt(job)
    if outcome.error is not None and bare.total_changes != changes:
        raise _Undone  # rolls back what it wrote before it failed
    if not bare.in_transaction:
        raise _Undone  # by SQLite, as on a full disk
    return outcome


class Writer:
    """The one connection of a process that writes. Thread-safe: its threads take turns."""

    def __init__(
        self, connect: Callable[[], PreparedConnection], committed: Callable[[], object] = lambda: None
    ) -> None:
        """``connect`` opens the connection, whose transactions are as SQLAlchemy begins them.

        ``committed`` is called after each commit.
        """
        self._connect = connect
        self._committed = committed
        self._connection: PreparedConnection | None = None
        self._turn = threading.Lock()
        self._waits = True
        self._grouped_thread = 0
        self._group_is_durable = False

    @contextlib.contextmanager
    def transaction(self, *, durable: bool) -> Iterator[Connection]:
        """Open a transaction, or in the thread of a group a part of the group's."""
        if self._grouped_thread == threading.get_ident():
            if durable and not self._group_is_durable:
                raise RuntimeError("a durable write is in a group that does not wait for the disk")
            yield self._opened()
        else:
            with self._turn, self._begun(durable=durable) as connection:
                yield connection

    def _opened(self) -> PreparedConnection:
        if self._connection is not None and self._connection.invalidated:  # see PreparedConnection
            self.close()
        if self._connection is None:
            self._connection = self._connect()
            self._waits = True
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
        self._committed()

    def group_commit(self, jobs: Sequence[Job], *, durable: bool) -> list[Outcome]:
        """Call ``jobs`` in one transaction; see :meth:`Database.group_commit`.

        If it cannot be committed, each job is called again, alone: then it fails, or not, for itself.
        """
        if len(jobs) > 1:
            try:
                return self._together(jobs, durable=durable)
            except StorageError as error:  # it could not begin
                return [Outcome(error=error)] * len(jobs)
            except _Undone:
                pass
        return [attempt(job) for job in jobs]

    def _together(self, jobs: Sequence[Job], *, durable: bool) -> list[Outcome]:
        with self._turn:
            try:
                with self._begun(durable=durable) as connection:
                    self._group_is_durable = durable
                    self._grouped_thread = threading.get_ident()
                    try:
                        outcomes = [_attempt_in(connection.bare, job) for job in jobs]
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
