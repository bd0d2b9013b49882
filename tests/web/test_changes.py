"""The page of what changed between two digests of a repository."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.registry.test_fleet import image as report_image
from tests.registry.test_fleet import post, report, started
from tests.support import RegistryServer, descriptor, running_registry, wait_until
from tests.web.browser import Browser
from tests.web.images import image, push_index
from tests.web.test_fleet import stopped
from tests.web.test_tag import plain, saw


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with running_registry() as server:
        yield server


def changes(server: RegistryServer, name: str, old: object, new: object, more: str = "") -> str:
    return Browser(server).text(f"/changes/{name}?old={old}&new={new}{more}")


@pytest.mark.long
def test_settings_variables_steps_and_layers(server: RegistryServer) -> None:
    steps = [{"created_by": "FROM"}, {"created_by": "COPY old"}]
    old = server.push_manifest(
        "app",
        "1",
        image(
            server, "app", "old", history=steps, settings={"Env": ["A=1", "DB_PASSWORD=x"], "User": "root"}
        ),
    )
    steps = [{"created_by": "FROM"}, {"created_by": "COPY new"}]
    new = server.push_manifest(
        "app",
        "1",
        image(server, "app", "newer", history=steps, settings={"Env": ["A=2", "DB_PASSWORD=y"]}),
    )
    text = plain(changes(server, "app", old, new, "&tag=1"))
    assert "Settings 1 Name Old New User root not set" in text
    assert "A 1 2" in text
    assert "DB_PASSWORD may be a secret x y" in text
    assert "Only in the old: COPY old" in text
    assert "Only in the new: COPY new" in text
    assert "Shared: 1 layer, 8 B" in text
    assert "likely the same: the lowest layer is the same" in text
    # The other way around is the opposite.
    assert "User not set root" in plain(changes(server, "app", new, old))


@pytest.mark.long
def test_platforms_lead_to_the_others(server: RegistryServer) -> None:
    old, new = push_index(server, "all", "1", "old"), push_index(server, "all", "1", "new")
    page = changes(server, "all", old, new)
    text = plain(page)
    assert "linux/amd64 changed" in text
    assert "Compared linux/amd64" in text
    assert "2 other entries, such as attestations, are not compared" in text
    following = re.search(r'href="([^"]+platform=linux[^"]+arm64[^"]*)"', page)
    assert following
    assert "Compared linux/arm64" in plain(Browser(server).text(following[1].replace("&amp;", "&")))
    answer = Browser(server).get(f"/changes/all?old={old}&new={new}&platform=nonsense")
    assert answer.status == 400


@pytest.mark.long
def test_where_the_old_one_still_runs(server: RegistryServer) -> None:
    old, new = push_index(server, "runs", "1", "old"), push_index(server, "runs", "1", "new")
    assert "No audit or agent saw the old one run" in changes(server, "runs", old, new)
    child = json.loads(server.request("GET", f"/v2/runs/manifests/{old}").body)["manifests"][1]["digest"]
    saw(server, "runs", child, "prod/one", 3)
    text = plain(changes(server, "runs", old, new))
    assert "Where the old one still runs 1" in text
    assert "prod/one seen by an audit, which sees no ends 3" in text


@pytest.mark.long
def test_agents_report_where_the_old_one_still_runs(server: RegistryServer) -> None:
    old, new = push_index(server, "reported", "1", "one"), push_index(server, "reported", "1", "two")
    images = {
        "old": report_image(f"{server.host}/reported:1", old, "index"),
        "new": report_image(f"{server.host}/reported:1", new, "index"),
    }
    runs = [started("c1", "old"), started("c2", "old"), started("c3", "new")]
    assert post(server, report("rack-7", *runs, images=images)).status == 200
    text = plain(Browser(server).text(f"/changes/reported?old={old}&new={new}"))
    assert "Where the old one still runs 1" in text
    assert "rack-7 runs 2 " in text


@pytest.mark.long
def test_a_silent_place_is_not_one_where_it_ended(server: RegistryServer) -> None:
    old, new = push_index(server, "quiet", "1", "one"), push_index(server, "quiet", "1", "two")
    images = {"i": report_image(f"{server.host}/quiet:1", old, "index")}
    for place, interval, entries in (
        ("mute", 1, [started("c1", "i")]),
        ("over", 60, [started("c1", "i"), stopped("c1")]),
        ("both", 60, [started("c1", "i"), started("c2", "i"), stopped("c1")]),
    ):
        assert post(server, report(place, *entries, images=images, interval=interval)).status == 200

    def shown(path: str) -> str:
        return plain(Browser(server).text(path))

    addresses = f"/r/quiet@{old}", f"/changes/quiet?old={old}&new={new}"
    wait_until(lambda: "silent" in shown(addresses[0]), what="silence", log=server.log)
    for address in addresses:
        text = shown(address)
        assert "mute silent nobody knows whether it still runs 1" in text
        assert "over ended 1" in text
        assert "both runs 1 and 1 that ended" in text
    assert "Nobody knows whether 1 container of these still runs." in shown("/r/quiet:1")
    assert "Who runs it now and ran it 3 places" in shown(addresses[0])


@pytest.mark.long
def test_what_the_repository_no_longer_has_is_said(server: RegistryServer) -> None:
    old, new = (server.push_manifest("lost", "1", image(server, "lost", mark)) for mark in ("a", "b"))
    assert server.request("DELETE", f"/v2/lost/manifests/{old}").status == 202
    assert f"lost no longer has {old}" in plain(changes(server, "lost", old, new))
    index = push_index(server, "lost", "2", "c")
    child = json.loads(server.request("GET", f"/v2/lost/manifests/{index}").body)["manifests"][0]["digest"]
    other = push_index(server, "lost", "2", "d")
    server.request("DELETE", f"/v2/lost/manifests/{child}")
    page = plain(changes(server, "lost", index, other))
    assert "linux/amd64 changed" in page


@pytest.mark.parametrize(
    "query", ["", "?old=x&new=y", "?old={}", "?old={}&new=sha256:zz", "?old={0}&new={0}"]
)
def test_digests_that_are_none_or_unknown(server: RegistryServer, query: str) -> None:
    server.push_image("known", "1", b"a layer")
    answer = Browser(server).get(f"/changes/known{query.format(Digest.of(b'elsewhere'))}")
    assert answer.status in {400, 404}
    assert b"Traceback" not in answer.body


def test_content_of_another_repository_is_not_read(server: RegistryServer) -> None:
    here = server.push_image("mine", "1", b"a layer")
    there = server.push_manifest(
        "theirs", "1", image(server, "theirs", "secret", settings={"Env": ["S=classified"]})
    )
    answer = Browser(server).get(f"/changes/mine?old={here}&new={there}")
    assert answer.status == 404
    assert b"classified" not in answer.body


@pytest.mark.long
def test_a_config_that_is_too_large_for_a_page(server: RegistryServer) -> None:
    config = json.dumps({"os": "linux", "config": {"Env": ["A=" + "x" * (5 << 20)]}}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": descriptor(media_types.OCI_CONFIG, server.push_blob("large", config), len(config)),
        "layers": [],
    }
    old = server.push_manifest("large", "1", manifest)
    new = server.push_image("large", "1", b"a layer")
    assert "too much for a page" in changes(server, "large", old, new)


@pytest.mark.long
def test_long_lists_are_cut_and_counted(server: RegistryServer) -> None:
    settings = {"Env": [f"V{n:04}={'y' * 9000 if n == 0 else n}" for n in range(1000)]}
    old = server.push_manifest("long", "1", image(server, "long", "old", settings={}))
    new = server.push_manifest("long", "1", image(server, "long", "new", settings=settings))
    page = changes(server, "long", old, new)
    assert "Environment 1000" in plain(page)
    assert "and 800 more" in page
    assert len(page) < 200_000
