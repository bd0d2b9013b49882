"""A catalog behind PgBouncer in transaction mode."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.backend import Backend, StoreLocations, open_backend
from digestry.catalog.catalog import Catalog
from tests.catalog.support import Clock, collected, image, pushed, put
from tests.catalog.test_races import at_once
from tests.pgbouncer import running_pgbouncer
from tests.postgresql import Cluster


@pytest.fixture
def pooled(
    postgresql: Cluster, url: str, catalog: Catalog, tmp_path: Path, clock: Clock
) -> Iterator[Backend]:
    """The stores of the registry, with four connections of the server's for all."""
    with running_pgbouncer(postgresql) as port:
        location = StoreLocations(database=postgresql.url(url.rpartition("/")[2], port=port))
        yield open_backend(tmp_path, stores=location, now=clock)


@pytest.mark.long
def test_pushes_and_collections_of_nodes_behind_it(pooled: Backend, catalog: Catalog, later: Clock) -> None:
    nodes = [pooled.open_catalog() for _ in range(3)]
    manifests = [image(catalog, "x") for _ in range(6)]

    def push(node: Catalog) -> None:
        for manifest in manifests:
            put(node, "x", manifest, "t")
            pushed(node, "y", ["u"])

    at_once(*(lambda node=node: push(node) for node in nodes))
    later.now += 10**12
    assert collected(nodes[0])
    assert pooled.catalog_store.verify_journal().broken is None
    assert len(list(nodes[0].journal("x", limit=1000))) >= 6
    for node in nodes:
        node.close()


def test_reads_behind_it_see_each_push(pooled: Backend, catalog: Catalog) -> None:
    async def read() -> None:
        reads = pooled.open_reads()
        for _ in range(20):
            manifest = await asyncio.to_thread(pushed, catalog, "x")
            asked = [reads.manifest("x", "t") for _ in range(10)]
            asked += [reads.manifest("x", str(manifest.digest)) for _ in range(10)]
            for found in await asyncio.gather(*asked):
                assert found is not None
                assert found.digest == str(manifest.digest)
        await reads.close()

    asyncio.run(read())


@pytest.mark.long
def test_an_empty_database_is_migrated_behind_it(postgresql: Cluster, tmp_path: Path) -> None:
    url = postgresql.new_database()
    with running_pgbouncer(postgresql) as port:
        location = StoreLocations(database=postgresql.url(url.rpartition("/")[2], port=port))
        catalog = open_backend(tmp_path, stores=location).open_catalog()
        catalog.migrate()
        pushed(catalog, "x")
        assert catalog.verify_journal() is None
        catalog.close()
    postgresql.drop_database(url)
