"""PostgreSQL databases with a catalog's tables, lent to one test after the other.

To copy a database for each test takes longer than to remove what a test has put in one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import psycopg

from tests.postgresql import Cluster

_SCHEMA: Final = """
    SELECT md5(string_agg(fact, ' ' ORDER BY fact)) FROM (
        SELECT concat_ws(' ', attrelid::regclass, attname, atttypid, attnotnull) AS fact
        FROM pg_attribute JOIN pg_class ON attrelid = pg_class.oid
        WHERE relnamespace = 'public'::regnamespace AND attnum > 0
        UNION ALL SELECT concat_ws(' ', tgname, tgenabled) FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT concat_ws(' ', relname, reltuples < 0) FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
    ) AS facts
"""
"""One value that differs once a test has changed tables, indexes or triggers, or analysed a table: the
planner treats a table differently after that."""
_TABLES: Final = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
_END_CONNECTIONS: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
_NO_TRIGGERS: Final = "SET session_replication_role = replica"
_RESTART_SEQUENCES: Final = "SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'"


class CatalogDatabases:
    """The databases of one server that tests may have. For one thread."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._free: list[_CatalogDatabase] = []

    @contextlib.contextmanager
    def lend(self) -> Iterator[str]:
        """Give the URL of a database with an empty catalog, which is the caller's own in the block."""
        database = self._free.pop() if self._free else _CatalogDatabase(self._cluster)
        yield database.url
        if database.reset():
            self._free.append(database)
        else:
            self._cluster.drop_database(database.url)


class _CatalogDatabase:
    """A database, and the statements that make its rows what the migrations left."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.url = cluster.new_database(migrated=True)
        self._statements = [_END_CONNECTIONS, _NO_TRIGGERS, _RESTART_SEQUENCES]
        with self._connect() as connection:
            self._schema = connection.execute(_SCHEMA).fetchone()
            connection.execute("CREATE SCHEMA migrated")
            for (table,) in connection.execute(_TABLES).fetchall():
                connection.execute(f"CREATE TABLE migrated.{table} AS TABLE public.{table}")
                if connection.execute(f"SELECT FROM migrated.{table} LIMIT 1").fetchone() is None:
                    self._statements.append(f"DELETE FROM {table}")  # noqa: S608 - a table's name
                else:
                    same = f"SELECT FROM migrated.{table} AS before WHERE before = now"
                    self._statements.append(f"DELETE FROM {table} AS now WHERE NOT EXISTS ({same})")  # noqa: S608
                    self._statements.append(
                        f"INSERT INTO {table} TABLE migrated.{table} EXCEPT TABLE {table}"
                    )

    def _connect(self) -> contextlib.AbstractContextManager[psycopg.Connection[Any]]:
        return self._cluster.superuser(self.url.rpartition("/")[2])

    def reset(self) -> bool:
        """End all connections and make all rows what they were; return False if the tables are others."""
        with self._connect() as connection:
            if connection.execute(_SCHEMA).fetchone() != self._schema:
                return False
            connection.execute(";".join(self._statements))
            return True
