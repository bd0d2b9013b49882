"""The embedded database: SQLite in WAL mode, ``synchronous=FULL``, one writer at a time.

Two engines on one file: the writer begins its transactions IMMEDIATE, so that a compare-and-set
reads what it will change under the lock; the reader cannot write. Blocks; for worker threads.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from digestry.catalog.database import Job, Outcome
from digestry.catalog.dialect import OPTION
from digestry.catalog.frequent_statements import PreparedStatements
from digestry.catalog.migrations.upgrade import upgrade
from digestry.catalog.sqlite import schema_version
from digestry.catalog.sqlite.checkpoints import LAST_RESORT, Checkpoints
from digestry.catalog.sqlite.connection import BUSY_SECONDS
from digestry.catalog.sqlite.dialect import DIALECT
from digestry.catalog.sqlite.failures import BUSY, RESTORE, failure
from digestry.catalog.sqlite.prepared import PreparedConnection, PreparedStatement
from digestry.catalog.sqlite.write_queue import WriteQueue
from digestry.catalog.sqlite.writer import Writer
from digestry.errors import InvalidDigest, StorageBusy, StorageError

FILE: Final = "catalog.db"
_LOG_BYTES: Final = 16 << 20
_WRITER_CACHE_KIB: Final = 8 << 10
"""A push changes some 40 pages all over the file; SQLite's own 2 MB forget them from push to push."""
_READERS: Final = 8
_STEPS: Final = 10_000
"""Instructions of SQLite's virtual machine, some milliseconds: how often a check yields to others."""


def _begin_reading(_: Connection) -> None:
    """Leave the transaction to :meth:`PreparedConnection.view`, which has begun it."""


@contextlib.contextmanager
def _interrupted_by(connection: Connection, pause: Callable[[], None]) -> Iterator[None]:
    raised: list[BaseException] = []

    def turn() -> bool:
        try:
            pause()
        except BaseException as error:  # noqa: BLE001 - raised below: SQLite knows no exceptions
            raised.append(error)
        return bool(raised)

    driver: Any = connection.connection.driver_connection
    driver.set_progress_handler(turn, _STEPS)
    try:
        yield
    except SQLAlchemyError:
        if raised:
            raise raised[0] from None
        raise
    finally:
        driver.set_progress_handler(None, 0)


class SqliteDatabase:
    """The :class:`~digestry.catalog.database.Database` in the file under ``root``."""

    writers: Final = 1

    def __init__(self, root: Path) -> None:
        self.path = root / FILE
        self._migrating = False
        # Writers queue fairly, those of one process and then one of each process, and not in SQLite's
        # sleeping busy handler.
        self._write_queue = WriteQueue(root)
        self._statements = PreparedStatements(PreparedStatement)
        self._writing = self._engine(self._begin_writing, query_only=False, pool_size=1)
        self._reading = self._engine(_begin_reading, query_only=True, pool_size=_READERS)
        self._checkpoints = Checkpoints(self.path)
        self._writer = Writer(
            lambda: PreparedConnection(self._writing, self._statements), self._checkpoints.committed
        )
        self._readers: queue.LifoQueue[PreparedConnection | None] = queue.LifoQueue()
        for _ in range(_READERS):
            self._readers.put(None)

    def _begin_writing(self, connection: Connection) -> None:
        bare: Any = connection.connection.dbapi_connection

        def attempt() -> bool:
            try:
                bare.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                return False
            return True

        try:
            if not self._write_queue.pass_through(attempt, seconds=BUSY_SECONDS):
                raise StorageBusy(f"the catalog {self.path} is locked", hint=BUSY)
        except sqlite3.Error as error:
            raise failure(self.path, error) from error

    def _engine(self, begin: Callable[[Connection], None], *, query_only: bool, pool_size: int) -> Engine:
        engine = create_engine(
            URL.create("sqlite", database=str(self.path)),
            pool_size=pool_size,
            max_overflow=0,
            connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
            execution_options={OPTION: DIALECT},
        )

        def on_connect(connection: Any, _: ConnectionPoolEntry) -> None:
            if not self._migrating:
                schema_version.check(connection, self.path)
            connection.isolation_level = None  # transactions are begun below, not by the driver
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            # A slow reader makes the log grow; afterwards the log is truncated.
            connection.execute(f"PRAGMA journal_size_limit={_LOG_BYTES}")
            connection.execute("PRAGMA foreign_keys=ON")
            if query_only:
                connection.execute("PRAGMA query_only=ON")
            else:
                connection.execute("PRAGMA busy_timeout=0")  # the write queue waits
                connection.execute(f"PRAGMA wal_autocheckpoint={LAST_RESORT}")
                if not self._migrating:  # which sorts whole tables for their new indices
                    # Statements of a push change many pages: SQLite makes a file for the undoing of each.
                    connection.execute("PRAGMA temp_store=MEMORY")
                    connection.execute(f"PRAGMA cache_size=-{_WRITER_CACHE_KIB}")

        event.listen(engine, "connect", on_connect)
        event.listen(engine, "begin", begin)
        return engine

    @contextlib.contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """Open a transaction that may write; see :meth:`Database.write`."""
        with self._errors(), self._writer.transaction(durable=durable) as connection:
            yield connection

    def group_commit(self, jobs: Sequence[Job], *, durable: bool = True) -> list[Outcome]:
        """Call ``jobs``, whose writes are committed as one; see :meth:`Database.group_commit`."""
        return self._writer.group_commit(jobs, durable=durable)

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Open one consistent view of the committed state."""
        with self._errors(), self._borrowed_reader() as connection, connection.view():
            yield connection

    @contextlib.contextmanager
    def _borrowed_reader(self) -> Iterator[PreparedConnection]:
        connection = self._readers.get()
        try:
            if connection is None:
                connection = PreparedConnection(self._reading, self._statements)
            yield connection
        finally:
            if connection is not None and connection.invalidated:  # see PreparedConnection
                connection.close()
                connection = None
            self._readers.put(connection)

    def check(self, tables: Iterable[str], *, pause: Callable[[], None] = lambda: None) -> None:
        """Compare each of ``tables`` with its indices; ``pause`` is called repeatedly meanwhile.

        Raises :class:`StorageError` if they differ.
        """
        for table in tables:
            with self.read() as connection, _interrupted_by(connection, pause):
                damage = DIALECT.damage_of(connection, table)
            if damage is not None:
                raise StorageError(f"the catalog {self.path} is damaged: {damage}", hint=RESTORE)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, SQLAlchemyError) as error:
            raise failure(self.path, error) from error
        except InvalidDigest as error:
            # The text is from a row: callers pass a Digest.
            raise failure(self.path, error, hint=RESTORE) from error

    def migrate(self) -> None:
        """Bring the schema up to date. Only one process may do this at a time: the root's lock."""
        self._migrating = True  # by a connection of this thread's
        try:
            with self.write() as connection:
                upgrade(connection, str(self.path))
        finally:
            self._migrating = False

    def describe(self) -> str:
        """Return the file's path."""
        return str(self.path)

    def size(self) -> int:
        """Return how many bytes the file and its log take."""
        size = 0
        for file in (self.path, self.path.with_name(f"{FILE}-wal")):
            with contextlib.suppress(FileNotFoundError):
                size += file.stat().st_size
        return size

    def close(self) -> None:
        """End all connections."""
        self._checkpoints.close()
        self._writer.close()
        for _ in range(_READERS):
            connection = self._readers.get()
            if connection is not None:
                connection.close()
        for _ in range(_READERS):
            self._readers.put(None)
        self._writing.dispose()
        self._reading.dispose()
        self._write_queue.close()
