"""The kinds of coordination that the contract is tested with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from digestry.coordination.protocol import Coordination
from tests.catalog_databases import CatalogDatabases
from tests.coordination.nodes import close_node, open_node, through
from tests.pgbouncer import running_pgbouncer
from tests.postgresql import Cluster

LEASE = 2.0
"""Seconds: long enough that a busy machine renews it in time."""

MakeNode = Callable[..., Coordination]


@pytest.fixture(scope="session")
def pgbouncer(postgresql: Cluster) -> Iterator[int]:
    """The port of a pooler before the server."""
    with running_pgbouncer(postgresql) as port:
        yield port


@pytest.fixture(scope="session")
def catalog_databases(postgresql: Cluster) -> CatalogDatabases:
    """Databases of that server with a catalog's tables."""
    return CatalogDatabases(postgresql)


@pytest.fixture
def database(catalog_databases: CatalogDatabases) -> Iterator[str]:
    """The URL of a database with the catalog's tables."""
    with catalog_databases.lend() as url:
        yield url


@pytest.fixture(params=["files", "postgresql", pytest.param("pgbouncer", marks=pytest.mark.long)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the nodes of a registry meet: a directory or a database's URL."""
    if request.param == "files":
        return str(tmp_path)
    url: str = request.getfixturevalue("database")
    if request.param == "pgbouncer":
        return through(url, request.getfixturevalue("pgbouncer"))
    return url


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
