"""The kinds of coordination that the contract is tested with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, create_engine, make_url, text

from digestry.catalog.migrations.versions import v0011_coordination
from digestry.coordination.protocol import Coordination
from tests.coordination.nodes import close_node, open_node
from tests.coordination.postgresql import running_pgbouncer, running_postgresql

LEASE = 2.0
"""Seconds: long enough that a busy machine renews it in time."""

MakeNode = Callable[..., Coordination]

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    pytest.importorskip("psycopg")
    with running_postgresql() as url:
        yield url


@pytest.fixture(scope="session")
def pgbouncer(postgresql: str) -> Iterator[str]:
    url = make_url(postgresql)
    assert url.port is not None
    with running_pgbouncer(url.port) as port:
        yield url.set(port=port).render_as_string(hide_password=False)


@pytest.fixture
def database(postgresql: str) -> str:
    """The URL of an empty database with the catalog's tables."""
    name = f"coordination{next(_numbers)}"
    url = make_url(postgresql).set(drivername="postgresql+psycopg")
    server = create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    server.dispose()
    made = create_engine(url.set(database=name))
    with made.begin() as connection:
        _migrate(connection)
    made.dispose()
    return url.set(drivername="postgresql", database=name).render_as_string(hide_password=False)


def _migrate(connection: Connection) -> None:
    with Operations.context(MigrationContext.configure(connection)):
        v0011_coordination.upgrade()


@pytest.fixture(params=["files", "postgresql", "pgbouncer"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the nodes of a registry meet: a directory or a database's URL."""
    if request.param == "files":
        return str(tmp_path)
    database = make_url(request.getfixturevalue("database"))
    if request.param == "pgbouncer":
        database = database.set(port=make_url(request.getfixturevalue("pgbouncer")).port)
    return database.render_as_string(hide_password=False)


@pytest.fixture
def make_node(place: str) -> Iterator[MakeNode]:
    """Makes one more node of the registry."""
    nodes: list[Coordination] = []

    def make() -> Coordination:
        nodes.append(open_node(place, **({"lease_seconds": LEASE} if "://" in place else {})))
        return nodes[-1]

    yield make
    for node in nodes:
        close_node(node)


@pytest.fixture
def here(make_node: MakeNode) -> Coordination:
    """A node."""
    return make_node()


@pytest.fixture
def there(make_node: MakeNode) -> Coordination:
    """Another node of the same registry."""
    return make_node()
