"""Nodes that are killed, and a database and a store that go away: nothing acknowledged is lost.

Without the long ones, connections that are reset stand for all of them.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from digestry.backend import Backend, StoreLocations, open_backend
from digestry.catalog.job_states import COLLECTION
from tests import seaweed
from tests.cluster.balancer import tcp_proxy
from tests.cluster.companions import KEEP, Companions, settings
from tests.cluster.load import Load
from tests.cluster.nodes import Nodes, campaign, registry_nodes
from tests.cluster.remains import Remains
from tests.postgresql import Cluster, running_cluster
from tests.registry.pull_through.support import Upstream, upstream
from tests.registry.webhook_receiver import SECRET, Receiver, running_receiver
from tests.support import PATIENCE, RegistryServer, wait_until

pytestmark = [pytest.mark.xdist_group("cluster"), pytest.mark.long]

BACK_SECONDS = 40.0
"""So long after a failure pushes must be acknowledged again: less than 10 s on a machine that is not busy."""

_SETTINGS = """
{top}

[limits]
upload-idle-seconds = 4

[collection]
every = "6s"

[[webhook]]
name = "all"
url = "{url}"
secret = "{secret}"

{sections}
"""


@pytest.fixture
def own(tmp_path: Path, postgresql: Cluster, s3: seaweed.S3Server) -> Iterator[Nodes]:
    """A registry of one test's own, which may break it."""
    with registry_nodes(tmp_path, postgresql, s3) as nodes:
        yield nodes


@dataclass(frozen=True)
class Others:
    """Who the jobs work with: receivers of webhooks, of tags' events and of all others, and a registry that
    is observed."""

    receiver: Receiver
    fleet: Receiver
    upstream: Upstream


@pytest.fixture
def others() -> Iterator[Others]:
    with running_receiver() as receiver, running_receiver() as fleet, upstream() as up:
        yield Others(receiver, fleet, up)


class Campaign:
    """Nodes under load, behind a balancer, with all jobs, while something fails again and again."""

    def __init__(self, nodes: Nodes, others: Others, count: int = 2) -> None:
        self.nodes = nodes
        self.others = others
        self.receiver = others.receiver
        file = nodes.directory / "registry.toml"
        top, sections = settings(others.upstream, others.fleet)
        url = others.receiver.url
        file.write_text(_SETTINGS.format(top=top, url=url, secret=SECRET, sections=sections))
        self._arguments = ("--config", str(file))
        self.running = [nodes.start(*self._arguments) for _ in range(count)]

    def kill_node(self, which: int) -> None:
        """Kill a node, and start another at its address."""
        self.running[which].kill()
        self.running[which] = self.nodes.start(*self._arguments, port=self.running[which].port)

    def run(self, fail: Callable[[int], object], times: int) -> None:
        """Let something fail so many times; then check what clients were told, and what is left."""
        with tcp_proxy(*(("127.0.0.1", node.port) for node in self.running)) as balancer:
            front = RegistryServer(balancer.host, self.running[0].process, self.nodes.directory)
            began = time.monotonic()
            with (
                Companions(front, self.others.upstream, self.others.fleet) as companions,
                Load(front) as load,
            ):
                load.wait_for_pushes(8, seconds=BACK_SECONDS)
                back = []
                for number in range(times):
                    fail(number)
                    back.append(load.wait_for_pushes(4, seconds=BACK_SECONDS))
            seconds = time.monotonic() - began
            print(
                f"{times} failures in {seconds:.0f} s; {load.pushed} images acknowledged, {load.refused}"
                f" pushes refused; the next came after {statistics.median(back):.1f} s, at most"
                f" {max(back):.1f} s",
                flush=True,
            )
            load.check(*self.running)
            self._check_events(load, times)
            self._check_collections(began, times)
            wait_until(lambda: companions.settled(front), what="the last move elsewhere")
            self._wait_for_retention(load)
            companions.check(_backend(self.nodes).catalog_store.export_journal(), self.running)
        verify_journal(self.nodes)
        self._check_remains()
        print(companions.figures)

    def _wait_for_retention(self, load: Load) -> None:
        """Wait until no node shows more tags than are kept, while they get fewer; ``latest`` is one more."""
        names = [f"load/{number}" for number in range(len(load.known))]
        before, since = -1, time.monotonic()
        while True:
            shown = {
                (name, node.host): node.request("GET", f"/v2/{name}/tags/list").json()["tags"]
                for name in names
                for node in self.running
            }
            left = sum(max(0, len(tags) - KEEP - 1) for tags in shown.values())
            if not left:
                return
            if left != before:
                before, since = left, time.monotonic()
            assert time.monotonic() < since + PATIENCE, f"tags stay: {shown}"
            time.sleep(0.5)

    def _check_events(self, load: Load, times: int) -> None:
        """Each move was told to the webhook, and twice only if its sender failed before it could note it."""
        acknowledged = {str(digest) for known in load.known for digest in known.manifests}

        def told() -> bool:
            with self.receiver.lock:
                digests = {str(message["data"].get("toDigest")) for message in self.receiver.taken}
            return acknowledged <= digests

        wait_until(told, what="an event of each move")
        counts = Counter(self.receiver.ids())
        assert sum(counts.values()) - len(counts) <= times
        assert max(counts.values()) <= 2

    def _check_collections(self, began: float, times: int) -> None:
        """Collections were as many as one node at a time makes: each failure may have let one begin anew."""
        catalog = _backend(self.nodes).open_catalog()
        with closing(catalog):
            state = catalog.jobs.state(COLLECTION)
        runs = 0 if state is None else int(state.state.get("runs", 0))
        assert runs <= (time.monotonic() - began) / 6 + times + 3

    def _check_remains(self) -> None:
        with closing(Remains(self.nodes)) as remains:
            remains.remove_orphans()
            wait_until(lambda: not remains.uploads(), what="the end of the uploads that were broken off")
            remains.remove_orphans()
            assert remains.unnamed_objects() == []
            assert remains.uploads() == []


def _backend(nodes: Nodes) -> Backend:
    return open_backend(None, stores=StoreLocations(nodes.database, nodes.blobs))


def verify_journal(nodes: Nodes) -> None:
    verdict = _backend(nodes).catalog_store.verify_journal()
    assert verdict.broken is None
    assert verdict.entries > 0


@pytest.mark.parametrize("times", [campaign(6, 150)])
def test_nodes_are_killed(own: Nodes, others: Others, times: int) -> None:
    three = Campaign(own, others, 3)
    three.run(lambda number: three.kill_node(number % 3), times)


@pytest.mark.parametrize("times", [campaign(4, 19)])
def test_the_database_is_killed(tmp_path: Path, others: Others, s3: seaweed.S3Server, times: int) -> None:
    with running_cluster() as database, registry_nodes(tmp_path, database, s3) as nodes:
        Campaign(nodes, others).run(lambda _: database.restart("immediate"), times)


def test_a_standby_is_promoted(tmp_path: Path, others: Others, s3: seaweed.S3Server) -> None:
    """The database's server is killed, and its address goes to the synchronous standby."""
    with running_cluster() as first, registry_nodes(tmp_path, first, s3) as nodes:
        second = first.standby(first.directory / "standby")
        try:
            with first.superuser() as connection:
                connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
                connection.execute("SELECT pg_reload_conf()")

            def fail_over(_: int) -> None:
                first.stop("immediate")
                second.promote()
                nodes.to_database.retarget(("127.0.0.1", second.port))

            Campaign(nodes, others).run(fail_over, 1)
        finally:
            nodes.stop()
            second.stop()


@pytest.mark.parametrize("times", [campaign(3, 20)])
def test_the_store_is_killed(tmp_path: Path, postgresql: Cluster, others: Others, times: int) -> None:
    with seaweed.running_server() as s3, registry_nodes(tmp_path, postgresql, s3) as nodes:

        def kill(_: int) -> None:
            s3.kill()
            time.sleep(0.5)
            s3.start()

        Campaign(nodes, others).run(kill, times)


@pytest.mark.parametrize("times", [1, pytest.param(campaign(4, 20))])
def test_connections_to_the_stores_are_reset(own: Nodes, others: Others, times: int) -> None:
    def reset(_: int) -> None:
        own.to_store.reset()
        own.to_database.reset()

    Campaign(own, others).run(reset, times)


@pytest.mark.parametrize("times", [campaign(2, 6)])
def test_networks_are_cut_for_half_a_minute_under_load(own: Nodes, others: Others, times: int) -> None:
    def cut(number: int) -> None:
        proxy = (own.to_database, own.to_store)[number % 2]
        proxy.cut()
        time.sleep(30)
        proxy.mend()

    Campaign(own, others).run(cut, times)


@pytest.mark.parametrize("which", ["database", "store"])
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
