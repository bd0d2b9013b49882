"""Nodes that are killed, and a database and a store that go away: nothing acknowledged is lost.

Without the long ones, connections that are reset stand for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from digestry.backend import StoreLocations, open_backend
from tests.cluster.balancer import TcpProxy, tcp_proxy
from tests.cluster.load import Load
from tests.cluster.nodes import Nodes, campaign, registry_nodes
from tests.postgresql import Cluster
from tests.seaweed import S3Server
from tests.support import RegistryServer, wait_until

pytestmark = pytest.mark.xdist_group("cluster")

BACK_SECONDS = 40.0
"""So long after a failure pushes must be acknowledged again: less than 10 s on a machine that is not busy."""


@pytest.fixture
def own(tmp_path: Path, postgresql: Cluster, s3: S3Server) -> Iterator[Nodes]:
    """A registry of one test's own, which may break it."""
    with registry_nodes(tmp_path, postgresql, s3) as nodes:
        yield nodes


def verify_journal(nodes: Nodes) -> None:
    store = open_backend(None, stores=StoreLocations(nodes.database, nodes.blobs)).catalog_store
    verdict = store.verify_journal()
    assert verdict.broken is None
    assert verdict.entries > 0


def under_load(nodes: Nodes, fail: Callable[[TcpProxy, list[RegistryServer]], None], times: int) -> None:
    """Let something fail so many times while clients push, and check all that they were told."""
    running = [nodes.start(), nodes.start()]
    with tcp_proxy(*(("127.0.0.1", node.port) for node in running)) as balancer:
        front = RegistryServer(balancer.host, running[0].process, nodes.directory)
        with Load(front) as load:
            load.wait_for_pushes(8, seconds=BACK_SECONDS)
            for _ in range(times):
                fail(balancer, running)
                load.wait_for_pushes(4, seconds=BACK_SECONDS)
        load.check(*running)
    verify_journal(nodes)


@pytest.mark.long
@pytest.mark.parametrize("times", [campaign(6, 50)])
def test_nodes_are_killed(own: Nodes, times: int) -> None:
    turn = iter(range(times))

    def kill(balancer: TcpProxy, running: list[RegistryServer]) -> None:
        which = next(turn) % 2
        running[which].kill()
        running[which] = own.start(port=running[which].port)

    under_load(own, kill, times)


@pytest.mark.long
@pytest.mark.parametrize("times", [campaign(4, 20)])
def test_the_database_is_killed(own: Nodes, postgresql: Cluster, times: int) -> None:
    under_load(own, lambda *_: postgresql.restart("immediate"), times)


@pytest.mark.parametrize("times", [1, pytest.param(campaign(4, 20), marks=pytest.mark.long)])
def test_connections_to_the_stores_are_reset(own: Nodes, times: int) -> None:
    def reset(*_: object) -> None:
        own.to_store.reset()
        own.to_database.reset()

    under_load(own, reset, times)


@pytest.mark.parametrize("which", ["database", "store"])
@pytest.mark.long
@pytest.mark.parametrize("seconds", [6, 30])
def test_a_network_that_drops_everything(own: Nodes, which: str, seconds: int) -> None:
    """Requests and ``/readyz`` answer 503 in bounded time meanwhile, and the node goes on by itself."""
    proxy = own.to_database if which == "database" else own.to_store
    node = own.start()
    digest = node.push_image("cut", "1", b"x" * 100_000)
    assert node.request("GET", "/readyz").status == 200
    proxy.cut()
    try:
        begun = time.monotonic()
        wait_until(lambda: node.request("GET", "/readyz").status == 503, what="the node is not ready")
        assert node.request("POST", "/v2/cut/blobs/uploads/?digest=" + str(digest), b"y").status in {400, 503}
        assert node.request("PUT", "/v2/cut/manifests/2", b"{}").status in {400, 503}
        time.sleep(max(0.0, seconds - (time.monotonic() - begun)))
    finally:
        proxy.mend()
    wait_until(lambda: node.request("GET", "/readyz").status == 200, what="the node is ready again")
    assert node.request("GET", "/v2/cut/manifests/1").headers["docker-content-digest"] == str(digest)
    node.push_image("cut", "3", b"z" * 100_000)
