"""The database of many nodes: PostgreSQL, in READ COMMITTED transactions that lock the rows they go by.

Two pools of connections: the reading one begins its transactions READ ONLY, each on one snapshot. Nothing is
kept in a connection between two transactions. Blocks; for worker threads.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
from psycopg import pq
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from digestry.catalog.database import Job, Outcome, attempt
from digestry.catalog.dialect import OPTION
from digestry.catalog.frequent_statements import PreparedStatements
from digestry.catalog.migrations.upgrade import upgrade
from digestry.catalog.postgresql import connection as connections
from digestry.catalog.postgresql.address import DatabaseAddress
from digestry.catalog.postgresql.commit import SECONDS, Warned, commit
from digestry.catalog.postgresql.dialect import DIALECT
from digestry.catalog.postgresql.failures import (
    LATER,
    RESTORE,
    MadeAlready,
    TableBusy,
    failure,
    is_lost,
    is_unfit,
)
from digestry.catalog.postgresql.pipeline import failed
from digestry.catalog.postgresql.prepared import PreparedConnection, compiled_statement
from digestry.catalog.postgresql.requirements import check_requirements
from digestry.catalog.schema_version import check_schema, oldest_support
from digestry.catalog.transactions import OutcomeUnknown, TransactionUndone
from digestry.errors import CallerError, InvalidDigest, StorageBusy

_CONNECTIONS: Final = 8
"""Connections of each of the two pools of a process."""
_POOL_SECONDS: Final = 10
_RECONNECTING_SECONDS: Final = 2.0
"""For how long a transaction waits for a server that has just gone to come back."""
_PAUSE: Final = 0.1
_MIGRATION_SECONDS: Final = 120.0
_FIRST_TABLES_SECONDS: Final = 10.0
_MIGRATION_PAUSE: Final = 0.5
_OUTCOME_SECONDS: Final = 5.0
SCHEMA_SECONDS: Final = 10.0
"""How long it takes until a node notices that a newer one has changed the schema."""
_SCHEMA: Final = "SELECT version_num FROM alembic_version"


def make_engine(address: DatabaseAddress, *, connections_held: int) -> Engine:
    """Return an engine whose transactions :class:`PostgresqlDatabase` begins. Connects to nothing yet."""
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: connections.connect_directly(address),
        pool_size=connections_held,
        max_overflow=0,
        pool_timeout=_POOL_SECONDS,
        use_native_hstore=False,
        # Of an INSERT too: whether the row was there already.
        execution_options={OPTION: DIALECT, "preserve_rowcount": True},
    )


class PostgresqlDatabase:
    """The :class:`~digestry.catalog.database.Database` at an address."""

    writers: Final = _CONNECTIONS

    def __init__(self, address: DatabaseAddress, *, commit_seconds: float = SECONDS) -> None:
        """A commit that is not answered within ``commit_seconds`` has an unknown outcome."""
        self._address = address
        self._commit_seconds = commit_seconds
        self._name = address.name
        self._check_at = 0.0
        self._statements = PreparedStatements(compiled_statement)
        self._writer = make_engine(address, connections_held=_CONNECTIONS)
        self._reader = make_engine(address, connections_held=_CONNECTIONS)

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Open one consistent view of the committed state."""
        with self._errors(), self._begun(self._reader, connections.BEGIN_READING) as (connection, _):
            self._check_schema(connection)
            yield connection
            connection.rollback()

    @contextlib.contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """Open a transaction that may write; see :meth:`Database.write`.

        Raises :class:`OutcomeUnknown` if the connection breaks in its commit.
        """
        begin = connections.BEGIN_WRITING if durable else connections.BEGIN_WRITING_UNSYNCED
        with self._errors(), self._begun(self._writer, begin) as (connection, row):
            self._check_schema(connection)
            yield connection
            self._commit(connection, row[-1])

    @contextlib.contextmanager
    def _begun(self, engine: Engine, begin: str) -> Iterator[tuple[PreparedConnection, Begun]]:
        with open_transaction(lambda: PreparedConnection(engine, self._statements), begin) as (
            connection,
            row,
        ):
            connection.served_by(row[0])
            yield connection, row

    def group_commit(self, jobs: Sequence[Job], *, durable: bool = True) -> list[Outcome]:
        """Call ``jobs`` one after the other, each in a transaction of its own: a job that waits for a row of
        another node then holds no locks that others wait for."""
        return [attempt(job) for job in jobs]

    def _check_schema(self, connection: Connection) -> None:
        """Check the schema now and then: a newer node may change it while this one runs."""
        if time.monotonic() < self._check_at:
            return
        check_schema(schema_of(connection), self._name, oldest=lambda: oldest_support(connection))
        self._check_at = time.monotonic() + SCHEMA_SECONDS

    def _commit(self, connection: PreparedConnection, number: str) -> None:
        try:
            commit(connection, self._commit_seconds)
        except Warned as warning:
            raise OutcomeUnknown(
                f"the catalog {self._name} has committed a change and warns: {warning}",
                committed=None,
                hint="see that its standby servers answer, and look at what is there before you try again",
            ) from None
        except psycopg.Error as error:
            if not (connection.driver.closed or is_lost(error)):
                raise
            raise self._outcome(number, failure(self._name, error).message) from error

    def _outcome(self, number: str, problem: str) -> StorageBusy:
        """Return the outcome of a transaction whose connection broke during its commit."""
        committed = self._ask_outcome(number)
        if committed is False:
            return TransactionUndone(f"{problem}; nothing was changed", hint=LATER)
        found = "it was committed" if committed else "the database does not say whether it was committed"
        return OutcomeUnknown(
            f"{problem} while it committed a change; {found}",
            committed=committed,
            hint="look at what is there now before you try again",
        )

    def _ask_outcome(self, number: str) -> bool | None:
        """Return whether a transaction was committed, asking over a fresh connection; None if that is
        unknown."""
        end = time.monotonic() + _OUTCOME_SECONDS
        while time.monotonic() < end:
            try:
                with connections.connect_directly(self._address) as fresh:
                    row = fresh.execute("SELECT pg_catalog.pg_xact_status(%s::xid8)", (number,)).fetchone()
            except psycopg.OperationalError:
                time.sleep(_PAUSE)
                continue
            except psycopg.Error as error:
                # A number that the server has not reached: it is another server, which never saw the
                # transaction.
                return False if error.sqlstate == "22023" else None
            if row is None or row[0] is None:
                return None
            if row[0] != "in progress":
                return bool(row[0] == "committed")
            time.sleep(_PAUSE)
        return None

    def check(self, tables: Iterable[str], *, pause: Callable[[], None] = lambda: None) -> None:
        """Return: PostgreSQL checks each page that it reads, if its cluster has checksums."""

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        with database_errors(self._name):
            yield

    def migrate(self) -> None:
        """Bring the schema up to date. Several nodes may call this at a time: one of them migrates.

        It waits for a lock on a table in short turns, because all later requests for the table wait behind
        it.
        """
        began = time.monotonic()
        while True:
            try:
                self._migrate()
            except (TransactionUndone, TableBusy, MadeAlready) as error:
                # Another node makes the same tables, or changes them, or somebody reads for long.
                patience = _FIRST_TABLES_SECONDS if isinstance(error, MadeAlready) else _MIGRATION_SECONDS
                if time.monotonic() > began + patience:
                    raise
                time.sleep(_MIGRATION_PAUSE)
            else:
                break
        self._check_at = 0.0

    def _migrate(self) -> None:
        with (
            self._errors(),
            open_transaction(self._writer.connect, connections.BEGIN_MIGRATING) as (connection, _),
        ):
            if schema_of(connection) is None:
                check_requirements(connection, self._name)
            else:
                connection.execute(text("LOCK TABLE alembic_version IN SHARE ROW EXCLUSIVE MODE"))
            upgrade(connection, self._name)
            connection.commit()

    def describe(self) -> str:
        """Return the database's address, without its password."""
        return self._name

    def size(self) -> int:
        """Return how many bytes the database takes on its server."""
        with self.read() as connection:
            query = text("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())")
            return int(connection.execute(query).scalar_one())

    def close(self) -> None:
        """Close all connections."""
        self._writer.dispose()
        self._reader.dispose()


@contextlib.contextmanager
def database_errors(name: str) -> Iterator[None]:
    """Turn an error of PostgreSQL's or SQLAlchemy's in the block into a :class:`StorageError`."""
    try:
        yield
    except (DBAPIError, SQLAlchemyError, psycopg.Error) as error:
        if is_unfit(error):
            raise CallerError("a text with a NUL character cannot be kept", hint="leave it out") from error
        raise failure(name, error) from error
    except InvalidDigest as error:
        # The text is from a row: callers pass a Digest.
        raise failure(name, error, hint=RESTORE) from error


C = TypeVar("C", bound=Connection)

Begun: TypeAlias = list[str]
"""The columns of the answer to the statements that begin a transaction."""


@contextlib.contextmanager
def open_transaction(connect: Callable[[], C], begin: str) -> Iterator[tuple[C, Begun]]:
    """Open a connection in a transaction that the statements ``begin`` begin; yield it with their answer.

    It is rolled back unless the block commits it. A connection that the server has closed since it was used
    last is replaced: nothing has been done in the transaction yet.
    """
    end = time.monotonic() + _RECONNECTING_SECONDS
    while True:
        try:
            connection = connect()
        except DBAPIError as error:
            if not is_lost(error) or time.monotonic() > end:
                raise
            time.sleep(_PAUSE)
            continue
        try:
            row = _begin(connection, begin)
            break
        except psycopg.Error as error:
            connection.invalidate()
            connection.close()
            if not is_lost(error) or time.monotonic() > end:
                raise
        except BaseException:
            connection.close()
            raise
    driver: Any = connection.connection.driver_connection
    with contextlib.closing(connection):
        try:
            yield connection, row
        except BaseException as error:
            if not connection.invalidated and (driver.closed or is_lost(error)):
                connection.invalidate()
            raise


def _begin(connection: Connection, begin: str) -> Begun:
    connection.begin()
    driver: Any = connection.connection.driver_connection
    result = driver.pgconn.exec_(begin.encode())
    if result.status != pq.ExecStatus.TUPLES_OK:
        raise failed(driver.pgconn, result)
    return [(result.get_value(0, column) or b"").decode() for column in range(result.nfields)]


def schema_of(connection: Connection) -> str | None:
    """Return which schema the database says that it has; None if it is no catalog."""
    found = connection.execute(text("SELECT pg_catalog.to_regclass('alembic_version')")).scalar()
    return None if found is None else connection.execute(text(_SCHEMA)).scalar()
