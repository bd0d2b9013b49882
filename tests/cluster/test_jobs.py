"""Each job is done by one node at a time, goes on elsewhere when that node dies, and is not done twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.backend import Backend, StoreLocations, open_backend
from digestry.catalog.job_states import COLLECTION
from digestry.coordination.protocol import Job
from digestry.registry.access import untrusted_tokens
from digestry.registry.access.keys import KeyRing
from tests import seaweed
from tests.cluster.nodes import Nodes, registry_nodes
from tests.postgresql import Cluster
from tests.registry.access.support import basic, bearer, htpasswd, token
from tests.registry.webhook_receiver import SECRET, Receiver, running_receiver
from tests.support import RegistryServer, wait_until

pytestmark = [pytest.mark.xdist_group("cluster"), pytest.mark.long]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as server:
        yield server


@pytest.fixture
def registry(tmp_path: Path, postgresql: Cluster, s3: seaweed.S3Server) -> Iterator[Nodes]:
    """A registry of its own for each test, without nodes yet."""
    with registry_nodes(tmp_path, postgresql, s3) as found:
        yield found


@pytest.fixture
def backend(registry: Nodes, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """The stores of the registry, as a command opens them."""
    for name, value in registry.environment.items():
        monkeypatch.setenv(name, value)
    return open_backend(None, stores=StoreLocations(registry.database, registry.blobs))


def holder(backend: Backend, job: Job, nodes: list[RegistryServer]) -> RegistryServer:
    """The node that does ``job`` now."""
    found: list[RegistryServer] = []

    def held() -> bool:
        process = int(backend.coordination.holders().get(job, "/0").rpartition("/")[2])
        found.extend(node for node in nodes if process in node.processes())
        return bool(found)

    wait_until(held, what=f"a node that does the job {job}")
    return found[0]


def test_events_are_sent_by_one_node_and_then_by_another(
    registry: Nodes, backend: Backend, receiver: Receiver, tmp_path: Path
) -> None:
    settings = tmp_path / "registry.toml"
    settings.write_text(f'[[webhook]]\nname = "h"\nurl = "{receiver.url}"\nsecret = "{SECRET}"\n')
    nodes = [registry.start("--config", str(settings)) for _ in range(3)]
    for number in range(6):
        nodes[number % 3].push_image("app", str(number), b"%d" % number)
    wait_until(lambda: len(receiver.ids()) >= 6, what="the first events")
    assert len(set(receiver.ids())) == len(receiver.ids()) == 6
    wait_until(lambda: _delivered(backend), what="the notes of what was taken")
    first = holder(backend, Job.WEBHOOKS, nodes)
    first.kill()
    nodes.remove(first)
    for number in range(6, 12):
        nodes[number % 2].push_image("app", str(number), b"%d" % number)
    wait_until(lambda: len(receiver.ids()) >= 12, what="the events after a node died")
    assert len(set(receiver.ids())) == len(receiver.ids()) == 12
    assert holder(backend, Job.WEBHOOKS, nodes) is not first
    found = nodes[0].request("GET", "/metrics")
    assert b'digestry_job_node{job="webhooks",node="' in found.body


def _delivered(backend: Backend) -> bool:
    catalog = backend.open_catalog()
    try:
        return not catalog.delivery_queue.listed(limit=1)
    finally:
        catalog.close()


def test_a_collection_runs_on_another_node_after_one_died(
    registry: Nodes, backend: Backend, tmp_path: Path
) -> None:
    settings = tmp_path / "registry.toml"
    settings.write_text('[collection]\nevery = "6s"\nlease = "1s"\n')
    nodes = [registry.start("--config", str(settings)) for _ in range(3)]
    nodes[0].push_image("app", "1")
    catalog = backend.open_catalog()

    def runs() -> int:
        state = catalog.jobs.state(COLLECTION)
        return 0 if state is None else int(state.state.get("runs", 0))

    try:
        wait_until(lambda: runs() >= 1, what="a first run")
        began, before = time.monotonic(), runs()
        wait_until(lambda: runs() >= before + 2, what="two more runs")
        # Three nodes of which each ran every six seconds would take four seconds for them.
        assert time.monotonic() - began > 5.0
        nodes[0].kill()
        nodes[1].kill()
        before = runs()
        wait_until(lambda: runs() > before, what="a run after two nodes died")
    finally:
        catalog.close()
    assert nodes[2].request("GET", "/v2/app/manifests/1").status == 200


def test_a_token_of_one_node_is_good_at_all_until_its_key_is_retired(
    registry: Nodes, backend: Backend, tmp_path: Path
) -> None:
    (tmp_path / "users").write_text(htpasswd({"alice": "secret of alice"}))
    settings = tmp_path / "registry.toml"
    settings.write_text(
        '[auth]\nhtpasswd = "users"\n[[rule]]\nwho = "alice"\nrepository = "**"\nactions = ["pull", "push"]\n'
    )
    nodes = [registry.start("--config", str(settings)) for _ in range(2)]
    login = basic("alice", "secret of alice")
    old = token(nodes[0], "repository:app:pull,push", headers=login)["token"]
    for node in nodes:
        assert node.request("POST", "/v2/app/blobs/uploads/", headers=bearer(old)).status == 202
    keys = KeyRing(backend.coordination.keys)
    keys.rotate()
    keys.refresh()
    kid, _ = keys.signing()
    fresh = ""

    def signed_anew() -> bool:
        nonlocal fresh
        fresh = token(nodes[0], "repository:app:pull,push", headers=login)["token"]
        return untrusted_tokens.header(fresh).kid == kid

    wait_until(signed_anew, what="signing with the new key")
    assert nodes[1].request("POST", "/v2/app/blobs/uploads/", headers=bearer(fresh)).status == 202
    keys.rotate(retire=True)
    for node in nodes:

        def refused(node: RegistryServer = node) -> bool:
            return node.request("POST", "/v2/app/blobs/uploads/", headers=bearer(old)).status == 401

        wait_until(refused, what="the end of the old key")
