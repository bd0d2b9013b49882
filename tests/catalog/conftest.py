"""The catalog's tests run over each database that there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from digestry.backend import Backend, open_backend
from digestry.catalog.catalog import Catalog
from tests.catalog.raw import Raw, SqliteRaw
from tests.catalog.support import Clock

DATABASES: dict[str, Callable[[Path], Raw]] = {"sqlite": SqliteRaw}
"""What goes around the catalog, by the database's name."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=sorted(DATABASES))
def database(request: pytest.FixtureRequest) -> str:
    """The name of a database."""
    return str(request.param)


@pytest.fixture
def backend(database: str, tmp_path: Path, clock: Clock) -> Backend:
    """The stores of a registry that has nothing yet, with a clock that stands still."""
    assert database == "sqlite"
    return open_backend(tmp_path, now=clock)


@pytest.fixture
def raw(database: str, tmp_path: Path) -> Raw:
    """The same database, for who goes around the catalog."""
    return DATABASES[database](tmp_path)


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
