"""The pages of the fleet and of a vulnerability: what runs, what is affected, and what nobody knows."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from digestry.model.digest import Digest
from tests.registry.access.support import As, bearer, guarded, of
from tests.registry.test_fleet import image, now, post, report, started
from tests.support import RegistryServer, run_digestry, running_registry, wait_until
from tests.web.browser import Browser, signed_in
from tests.web.images import attach, openvex
from tests.web.images import image as pushed_image
from tests.web.test_hostile_fields import EVIL, check
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
    """Push an image, and an advisory that it is affected; return its digest once pages name the advisory."""
    digest = server.push_manifest(name, "1", pushed_image(server, name, f"bad {name}"))
    stated = ("--status", "affected", "--id", vulnerability, "--author", "somebody")
    done = run_digestry("advisory", "add", f"{server.host}/{name}:1", *stated)
    assert done.returncode == 0, done.stderr
    address = f"/vulnerability?id={vulnerability}"
    wait_until(lambda: str(digest) in Browser(server).text(address), what="the advisory", log=server.log)
    return digest


def judged(server: RegistryServer, path: str, words: str) -> str:
    """A page, once the registry has judged what was reported."""
    browser = Browser(server)
    wait_until(lambda: words in plain(browser.text(path)), what=words, log=server.log)
    return browser.text(path)


@pytest.mark.long
def test_without_agents_the_page_says_how_to_begin() -> None:
    with running_registry() as empty:
        text = plain(Browser(empty).text("/fleet"))
        assert "No agent reports here yet" in text
        assert "digestry agent --registry" in text
        assert Browser(empty).get("/vulnerability?id=CVE-1").status == 200
        assert Browser(empty).get("/vulnerability").status == 404


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
def test_silence_is_loud_and_no_end(server: RegistryServer) -> None:
    name = "CVE-2026-888"
    bad = affected(server, "silent/app", name)
    images = {"i": image(f"{server.host}/silent/app:1", bad)}
    quiet = report("lonely-place", started("s1", name="ghost"), images=images, interval=1)
    assert post(server, quiet).status == 200
    judged(server, f"/vulnerability?id={name}", "When the last one ends is not known")
    text = plain(judged(server, "/fleet", "nobody knows whether it still does"))
    place = text[text.index("Places") :]
    assert re.search(r"lonely-place docker 1 .{10,60} silent", place)


@pytest.mark.long
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


@pytest.mark.long
def test_what_agents_and_advisories_say_is_text(server: RegistryServer) -> None:
    name = "CVE-2026-666"
    bad = affected(server, "evil/app", name)
    statement = {
        "vulnerability": {"name": EVIL, "aliases": [EVIL]},
        "status": "affected",
        "products": [{"@id": EVIL}, {"@id": f"pkg:oci/app@{quote(str(bad), safe='')}"}],
        "action_statement": EVIL,
    }
    attach(server, "evil/app", bad, openvex(statement, author=EVIL))
    evil = server.push_manifest("evil/app", "2", pushed_image(server, "evil/app", "other"))
    images = {
        "known": image(f"{server.host}/evil/app:1", bad),
        EVIL: image(f"{server.host}/evil/app:2{EVIL}", evil),
    }
    texts = {"name": EVIL, "workload": EVIL, "namespace": EVIL, "node": EVIL}
    entries = [started("c<a>", "known", **texts), started("c<b>", EVIL, **texts)]
    gap = {"type": "gap", "source": EVIL, "from": now(-60), "until": now(-30), "reason": EVIL}
    body = report(EVIL, *entries, gap, images=images, version=EVIL)
    body["sources"] = [{"source": EVIL, "problem": EVIL}]
    answer = post(server, body)
    assert answer.status == 200, answer.body
    address = f"/vulnerability?id={name}"
    judged(server, address, "1 container still runs it")
    for path in (address, "/fleet"):
        page = Browser(server).text(path)
        check(page)
        assert "&lt;img src=x" in page
    for path in (f"/r/evil/app@{bad}", "/r/evil/app:1", f"/vulnerability?id={quote(EVIL, safe='')}"):
        check(Browser(server).text(path))


@pytest.mark.long
def test_pages_of_containers_follow(server: RegistryServer) -> None:
    name = "CVE-2026-999"
    bad = affected(server, "many/app", name)
    images = {"i": image(f"{server.host}/many/app:1", bad)}
    entries = [started(f"m{number}", name=f"many-{number:03}") for number in range(120)]
    assert post(server, report("rack9", *entries, images=images)).status == 200
    page = judged(server, f"/vulnerability?id={name}", "120 containers still run it")
    browser, seen = Browser(server), set[str]()
    for _ in range(3):
        seen.update(re.findall(r"many-\d{3}", page))
        following = re.search(r'rel="next" href="([^"]+)"', page)
        if following is None:
            break
        page = browser.text(html.unescape(following[1]))
    assert len(seen) == 120
