"""Pointing a tag back from the pages: the question, the form, who may, and what is recorded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.registry.access.support import guarded, of
from tests.support import RegistryServer, running_registry, start_registry
from tests.web.browser import FORM, Browser, signed_in
from tests.web.images import image
from tests.web.test_tag import plain, pushed


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with guarded() as server:
        yield server


def story(server: RegistryServer, tag: str) -> tuple[str, str]:
    """Let ``tag`` of ``team/app`` be one image, and then another; return their digests."""
    found = []
    for mark in ("one", "two"):
        assert of(server, "carol").push_image("team/app", tag, f"{mark} {tag}".encode()).status == 201
        found.append(current(server, tag))
    return found[0], found[1]


def current(server: RegistryServer, tag: str) -> str:
    answer = of(server, "carol").request("HEAD", f"/v2/team/app/manifests/{tag}")
    return answer.headers.get("docker-content-digest", "")


def question(browser: Browser, tag: str, to: str) -> str:
    return browser.text(f"/restore/team/app:{tag}?to={to}")


@pytest.mark.long
def test_a_tag_is_restored_by_who_is_signed_in(server: RegistryServer) -> None:
    old, new = story(server, "back")
    alice = signed_in(server, "alice")
    page = alice.text("/r/team/app:back")
    link = re.search(r'href="(/restore/[^"]+)"', page)
    assert link
    page = alice.text(link[1])
    text = plain(page)
    assert "Restore back?" in text
    assert text.index(new.partition(":")[2]) < text.index(old.partition(":")[2])
    assert "by alice from 127.0.0.1" in text
    assert current(server, "back") == new  # the question changes nothing
    answer = alice.send(page, "/restore/team/app:back", {})
    assert (answer.status, answer.headers["location"]) == (303, "/r/team/app:back")
    assert current(server, "back") == old
    entry = (
        of(server, "carol").request("GET", "/v2/team/app/_digestry/journal?tag=back&n=1").json()["entries"][0]
    )
    assert (entry["actor"], entry["address"], entry["fromDigest"], entry["toDigest"]) == (
        "alice", "127.0.0.1", new, old,
    )  # fmt: skip
    lines = [json.loads(line) for line in (server.root / "audit.log").read_text().splitlines()]
    mine = [line for line in lines if line.get("tag") == "back" and line["user"] == "alice"]
    assert [line["action"] for line in mine] == ["restore-tag", "move-tag"]
    assert (mine[0]["status"], mine[0]["repository"], mine[1]["to"]) == (303, "team/app", old)


def test_a_deleted_tag_comes_back(server: RegistryServer) -> None:
    old, _ = story(server, "deleted")
    assert of(server, "carol").request("DELETE", "/v2/team/app/manifests/deleted").status == 202
    alice = signed_in(server, "alice")
    page = question(alice, "deleted", old)
    assert "nothing: it is deleted" in plain(page)
    assert alice.send(page, "/restore/team/app:deleted", {}).status == 303
    assert current(server, "deleted") == old


def test_a_tag_that_moved_meanwhile_is_not_moved(server: RegistryServer) -> None:
    old, _ = story(server, "raced")
    alice = signed_in(server, "alice")
    page = question(alice, "raced", old)
    assert of(server, "carol").push_image("team/app", "raced", b"third").status == 201
    third = current(server, "raced")
    answer = alice.send(page, "/restore/team/app:raced", {})
    assert answer.status == 409
    assert current(server, "raced") == third


def test_only_who_may_push_and_with_the_token_of_the_session(server: RegistryServer) -> None:
    old, new = story(server, "guarded")
    alice, bob = signed_in(server, "alice"), signed_in(server, "bob")
    assert "/restore/" not in bob.text("/r/team/app:guarded")
    assert bob.get(f"/restore/team/app:guarded?to={old}").status == 403
    fields = {"to": old, "before": new}
    token = re.search(r'name="csrf" value="([^"]+)"', question(alice, "guarded", old))
    own = re.search(r'name="csrf" value="([^"]+)"', bob.text("/"))
    assert token
    assert own
    attempts = [
        (bob, {**fields, "csrf": own[1]}),
        (bob, {**fields, "csrf": token[1]}),
        (alice, fields),
        (alice, {**fields, "csrf": own[1]}),
        (alice, {**fields, "csrf": ""}),
    ]
    for browser, form in attempts:
        answer = browser.request("POST", "/restore/team/app:guarded", urlencode(form).encode(), **FORM)
        assert answer.status == 403
    body = urlencode({**fields, "csrf": token[1]}).encode()
    elsewhere = Browser(server, Sec_Fetch_Site="same-site", Origin="http://elsewhere.example")
    elsewhere.cookies = alice.cookies
    assert elsewhere.request("POST", "/restore/team/app:guarded", body, **FORM).status == 403
    anonymous = Browser(server).request("POST", "/restore/team/app:guarded", body, **FORM)
    assert anonymous.status in {303, 403}
    assert "/r/team/app" not in anonymous.headers.get("location", "")
    assert current(server, "guarded") == new
    hidden, missing = (bob.get(f"/restore/{name}:1?to={old}") for name in ("secret/x", "secret/y"))
    assert hidden.status == missing.status == 404
    assert hidden.body.replace(b"secret/x", b"secret/y") == missing.body


def test_a_digest_that_the_tag_never_had_or_that_is_gone(server: RegistryServer) -> None:
    old, new = story(server, "never")
    other, _ = story(server, "other")
    alice = signed_in(server, "alice")
    assert alice.get(f"/restore/team/app:never?to={other}").status == 404
    assert alice.get("/restore/team/app:never?to=sha256:x").status == 400
    assert alice.get("/restore/team/app:never").status == 400
    assert "There is nothing to do" in question(alice, "never", new)
    page = question(alice, "never", old)
    assert alice.send(page, "/restore/team/app:never", {"to": other}).status == 404
    assert of(server, "carol").request("DELETE", f"/v2/team/app/manifests/{old}").status == 202
    assert alice.send(page, "/restore/team/app:never", {}).status == 404
    assert alice.get(f"/restore/team/app:never?to={old}").status == 404
    assert current(server, "never") == new


@pytest.mark.long
def test_who_may_push_and_move_no_tag_restores_none() -> None:
    rules = """
[[rule]]
who = "carol"
repository = "**"
actions = ["admin"]

[[rule]]
who = "bob"
repository = "**"
actions = ["pull", "push"]
"""
    with guarded(rules) as server:
        old, new = story(server, "kept")
        bob = signed_in(server, "bob")
        answer = bob.send(question(bob, "kept", old), "/restore/team/app:kept", {})
        assert answer.status in {403, 409}
        assert "kept" in plain(answer.body.decode())
        assert current(server, "kept") == new


@pytest.mark.long
def test_without_users_everybody_restores_with_the_token_of_the_form() -> None:
    with running_registry() as server:
        old, new = (pushed(server, "app", "1", mark) for mark in ("one", "two"))
        browser = Browser(server)
        page = browser.text(f"/restore/app:1?to={old}")
        form = urlencode({"to": str(old), "before": str(new)}).encode()
        assert Browser(server).request("POST", "/restore/app:1", form, **FORM).status == 403
        assert browser.send(page, "/restore/app:1", {}).status == 303
        assert server.request("HEAD", "/v2/app/manifests/1").headers["docker-content-digest"] == str(old)


@pytest.mark.long
def test_where_nobody_may_move_tags_that_is_said_before(tmp_path: Path) -> None:
    """A registry that is read-only offers no restoration, and says why."""
    first = start_registry(tmp_path / "root")
    try:
        old, _ = (first.push_manifest("app", "1", image(first, "app", mark)) for mark in ("a", "b"))
    finally:
        first.stop()
    (tmp_path / "registry.toml").write_text("read-only = true\n")
    server = start_registry(tmp_path / "root", "--config", str(tmp_path / "registry.toml"))
    try:
        page = Browser(server).text("/r/app:1")
        assert "/restore/" not in page
        assert "The tag cannot be restored here: this registry is read-only." in page
        answer = Browser(server).get(f"/restore/app:1?to={old}")
        assert answer.status == 409
        assert "this registry is read-only" in answer.body.decode()
    finally:
        server.stop()
