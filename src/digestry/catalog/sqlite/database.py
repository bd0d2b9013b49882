"""The embedded database: SQLite in WAL mode, ``synchronous=FULL``, one writer at a time.

Two engines on one file: the writer begins its transactions IMMEDIATE, so that a compare-and-set
reads what it will change under the lock; the reader cannot write. Blocks; for worker threads.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from digestry.catalog.sqlite import schema_version
from digestry.catalog.sqlite.write_queue import WriteQueue
from digestry.errors import InvalidDigest, NotFound, StorageBusy, StorageError, StorageFull
from digestry.fsio import lacks_room

FILE: Final = "catalog.db"
_BUSY_SECONDS: Final = 30
_LOG_BYTES: Final = 16 << 20
_READERS: Final = 8
_STEPS: Final = 10_000
"""Of SQLite's machine, some milliseconds: how often a check lets others have a turn."""
_BUSY: Final = "another process has it; try again later"
_RESTORE: Final = "restore the catalog from a backup; the blobs beside it are not touched"


def _failure(path: Path, error: BaseException, *, hint: str = "") -> StorageError:
    cause = getattr(error, "orig", None) or error
    message = f"the catalog {path} failed: {cause}"
    code = getattr(cause, "sqlite_errorcode", 0)
    if code & 0xFF == sqlite3.SQLITE_IOERR and lacks_room(path.parent):
        code = sqlite3.SQLITE_FULL  # what SQLite calls full is neither a quota nor its index of the log
    match code & 0xFF:
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            hint = _RESTORE
        case sqlite3.SQLITE_FULL:
            hint = "free some space on that file system; what was committed before is safe"
            return StorageFull(message, hint=hint)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StorageBusy(message, hint=_BUSY)
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return StorageError(f"cannot write the catalog {path}", hint=_why_not(path, str(cause)))
        case sqlite3.SQLITE_CANTOPEN:
            return StorageError(f"cannot open the catalog {path}", hint=_why_not(path, str(cause)))
        case sqlite3.SQLITE_ERROR if str(cause).startswith(("no such table", "no such column")):
            hint = hint or "it may be of an older digestry: serving it with this one brings it up to date"
    return StorageError(message, hint=hint)


def _why_not(path: Path, cause: str) -> str:
    """What keeps this process from the catalog: SQLite has one word for all of it."""
    root = path.parent
    try:
        if not root.is_dir():
            return f"there is no directory {root}"
        if os.statvfs(root).f_flag & os.ST_RDONLY:
            return f"the file system of {root} is mounted read-only"
        for one in (root, path, path.with_name(f"{FILE}-wal"), path.with_name(f"{FILE}-shm")):
            if one.exists() and not os.access(one, os.W_OK):
                owner, own = one.stat().st_uid, os.geteuid()
                if owner != own:
                    return f"{one} belongs to user {_user(owner)}, this is {_user(own)}: call it as that user"
                return f"{one} is write-protected (chmod u+w)"
    except OSError as error:
        return f"{root} cannot be looked at: {error.strerror or error}"
    return f"SQLite says: {cause}"


def _user(number: int) -> str:
    import pwd  # noqa: PLC0415 - rarely needed

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


@contextlib.contextmanager
def failures(path: Path) -> Iterator[None]:
    """Turns an error of SQLite's in the block into a :class:`StorageError` about the catalog ``path``."""
    try:
        yield
    except sqlite3.Error as error:
        raise _failure(path, error) from error


def connect_directly(path: Path) -> sqlite3.Connection:
    """A bare connection for hot reads, without SQLAlchemy's cost for each statement. Read-only."""
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            isolation_level=None,
            timeout=_BUSY_SECONDS,
            cached_statements=64,
        )
        connection.execute("PRAGMA query_only=ON")
    except sqlite3.Error as error:
        raise _failure(path, error) from error
    return connection


@contextlib.contextmanager
def reading(root: Path, *, older: bool = False) -> Iterator[Connection]:
    """One consistent view of the catalog under ``root``, whether or not it is being served.

    Nothing is written, nothing is made. With ``older`` its schema may be an older one. Raises
    :class:`NotFound`, :class:`StorageError`.
    """
    path = root / FILE
    if not path.is_file():
        raise NotFound(f"there is no registry under {root}: it has no {FILE}")
    engine = create_engine("sqlite://", creator=lambda: _checked(path, older=older), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            yield connection
    except (DBAPIError, SQLAlchemyError) as error:
        raise _failure(path, error) from error
    finally:
        engine.dispose()


def _checked(path: Path, *, older: bool) -> sqlite3.Connection:
    connection = connect_directly(path)
    try:
        with failures(path):
            schema_version.check(connection, path, older=older)
    except BaseException:
        connection.close()
        raise
    return connection


def _begin_reading(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


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


class Database:
    """The catalog's file under ``root``. Thread-safe; each process opens its own."""

    def __init__(self, root: Path) -> None:
        self.path = root / FILE
        self._migrating = False
        # Writers queue here, fairly, those of one process and then one of each process, and not in
        # SQLite's sleeping busy handler.
        self._turn = threading.Lock()
        self._write_queue = WriteQueue(root)
        self._writer = self._engine(self._begin_writing, query_only=False, pool_size=1)
        self._reader = self._engine(_begin_reading, query_only=True, pool_size=_READERS)

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
            if not self._write_queue.pass_through(attempt, seconds=_BUSY_SECONDS):
                raise StorageBusy(f"the catalog {self.path} is locked", hint=_BUSY)
        except sqlite3.Error as error:
            raise _failure(self.path, error) from error

    def _engine(self, begin: Callable[[Connection], None], *, query_only: bool, pool_size: int) -> Engine:
        engine = create_engine(
            URL.create("sqlite", database=str(self.path)),
            pool_size=pool_size,
            max_overflow=0,
            connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
        )

        def on_connect(connection: Any, _: ConnectionPoolEntry) -> None:
            if not self._migrating:
                schema_version.check(connection, self.path)
            connection.isolation_level = None  # transactions are begun below, not by the driver
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            # A reader that takes its time lets the log grow; afterwards the room is given back.
            connection.execute(f"PRAGMA journal_size_limit={_LOG_BYTES}")
            connection.execute("PRAGMA foreign_keys=ON")
            if query_only:
                connection.execute("PRAGMA query_only=ON")
            else:
                connection.execute("PRAGMA busy_timeout=0")  # the write queue waits

        event.listen(engine, "connect", on_connect)
        event.listen(engine, "begin", begin)
        return engine

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write. Committed, and on disk, when the block ends without error."""
        with self._turn, self._errors(), self._writer.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view of the committed state."""
        with self._errors(), self._reader.begin() as connection:
            yield connection

    def check(self, tables: Iterable[str], *, pause: Callable[[], None] = lambda: None) -> None:
        """Compares each of ``tables`` with its indices, whole; ``pause`` is called again and again.

        Raises :class:`StorageError` if they differ. SQLite has no checksums: from an index that lost a
        row it answers that there is none.
        """
        for table in tables:
            with self.read() as connection, _interrupted_by(connection, pause):
                found = connection.exec_driver_sql(f"PRAGMA integrity_check('{table}')").scalars().all()
            if found != ["ok"]:
                raise StorageError(
                    f"the catalog {self.path} is damaged: {' '.join(str(found[0]).split())}", hint=_RESTORE
                )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, SQLAlchemyError) as error:
            raise _failure(self.path, error) from error
        except InvalidDigest as error:
            # Of a row: what a caller sends is a Digest long before it comes here.
            raise _failure(self.path, error, hint=_RESTORE) from error

    def migrate(self) -> None:
        """Brings the schema up to date. Only one process may do this at a time: the root's lock."""
        from alembic import command  # noqa: PLC0415 - takes a third of a second; workers do not need it
        from alembic.config import Config  # noqa: PLC0415
        from alembic.util import CommandError  # noqa: PLC0415

        self._migrating = True  # by a connection of this thread's
        config = Config()
        config.set_main_option("script_location", "digestry.catalog:migrations")
        try:
            with self.write() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except CommandError as error:
            hint = "a newer digestry has changed it: serve it with that one, or one newer still"
            raise _failure(self.path, error, hint=hint) from error
        finally:
            self._migrating = False

    def close(self) -> None:
        """Ends all connections."""
        self._writer.dispose()
        self._reader.dispose()
        self._write_queue.close()
