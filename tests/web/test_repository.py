"""A repository's page: its tags, and what each points to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.registry.access.support import of
from tests.registry.test_fleet import image as image_report
from tests.registry.test_fleet import post, report, started
from tests.support import RegistryServer, running_registry
from tests.web.browser import Browser, signed_in
from tests.web.images import image, push_index


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with running_registry() as server:
        server.push_manifest("team/app", "1.0", image(server, "team/app", "old"))
        push_index(server, "team/app", "1.1", "middle")
        server.push_manifest("team/app", "1.0", image(server, "team/app", "new"))
        for number in range(60):
            server.push_image("many", f"t{number:02}", b"a layer")
        yield server


def rows(server: RegistryServer, path: str) -> list[str]:
    body = Browser(server).text(path).partition("<tbody")[2]
    return re.findall(r"<tr role=\"row\">.*?</tr>", body, re.DOTALL)


@pytest.mark.long
def test_a_tag_is_listed_with_all_that_it_points_to(server: RegistryServer) -> None:
    digest = server.request("HEAD", "/v2/team/app/manifests/1.1").headers["docker-content-digest"]
    (row,) = (row for row in rows(server, "/r/team/app") if 'href="/r/team/app:1.1"' in row)
    assert f'href="/r/team/app@{digest}"' in row
    assert digest.partition(":")[2] in re.sub("<[^>]*>", "", row)  # all of it, without a click
    assert "linux/amd64, linux/arm64" in row
    assert 'data-label="Moves">1<' in row


def test_how_often_a_tag_moved_is_counted(server: RegistryServer) -> None:
    (row,) = (row for row in rows(server, "/r/team/app") if 'href="/r/team/app:1.0"' in row)
    assert 'data-label="Moves">2<' in row
    assert "linux/amd64" in row


def test_the_tag_that_moved_last_is_the_first_unless_names_are_asked_for(server: RegistryServer) -> None:
    assert 'href="/r/team/app:1.0"' in rows(server, "/r/team/app")[0]
    assert 'href="/r/many:t00"' in rows(server, "/r/many?order=name")[0]
    assert 'href="/r/many:t59"' in rows(server, "/r/many")[0]


@pytest.mark.parametrize("order", ["", "?order=name"])
def test_pages_of_tags_have_each_tag_once(server: RegistryServer, order: str) -> None:
    browser = Browser(server)
    first = browser.text(f"/r/many{order}")
    following = re.search(r'rel="next" href="([^"]+)"', first)
    assert following
    second = browser.text(following[1].replace("&amp;", "&"))
    assert 'rel="next"' not in second
    listed = re.findall(r'href="/r/many:(t\d\d)"', first + second)
    assert sorted(listed) == [f"t{number:02}" for number in range(60)]


def test_tags_are_filtered_by_a_part_of_their_names(server: RegistryServer) -> None:
    assert len(rows(server, "/r/many?filter=t1")) == 10
    assert "No tag has" in Browser(server).text("/r/many?filter=%25")


def test_where_an_image_runs_is_shown_to_those_who_may_audit(guarded_server: RegistryServer) -> None:
    carol = of(guarded_server, "carol")
    digest = carol.request("HEAD", "/v2/team/app/manifests/1").headers["docker-content-digest"]
    seen = {"repository": "team/app", "digest": digest, "place": "prod/node-1", "containers": 3}
    body = json.dumps({"sightings": [seen]})
    assert carol.request("POST", "/v2/_digestry/sightings", body).json()["noted"] == 1
    alice, bob = signed_in(guarded_server, "alice"), signed_in(guarded_server, "bob")
    assert "3 containers" in alice.text("/r/team/app")
    assert "prod/node-1" in alice.text(f"/r/team/app@{digest}")
    assert "3 containers" not in bob.text("/r/team/app")
    assert "prod/node-1" not in bob.text(f"/r/team/app@{digest}")


def test_what_agents_report_goes_before_what_audits_saw(server: RegistryServer) -> None:
    index = push_index(server, "fleet", "1", "one")
    raw = server.request("GET", f"/v2/fleet/manifests/{index}", headers={"Accept": media_types.OCI_INDEX})
    child = Digest.parse(raw.json()["manifests"][0]["digest"])
    seen = {"repository": "fleet", "digest": str(index), "place": "old", "containers": 7}
    assert server.request("POST", "/v2/_digestry/sightings", json.dumps({"sightings": [seen]})).status == 200
    assert "7 containers" in Browser(server).text("/r/fleet")
    runs = [started("c1"), started("c2")]
    claims = image_report(f"127.0.0.1:{server.port}/fleet:1", child)
    assert post(server, report("h1", *runs, images={"i": claims})).status == 200
    assert "2 containers" in Browser(server).text("/r/fleet")
    places = Browser(server).text(f"/r/fleet@{index}").partition('id="runs"')[2]
    assert 'data-label="Containers"><span>2<' in places
    assert 'data-label="Containers"><span>7<' in places


def test_an_unknown_repository_and_a_strange_position_have_no_traceback(server: RegistryServer) -> None:
    browser = Browser(server)
    assert browser.get("/r/none").status == 404
    assert browser.get("/r/many?after=t10&at=99999999999999999999").status == 200
    assert browser.get("/r/many?after=%00&at=-1").status == 200
    assert browser.get("/r/many?filter=" + "a" * 3000).status == 200
    assert browser.get("/r/" + "a/" * 200).status == 404
