"""The catalog's tests run over each database that there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from digestry.backend import Backend, StoreLocations, open_backend
from digestry.catalog.catalog import Catalog
from tests.catalog.raw import PostgresqlRaw, Raw, SqliteRaw
from tests.catalog.support import Clock
from tests.catalog_databases import CatalogDatabases
from tests.postgresql import Cluster

DATABASES: Final = ("postgresql", "sqlite")
_HERE: Final = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Makes variants of a test long that differ by their data alone: over SQLite they all run each time.

    Over PostgreSQL the first and the last of them do.
    """
    variants: dict[str, list[pytest.Item]] = {}
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if item.path.is_relative_to(_HERE) and parameters.get("database") == "postgresql":
            variants.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for same in variants.values():
        for item in same[1:-1]:
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def catalog_databases(postgresql: Cluster) -> CatalogDatabases:
    """Databases of that server with a catalog's tables."""
    return CatalogDatabases(postgresql)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> str:
    """The name of a database. A test that is marked ``only_on`` another one does not run."""
    mark = request.node.get_closest_marker("only_on")
    if mark is not None and request.param != mark.args[0]:
        pytest.skip(mark.kwargs["reason"])
    return str(request.param)


@pytest.fixture
def url(database: str, request: pytest.FixtureRequest) -> Iterator[str | None]:
    """The URL of an empty database on a server; None for one in a file."""
    if database == "sqlite":
        yield None
        return
    if "catalog" in request.fixturenames:  # it migrates the database
        databases: CatalogDatabases = request.getfixturevalue("catalog_databases")
        with databases.lend() as made:
            yield made
        return
    postgresql: Cluster = request.getfixturevalue("postgresql")
    made = postgresql.new_database()
    yield made
    postgresql.drop_database(made)


@pytest.fixture
def backend(url: str | None, tmp_path: Path, clock: Clock) -> Backend:
    """The stores of a registry that has nothing yet, with a clock that stands still."""
    return open_backend(tmp_path, stores=StoreLocations(database=url), now=clock)


@pytest.fixture
def raw(url: str | None, tmp_path: Path) -> Raw:
    """The same database, for who goes around the catalog."""
    return SqliteRaw(tmp_path) if url is None else PostgresqlRaw(url)


@pytest.fixture
def catalog(backend: Backend) -> Iterator[Catalog]:
    """An empty catalog, its schema up to date."""
    made = backend.open_catalog()
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def later(catalog: Catalog, clock: Clock) -> Iterator[Clock]:
    """The clock, for tests that let all leases end."""
    yield clock
    assert catalog.verify_journal() is None
