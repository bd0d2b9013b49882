"""What one node has acknowledged, each other node shows at once; a tag's history has no gap."""

from __future__ import annotations

import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from digestry.backend import StoreLocations, open_backend
from digestry.model import media_types
from digestry.model.digest import Digest
from tests.cluster.balancer import tcp_proxy
from tests.cluster.nodes import Nodes, campaign
from tests.support import RegistryServer, wait_until

pytestmark = [pytest.mark.xdist_group("cluster"), pytest.mark.long]

Three = tuple[RegistryServer, RegistryServer, RegistryServer]


def manifests(node: RegistryServer, name: str, count: int) -> list[bytes]:
    """So many different manifests of one image, whose blobs are pushed."""
    image = node.image(name)
    return [json.dumps({**image, "annotations": {"number": str(number)}}).encode() for number in range(count)]


def put(node: RegistryServer, path: str, manifest: bytes) -> int:
    headers = {"Content-Type": media_types.OCI_MANIFEST}
    return node.request("PUT", path, manifest, headers).status


def test_a_pull_on_any_node_sees_the_push_before_it(three: Three) -> None:
    raws = manifests(three[0], "moves", 60)
    for number, raw in enumerate(raws):
        pushed, asked = three[number % 3], three[(number + 1 + number % 2) % 3]
        assert put(pushed, "/v2/moves/manifests/latest", raw) == 201
        found = asked.request("GET", "/v2/moves/manifests/latest")
        assert (found.status, found.body) == (200, raw)


def test_many_pulls_see_the_push_before_them(three: Three) -> None:
    """Ten clients at once, each with a tag of its own."""
    times = campaign(1_000, 10_000) // 10

    def push_and_pull(client: int) -> int:
        name = f"many/{client}"
        raws = manifests(three[0], name, 50)
        stale = 0
        for number in range(times):
            raw = raws[number % 50]
            pushed, asked = three[number % 3], three[(number + 1 + number % 2) % 3]
            assert put(pushed, f"/v2/{name}/manifests/latest", raw) == 201
            stale += asked.request("GET", f"/v2/{name}/manifests/latest").body != raw
        return stale

    with ThreadPoolExecutor(10) as threads:
        assert sum(threads.map(push_and_pull, range(10))) == 0


def test_what_is_deleted_on_one_node_is_gone_on_all(three: Three) -> None:
    digest = three[0].push_image("gone", "1")
    for node in three:
        assert node.request("GET", "/v2/gone/manifests/1").status == 200
    assert three[1].request("DELETE", f"/v2/gone/manifests/{digest}").status == 202
    for node in three:
        assert node.request("GET", "/v2/gone/manifests/1").status == 404
        assert node.request("GET", f"/v2/gone/manifests/{digest}").status == 404


def test_twenty_writers_on_one_tag_leave_one_chain(three: Three, nodes: Nodes) -> None:
    raws = manifests(three[0], "race", 20)
    begin = threading.Barrier(20)

    def write(number: int) -> list[int]:
        begin.wait()
        return [
            put(three[(number + turn) % 3], "/v2/race/manifests/latest", raws[number]) for turn in range(3)
        ]

    with ThreadPoolExecutor(20) as threads:
        statuses = [status for found in threads.map(write, range(20)) for status in found]
    assert set(statuses) == {201}
    entries = history(three[0], "race", "latest")
    for newer, older in itertools.pairwise(entries):
        assert newer["fromDigest"] == older["toDigest"]
    assert entries[-1].get("fromDigest") is None
    verdict = open_backend(None, stores=StoreLocations(nodes.database, nodes.blobs)).catalog_store
    assert verdict.verify_journal().broken is None


def test_twenty_writers_on_immutable_tags_of_three_nodes_move_none(nodes: Nodes, tmp_path: Path) -> None:
    settings = tmp_path / "registry.toml"
    settings.write_text('[[immutability]]\nrepository = ["frozen"]\nmode = "immutable"\n')
    ruled = [nodes.start("--config", str(settings)) for _ in range(3)]
    raws = manifests(ruled[0], "frozen", 20)
    tags = [str(number) for number in range(campaign(5, 100))]
    begin = threading.Barrier(20)

    def write(number: int) -> list[int]:
        statuses = []
        for turn, tag in enumerate(tags):
            begin.wait()
            statuses.append(put(ruled[(number + turn) % 3], f"/v2/frozen/manifests/{tag}", raws[number]))
        return statuses

    with ThreadPoolExecutor(20) as threads:
        written = list(threads.map(write, range(20)))
    for number, tag in enumerate(tags):
        statuses = [found[number] for found in written]
        assert statuses.count(201) == 1
        assert set(statuses) == {201, 409}
        (entry,) = history(ruled[0], "frozen", tag)
        assert entry["toDigest"] == str(Digest.of(raws[statuses.index(201)]))
    for node in ruled:
        node.stop()


def history(node: RegistryServer, name: str, tag: str) -> list[dict[str, object]]:
    """A tag's moves, the last one first."""
    found = node.request("GET", f"/v2/{name}/_digestry/journal?tag={tag}&n=1000").json()
    return list(found["entries"])


def test_an_upload_goes_on_at_another_node(three: Three) -> None:
    content = [bytes([65 + part]) * 3_000_000 for part in range(4)]
    digest = Digest.of(b"".join(content))
    place = three[0].request("POST", "/v2/parts/blobs/uploads/").headers["location"]
    offset = 0
    for number, part in enumerate(content):
        headers = {
            "Content-Range": f"{offset}-{offset + len(part) - 1}",
            "Content-Type": "application/octet-stream",
        }
        answer = three[number % 3].request("PATCH", place, part, headers)
        assert answer.status == 202, answer.body
        place = answer.headers["location"]
        offset += len(part)
    joined = "&" if "?" in place else "?"
    assert three[1].request("PUT", f"{place}{joined}digest={digest}").status == 201
    for node in three:
        assert node.request("GET", f"/v2/parts/blobs/{digest}").body == b"".join(content)


def test_a_client_that_meets_another_node_each_time(three: Three) -> None:
    with tcp_proxy(*(("127.0.0.1", node.port) for node in three), one_request=True) as balancer:
        front = RegistryServer(balancer.host, three[0].process, three[0].root)
        digest = front.push_image("balanced", "1", b"x" * 1_000_000)
        for _ in range(6):
            found = front.request("GET", "/v2/balanced/manifests/1")
            assert found.headers["docker-content-digest"] == str(digest)


def test_the_journal_has_one_order_for_the_registry(three: Three, nodes: Nodes) -> None:
    for number in range(6):
        three[number % 3].push_image(f"order/{number}", "1", b"%d" % number)
    store = open_backend(None, stores=StoreLocations(nodes.database, nodes.blobs)).catalog_store

    def exported() -> list[dict[str, object]]:
        return [entry for line in store.export_journal() if "repository" in (entry := json.loads(line))]

    def ordered() -> bool:
        return sum(str(entry["repository"]).startswith("order/") for entry in exported()) == 6

    wait_until(ordered, what="each entry got its position")
    positions = [entry["sequence"] for entry in exported()]
    assert positions == list(range(1, len(positions) + 1))
