"""The databases that tests lend each other: the planner knows as little of each as of a new one."""

from __future__ import annotations

import psycopg
import pytest

from tests.catalog_databases import CatalogDatabases
from tests.postgresql import Cluster


@pytest.mark.long
@pytest.mark.parametrize("statement", ["ANALYZE tags", "VACUUM tags"])
def test_a_database_with_statistics_is_not_lent_again(postgresql: Cluster, statement: str) -> None:
    databases = CatalogDatabases(postgresql)
    with databases.lend() as first, psycopg.connect(first, autocommit=True) as connection:
        connection.execute(statement)
    with databases.lend() as second, psycopg.connect(second) as connection:
        found = connection.execute("SELECT reltuples FROM pg_class WHERE relname = 'tags'").fetchone()
    assert (second != first, found) == (True, (-1.0,))


def test_a_database_without_statistics_is_lent_again(postgresql: Cluster) -> None:
    databases = CatalogDatabases(postgresql)
    with databases.lend() as first, psycopg.connect(first) as connection:
        connection.execute("UPDATE identity SET id = 'other'")
    with databases.lend() as second:
        assert second == first
