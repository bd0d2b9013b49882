"""A catalog that is in a PostgreSQL database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

from sqlalchemy import Connection, inspect, text

from digestry.catalog import clock
from digestry.catalog.journal_views import JournalViews
from digestry.catalog.object_schema import blob_objects
from digestry.catalog.postgresql import connection as connections
from digestry.catalog.postgresql.address import DatabaseAddress
from digestry.catalog.postgresql.database import (
    PostgresqlDatabase,
    database_errors,
    make_engine,
    open_transaction,
    schema_of,
)
from digestry.catalog.postgresql.failures import failures
from digestry.catalog.postgresql.reads import PostgresqlReads
from digestry.catalog.postgresql.robot_reads import PostgresqlRobotReads
from digestry.catalog.postgresql.temporary_copy import TemporaryCopy
from digestry.catalog.registry_identity import RegistryIdentity
from digestry.catalog.schema import (
    damaged,
    journal,
    leases,
    links,
    manifests,
    repositories,
    robot_tokens,
    sightings,
    tags,
    uploads,
)
from digestry.catalog.schema_version import check_schema, oldest_support
from digestry.errors import Conflict, NotFound, StorageError


class PostgresqlStore(JournalViews):
    """The :class:`~digestry.catalog.store.CatalogStore` whose database is at ``address``."""

    def __init__(self, address: DatabaseAddress) -> None:
        self.address = address

    def describe(self) -> str:
        """Return the database's address, without its password."""
        return self.address.name

    def is_empty(self) -> bool:
        """Return whether the database has no catalog yet. Raises :class:`StorageError`."""
        with self._connection() as connection:
            return schema_of(connection) is None

    def require(self) -> None:
        """Raise :class:`NotFound` unless the database has a catalog, :class:`StorageError` if it does not
        answer."""
        if self.is_empty():
            raise self._absent()

    def _absent(self) -> NotFound:
        return NotFound(
            f"there is no registry in {self.describe()}: it has no catalog",
            hint="name the database that digestry serve has; the first start makes its tables",
        )

    def identity(self) -> RegistryIdentity | None:
        """Return which registry the catalog is of; None for one from before there were IDs.

        Raises :class:`StorageError`.
        """
        with self._connection() as connection:
            if not inspect(connection).has_table("identity"):
                return None
            rows = connection.execute(text("SELECT id, bound, generation FROM identity")).all()
        if len(rows) != 1:
            raise StorageError(f"the catalog {self.describe()} does not say which registry it is of")
        return RegistryIdentity(*rows[0])

    def owner(self) -> None:
        """Return None: the catalog is in no files of this host's."""

    def file_names(self) -> frozenset[str]:
        """Return nothing: the catalog has no files in the root."""
        return frozenset()

    def open(self) -> PostgresqlDatabase:
        """Open the database. Nothing is connected to yet."""
        return PostgresqlDatabase(self.address)

    def open_reads(self) -> PostgresqlReads:
        """Open the reads of one event loop. They connect at the first query."""
        return PostgresqlReads(self.address)

    def open_robot_reads(self, now: clock.Clock) -> PostgresqlRobotReads:
        """Open the look-ups of robot tokens for one event loop. They connect at the first query."""
        return PostgresqlRobotReads(self.address, now)

    def open_changes(self) -> PostgresqlChanges:
        """Open the listener for changes. Raises :class:`StorageError`."""
        return PostgresqlChanges(self.address)

    @contextlib.contextmanager
    def copied(self, directory: Path) -> Iterator[TemporaryCopy]:
        """Open a copy of the catalog as it is at one moment, in temporary tables of the server's; see
        :meth:`CatalogStore.copied`. ``directory`` is not used."""
        with self._connection(connections.BEGIN_COPYING) as connection:
            if schema_of(connection) is None:
                raise self._absent()
            yield TemporaryCopy(connection, self.describe())

    def as_file(self) -> NoReturn:
        """Raise :class:`Conflict`: the catalog is no file."""
        raise Conflict(
            f"the catalog {self.describe()} is no file that digestry copies or restores",
            hint="PostgreSQL's own tools do: pg_dump, or pg_basebackup with an archive of the server's log",
        )

    @contextlib.contextmanager
    def view(self, *, older: bool) -> Iterator[Connection]:
        """Open one consistent view of the catalog, until its reader closes it."""
        with self._connection() as connection:
            schema = schema_of(connection)
            if schema is None:
                raise self._absent()
            check_schema(schema, self.describe(), older=older, oldest=lambda: oldest_support(connection))
            yield connection

    @contextlib.contextmanager
    def _connection(self, begin: str = connections.BEGIN_LONG_READING) -> Iterator[Connection]:
        engine = make_engine(self.address, connections_held=1)
        try:
            with (
                database_errors(self.describe()),
                open_transaction(engine.connect, begin) as (connection, _),
            ):
                yield connection
        finally:
            engine.dispose()


_CONTENT_TABLES: Final = (
    repositories.name,
    links.name,
    manifests.name,
    tags.name,
    journal.name,
    uploads.name,
    leases.name,
    damaged.name,
    robot_tokens.name,
    sightings.name,
    blob_objects.name,
)
_CHANGED_ROWS: Final = (
    "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) FROM pg_catalog.pg_stat_user_tables"
    " WHERE schemaname = current_schema() AND relname = ANY(%s)"
)


class PostgresqlChanges:
    """The :class:`~digestry.catalog.store.CatalogChanges` of a database, from the server's statistics.

    A change is in them a second after its commit, or up to ten where the connection is busy. What nodes write
    all the time, such as the renewals of their locks, is none.
    """

    def __init__(self, address: DatabaseAddress) -> None:
        self._address = address
        self._connection: Any = None
        self.number()

    def number(self) -> int:
        """Return a number that is another one after a change."""
        with failures(self._address.name):
            if self._connection is None or self._connection.closed:
                self._connection = connections.connect_directly(self._address)
            (number,) = self._connection.execute(_CHANGED_ROWS, [list(_CONTENT_TABLES)]).fetchone()
        return int(number)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()
