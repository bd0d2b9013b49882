"""A tag's page: its moves as a picture and as a table, and what of it still runs."""

from __future__ import annotations

import datetime
import html
import json
import re
from collections.abc import Iterator

import pytest

from digestry.catalog.tag_timeline import MOST_MARKS
from digestry.model.digest import Digest
from tests.registry.access.support import of
from tests.support import RegistryServer, running_registry
from tests.web.browser import Browser, signed_in
from tests.web.images import image, push_index


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with running_registry() as server:
        yield server


def plain(page: str) -> str:
    """What somebody reads of a page, in one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page[page.find("<main") + 1 :])).split())


def rows(page: str) -> list[str]:
    return re.findall(r"<tr role=\"row\">.*?</tr>", page.partition("<tbody")[2], re.DOTALL)


def pushed(server: RegistryServer, name: str, tag: str, mark: str) -> Digest:
    return server.push_manifest(name, tag, image(server, name, mark))


def saw(server: RegistryServer, name: str, digest: Digest | str, place: str, containers: int = 1) -> None:
    seen = {"repository": name, "digest": str(digest), "place": place, "containers": containers}
    body = json.dumps({"sightings": [seen]})
    assert server.request("POST", "/v2/_digestry/sightings", body).json()["noted"] == 1


@pytest.mark.long
def test_every_move_has_its_digest_its_time_and_who_made_it(server: RegistryServer) -> None:
    first, second = pushed(server, "app", "1.5", "one"), pushed(server, "app", "1.5", "two")
    page = Browser(server).text("/r/app:1.5")
    newest, oldest = rows(page)
    assert f"/r/app@{second}" in newest
    assert "so far" in newest
    assert ">now<" in newest
    assert f"/r/app@{first}" in oldest
    assert "so far" not in oldest
    assert "anonymous" in plain(newest)
    assert "from 127.0.0.1" in plain(newest)
    changes = f'href="/changes/app?old={first}&new={second}&tag=1.5"'.replace(":", "%3A")
    assert changes.replace("&", "&amp;") in newest
    assert "/changes/" not in oldest
    assert f"docker pull 127.0.0.1:{server.port}/app:1.5@{second}" in page
    assert "2 moves" in page


def test_the_picture_says_what_it_shows_and_has_a_band_for_each_digest(server: RegistryServer) -> None:
    for mark in ("one", "two", "one"):
        pushed(server, "picture", "1", mark)
    server.request("DELETE", "/v2/picture/manifests/1")
    pushed(server, "picture", "1", "two")
    page = Browser(server).text("/r/picture:1")
    picture = re.search(r'<svg class="timeline-picture".*?</svg>', page, re.DOTALL)
    assert picture
    labelled = re.search(r'role="img" aria-labelledby="([^"]+)"', picture[0])
    assert labelled
    assert all(f'id="{name}"' in picture[0] for name in labelled[1].split())
    assert re.findall(r'class="band (\w+)"', picture[0]).count("now") == 2
    assert len(re.findall(r'class="band ', picture[0])) == 4
    assert picture[0].count('class="tick"') == 5
    assert "<a " not in picture[0]  # the table has the links
    assert "deleted" in page[page.index("<figcaption") : page.index("</figcaption>")]


def test_a_tag_that_was_deleted_keeps_its_page(server: RegistryServer) -> None:
    digest = pushed(server, "gone", "1", "one")
    assert server.request("DELETE", "/v2/gone/manifests/1").status == 202
    page = Browser(server).text("/r/gone:1")
    newest, oldest = rows(page)
    assert ">deleted<" in newest
    assert f"/r/gone@{digest}" in newest
    assert f"/r/gone@{digest}" in oldest
    assert "docker pull" not in page
    assert Browser(server).get("/r/gone:2").status == 404


def test_what_the_repository_no_longer_has_is_marked(server: RegistryServer) -> None:
    first = pushed(server, "lost", "1", "one")
    pushed(server, "lost", "1", "two")
    assert server.request("DELETE", f"/v2/lost/manifests/{first}").status == 202
    newest, oldest = rows(Browser(server).text("/r/lost:1"))
    assert "no longer here" in oldest
    assert "no longer here" not in newest


@pytest.mark.long
def test_pages_follow_by_time(server: RegistryServer) -> None:
    raws = [json.dumps(image(server, "many", mark)).encode() for mark in ("a", "b")]
    for number in range(120):
        server.push_manifest("many", "1", raws[number % 2])
    browser = Browser(server)
    page = browser.text("/r/many:1")
    times: list[str] = []
    for expected in (50, 50, 20):
        found = [re.findall(r'datetime="([^"]+)" title', row)[0] for row in rows(page)]
        assert len(found) == expected
        times += found
        following = re.search(r'rel="next" href="([^"]+)"', page)
        if following is None:
            break
        page = browser.text(html.unescape(following[1]))
    assert len(times) == 120
    assert times == sorted(times, reverse=True)
    assert "120 moves" in page
    # More moves than there is room for: their number in each part of the time.
    assert 0 < page.count('class="bar"') - 1 <= MOST_MARKS
    assert 'class="tick"' not in page
    for odd in ("before=x", "before=-1", "before=99999999999999999999", "last=century", "before=1"):
        assert browser.get(f"/r/many:1?{odd}").status == 200


def test_what_it_left_and_still_runs_is_said_first(server: RegistryServer) -> None:
    old = push_index(server, "runs", "1", "old")
    pushed(server, "runs", "1", "new")
    child = json.loads(server.request("GET", f"/v2/runs/manifests/{old}").body)["manifests"][0]["digest"]
    saw(server, "runs", child, "prod-1", 3)
    saw(server, "runs", old, "prod-2", 2)
    page = Browser(server).text("/r/runs:1")
    assert "runs in 5 containers at 2 places" in plain(page)
    assert page.index("Still running what this tag left") < page.index('<h2 id="moves"')
    assert 'class="band runs"' in page


@pytest.mark.long
def test_who_moved_it_and_what_runs_is_for_those_who_may_audit(guarded_server: RegistryServer) -> None:
    carol = of(guarded_server, "carol")
    assert carol.push_image("team/app", "moved", b"one").status == 201
    digest = carol.request("HEAD", "/v2/team/app/manifests/moved").headers["docker-content-digest"]
    seen = {"repository": "team/app", "digest": digest, "place": "prod/node-9", "containers": 7}
    carol.request("POST", "/v2/_digestry/sightings", json.dumps({"sightings": [seen]}))
    assert carol.push_image("team/app", "moved", b"two").status == 201
    now = carol.request("HEAD", "/v2/team/app/manifests/moved").headers["docker-content-digest"]
    address = f"/changes/team/app?old={digest}&new={now}&tag=moved"
    alice, bob = signed_in(guarded_server, "alice"), signed_in(guarded_server, "bob")
    page = alice.text("/r/team/app:moved")
    assert "carol" in page
    assert "7 containers" in page
    assert "prod/node-9" in alice.text(address)
    for page in (bob.text("/r/team/app:moved"), bob.text(address)):
        assert "carol" not in page
        assert "from 127.0.0.1" not in plain(page)
        assert "7 containers" not in page
        assert "prod/node-9" not in page
        assert "still runs" not in page


def test_the_history_of_a_hidden_repository_is_that_of_none(guarded_server: RegistryServer) -> None:
    bob = signed_in(guarded_server, "bob")
    digest = Digest.of(b"any")
    for path in ("/r/{}:1", f"/changes/{{}}?old={digest}&new={digest}"):
        hidden, missing = bob.get(path.format("secret/x")), bob.get(path.format("secret/y"))
        assert hidden.status == missing.status == 404
        assert hidden.body.replace(b"secret/x", b"secret/y") == missing.body
    anonymous = Browser(guarded_server)
    assert anonymous.request("GET", "/r/secret/x:1").status == 303


def test_times_are_whole_and_in_utc(server: RegistryServer) -> None:
    pushed(server, "times", "1", "one")
    (row,) = rows(Browser(server).text("/r/times:1"))
    shown = re.search(r'datetime="([^"]+)"', row)
    assert shown
    at = datetime.datetime.fromisoformat(shown[1])
    assert abs((datetime.datetime.now(datetime.UTC) - at).total_seconds()) < 600
