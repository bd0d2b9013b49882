"""The pages of the fleet and of a vulnerability: what runs, what is affected, and what nobody knows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from digestry.model.digest import Digest
from tests.registry.access.support import As, bearer, guarded, of
from tests.registry.test_fleet import image, now, post, report, started
from tests.support import RegistryServer, run_digestry, running_registry, wait_until
from tests.web.browser import Browser, signed_in
from tests.web.images import image as pushed_image
from tests.web.test_tag import plain

CVE = "CVE-2026-4242"


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with running_registry() as server:
        yield server


def stopped(container: str, seconds: float = 0) -> dict[str, object]:
    return {
        "type": "stopped",
        "source": "docker",
        "container": container,
        "at": now(seconds),
        "instance": "1",
    }


def affected(server: RegistryServer, name: str, vulnerability: str = CVE) -> Digest:
    """Push an image, and an advisory that it is affected; return its digest."""
    digest = server.push_manifest(name, "1", pushed_image(server, name, f"bad {name}"))
    stated = ("--status", "affected", "--id", vulnerability, "--author", "somebody")
    done = run_digestry("advisory", "add", f"{server.host}/{name}:1", *stated)
    assert done.returncode == 0, done.stderr
    return digest


def judged(server: RegistryServer, path: str, words: str) -> str:
    """A page, once the registry has judged what was reported."""
    browser = Browser(server)
    wait_until(lambda: words in plain(browser.text(path)), what=words, log=server.log)
    return browser.text(path)


def test_without_agents_the_page_says_how_to_begin() -> None:
    with running_registry() as empty:
        text = plain(Browser(empty).text("/fleet"))
        assert "No agent reports here yet" in text
        assert "digestry agent --registry" in text
        assert Browser(empty).get("/vulnerability?id=CVE-1").status == 200
        assert Browser(empty).get("/vulnerability").status == 404


def test_affected_containers_come_first_with_why_and_where(server: RegistryServer) -> None:
    bad = affected(server, "fleet/bad")
    fine = server.push_manifest("fleet/fine", "1", pushed_image(server, "fleet/fine", "fine"))
    images = {
        "bad": image(f"{server.host}/fleet/bad:1", bad),
        "fine": image(f"{server.host}/fleet/fine:1", fine),
    }
    entries = [
        started("c1", "bad", name="web"),
        started("c2", "bad", name="shop", workload="deployment/shop", namespace="prod"),
        started("c3", "fine", name="other"),
    ]
    assert post(server, report("rack1", *entries, images=images)).status == 200
    page = judged(server, "/fleet", "Affected 2")
    text = plain(page)
    assert re.search(r"2 affected|affected 2", text)
    table = page[page.index('id="affected"') : page.index('id="places"')]
    assert "web" in table
    assert "prod/deployment/shop" in table
    assert "other" not in plain(table)
    assert f'href="/vulnerability?id={CVE}"' in table
    assert "rack1" in table
    assert 'class="block affected"' in page
    assert page.count('role="img"') == 1
    for period in ("week", "month", "year", "nonsense"):
        assert Browser(server).get(f"/fleet?last={period}&after=x&places=y").status == 200


def test_a_vulnerability_leads_to_zero(server: RegistryServer) -> None:
    name = "CVE-2026-777"
    bad = affected(server, "zero/app", name)
    images = {"i": image(f"{server.host}/zero/app:1", bad)}
    agent = os.urandom(16).hex()
    first = report("rack2", started("z1", name="one"), started("z2", name="two"), agent=agent, images=images)
    assert post(server, first).status == 200
    judged(server, f"/vulnerability?id={name}", "2 containers still run it")
    page = judged(server, f"/vulnerability?id={name}", "Images 1")
    assert f"/r/zero/app@{bad}" in page
    assert 'class="block affected"' in page
    at = now()
    ends = [{**stopped("z1", -2)}, {**stopped("z2"), "at": at}]
    assert post(server, report("rack2", *ends, agent=agent, first=3)).status == 200
    text = plain(Browser(server).text(f"/vulnerability?id={name}"))
    assert f"The last container ended at {at[:19]}Z" in text
    assert "Containers 2" in text
    assert "still run" not in text


def test_places_and_containers_are_shown_to_those_who_may_audit() -> None:
    with guarded() as server:
        carol = of(server, "carol")
        digests = {}
        for name in ("team/app", "secret/app"):
            assert carol.push_image(name, "t", name.encode()).status == 201
            head = carol.request("HEAD", f"/v2/{name}/manifests/t")
            digests[name] = head.headers["docker-content-digest"]
        token = run_digestry("token", "create", "--root", server.root, "--agent", "cluster", "a1", timeout=30)
        agent = As(server, bearer(token.stdout.strip()))
        images = {name: image(f"reg.example/{name}:t", digest) for name, digest in digests.items()}
        entries = [started(f"c-{name}", name, name=f"name-of-{name}") for name in images]
        assert post(agent, report("cluster/n1", *entries, images=images)).status == 200
        admin, alice, bob = (signed_in(server, name) for name in ("carol", "alice", "bob"))
        assert "cluster/n1" in admin.text("/fleet")
        text = plain(alice.text("/fleet"))
        assert "what you may audit of it" in text
        for browser in (alice, bob):
            page = browser.text("/fleet") + browser.text("/vulnerability?id=CVE-1")
            assert "secret" not in page
            assert "cluster/n1" not in page
        assert "No agent reports anything that you may audit" in plain(bob.text("/fleet"))
        anonymous = Browser(server).request("GET", "/fleet")
        assert (anonymous.status, anonymous.headers["location"]) == (303, "/sign-in?next=%2Ffleet")


@pytest.mark.parametrize(
    "after", [f"r-{'1' * 40}.1", f"e1.-{'9' * 40}", "r1_0.1", "e" + "9" * 250, "r.", "x1.1"]
)
def test_a_position_that_is_none_is_that_of_the_first_page(server: RegistryServer, after: str) -> None:
    for path in (f"/fleet?after={after}", f"/fleet?places={after}", f"/vulnerability?id=CVE-1&after={after}"):
        assert Browser(server).get(path).status == 200
    assert server.request("GET", f"/v2/_digestry/fleet/runs?after={after}").status == 400
