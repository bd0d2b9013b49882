"""Who sees what of the fleet: names of repositories, for whom, on every page and endpoint; and until when."""

from __future__ import annotations

import html
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from digestry.model.digest import Digest
from tests.registry.access.support import RULES, As, basic, bearer, guarded, htpasswd, nobody, of
from tests.registry.test_fleet import image as report_image
from tests.registry.test_fleet import post, report, started
from tests.support import RegistryServer, Response, run_digestry, wait_for_line, wait_until
from tests.web.browser import Browser, signed_in

CVE = "CVE-2026-5150"
HIDDEN = "secret"
"""A part of the names that only carol may know."""
BASE = b"the base of both"


@dataclass
class World:
    """A registry with an image that alice may audit and one that she may not, on the same bad layer."""

    server: RegistryServer
    mine: Digest
    hidden: Digest
    agent: As
    number: int = 1

    @property
    def layer(self) -> Digest:
        return Digest.of(BASE)

    def addresses(self) -> Iterator[str]:
        """Everything that tells of the fleet: pages and endpoints, asked for both images."""
        yield from ("/", "/fleet", "/fleet?last=year", f"/vulnerability?id={CVE}", f"/search?q={CVE}")
        for digest in (self.mine, self.hidden, self.layer):
            yield f"/search?q={digest}"
            yield f"/search?q={digest.encoded[:9]}"
            yield f"/v2/_digestry/fleet/runs?ever=1&with-images=1&digest={digest}"
            yield f"/v2/_digestry/fleet/timeline?digest={digest}"
            yield f"/v2/_digestry/digests/{digest.encoded[:9]}"
            yield f"/v2/_digestry/whose/{digest}?layers=true"
            yield f"/v2/_digestry/layers/{digest}"
        yield from (f"/r/team/app@{self.mine}", "/r/team/app", "/r/team/app:t")
        yield f"/changes/team/app?old={self.mine}&new={self.mine}"
        runs = ("", f"&vulnerability={CVE}", "&state=affected", "&reference=team/app", "&reference=*")
        yield from (f"/v2/_digestry/fleet/runs?ever=1&with-images=1{more}" for more in runs)
        yield from ("/v2/_digestry/fleet/changes", "/v2/_digestry/fleet/summary")
        yield from ("/v2/_digestry/fleet/places", "/v2/_digestry/fleet/places?silent=1")
        yield f"/v2/_digestry/fleet/timeline?vulnerability={CVE}"


def build(server: RegistryServer) -> World:
    carol, digests = of(server, "carol"), {}
    for name, top in (("team/app", b"mine"), (f"{HIDDEN}/app", b"theirs"), (f"{HIDDEN}/base", b"")):
        content = BASE + top if top else BASE
        assert carol.push_image(name, "t", content).status == 201
        digests[name] = Digest.parse(
            carol.request("HEAD", f"/v2/{name}/manifests/t").headers["docker-content-digest"]
        )
    done = run_digestry("token", "create", "--root", server.root, "--agent", "n1", "agent", timeout=30)
    agent = As(server, bearer(done.stdout.strip()))
    names = ("team/app", f"{HIDDEN}/app")
    images = {name: report_image(f"{server.host}/{name}:t", digests[name]) for name in names}
    entries = [started(f"c-{name}", name, name=f"one-of-{name}") for name in names]
    assert post(agent, report("n1", *entries, images=images)).status == 200
    return World(server, digests["team/app"], digests[f"{HIDDEN}/app"], agent)


def stated(world: World, name: str, digest: Digest, *, fixed_by: str) -> None:
    """State as carol that an image is affected, and name one that is not."""
    login = {"DIGESTRY_CONFIG": "", "DOCKER_CONFIG": str(world.server.root.parent / "docker")}
    directory = Path(login["DOCKER_CONFIG"])
    directory.mkdir(exist_ok=True)
    secret = basic("carol")["Authorization"].removeprefix("Basic ")
    (directory / "config.json").write_text(json.dumps({"auths": {world.server.host: {"auth": secret}}}))
    arguments = ("--status", "affected", "--id", CVE, "--author", "carol", "--fixed-by", fixed_by)
    done = run_digestry("advisory", "add", f"{world.server.host}/{name}@{digest}", *arguments, env=login)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with guarded() as server:
        world = build(server)
        base = f"{server.host}/{HIDDEN}/base:t"
        # What alice may not read knows of a fix for what she runs, and the reverse.
        stated(world, f"{HIDDEN}/app", world.hidden, fixed_by=base)
        state_on_layer(world)
        everything = "/v2/_digestry/fleet/runs?ever=1&state=affected"
        wait_until(
            lambda: len(of(server, "carol").request("GET", everything).json()["runs"]) == 2,
            what="the judgement", log=server.log,
        )  # fmt: skip
        yield world


def state_on_layer(world: World) -> None:
    stated(world, "team/app", world.mine, fixed_by=f"{world.server.host}/{HIDDEN}/base:t")


Ask = Callable[[str], tuple[int, str]]


def by_api(server: RegistryServer, headers: Mapping[str, str]) -> Ask:
    def ask(path: str) -> tuple[int, str]:
        answer = server.request("GET", path, headers=headers)
        return answer.status, answer.body.decode() + json.dumps(dict(answer.headers))

    return ask


def by_browser(browser: Browser) -> Ask:
    def ask(path: str) -> tuple[int, str]:
        answer = browser.get(path)
        return answer.status, answer.body.decode() + json.dumps(dict(answer.headers))

    return ask


@pytest.mark.long
def test_no_answer_has_a_name_that_the_asker_may_not_know(world: World) -> None:
    server = world.server
    token = run_digestry("token", "create", "--root", server.root, "ci-1", timeout=30).stdout.strip()
    askers: dict[str, Ask] = {
        "alice": by_api(server, basic("alice")),
        "alice's browser": by_browser(signed_in(server, "alice")),
        "bob": by_api(server, basic("bob")),
        "bob's browser": by_browser(signed_in(server, "bob")),
        "a robot": by_api(server, basic("robot$ci-1", token)),
        "an agent": by_api(server, world.agent.headers),
        "nobody": by_api(server, {}),
        "nobody's browser": by_browser(Browser(server)),
    }
    shown = []
    for path in world.addresses():
        whole = by_api(server, basic("carol"))(path) if path.startswith("/v2/") else (0, "")
        assert whole[0] in {0, 200, 400, 404}, (path, whole)
        for name, ask in askers.items():
            status, text = ask(path)
            assert status < 500, (name, path, text)
            if HIDDEN in text.replace(path, ""):
                shown.append((name, path))
            if not name.startswith("alice"):
                assert "one-of-" not in text, (name, path)
    # An advisory that alice may read names its fix: that is what its author wrote there.
    there = (f"/r/team/app@{world.mine}", f"/search?q={world.mine}")  # the search leads there
    assert {path for _, path in shown} <= set(there), shown
    runs = by_api(server, basic("alice"))("/v2/_digestry/fleet/runs?state=affected")[1]
    assert "one-of-team/app" in runs


def test_the_metrics_name_no_repository(world: World) -> None:
    text = of(world.server, "carol").request("GET", "/metrics").body.decode()
    fleet = [line for line in text.splitlines() if "fleet" in line]
    assert fleet
    assert not any(HIDDEN in line or "team" in line for line in fleet)


@pytest.mark.long
@pytest.mark.parametrize(("fix", "named"), [("team/fixed", True), ("secret/fixed", False)])
def test_a_way_out_is_named_to_who_may_pull_it(fix: str, named: bool) -> None:
    """Whoever may audit their own image alone learns of a fix elsewhere if they may pull that."""
    audits = RULES.replace('actions = ["push"]', 'actions = ["push", "audit"]')
    assert audits != RULES
    with guarded(audits) as server:
        carol = of(server, "carol")
        for name, content in (("bob/app", b"bad"), (fix, b"good")):
            assert carol.push_image(name, "t", content).status == 201
        head = carol.request("HEAD", "/v2/bob/app/manifests/t").headers["docker-content-digest"]
        done = run_digestry("token", "create", "--root", server.root, "--agent", "n1", "agent", timeout=30)
        agent = As(server, bearer(done.stdout.strip()))
        world = World(server, Digest.parse(head), Digest.parse(head), agent)
        images = {"i": report_image(f"{server.host}/bob/app:t", world.mine)}
        assert post(agent, report("n1", started("c", "i"), images=images)).status == 200
        stated(world, "bob/app", world.mine, fixed_by=f"{server.host}/{fix}:t")
        runs = by_api(server, basic("bob")), "/v2/_digestry/fleet/runs?state=affected"
        wait_until(lambda: "affected" in runs[0](runs[1])[1], what="the judgement", log=server.log)
        assert (fix in runs[0](runs[1])[1]) == named
        assert (fix in signed_in(server, "bob").text("/fleet")) == named


KEPT = '[[rule]]\nwho = "carol"\nrepository = "**"\nactions = ["admin"]\n'

# -- rights that end -----------------------------------------------------------------------------


def test_signing_out_is_in_the_audit_log(world: World) -> None:
    browser = signed_in(world.server, "alice")
    page = browser.text("/")
    assert browser.send(page, "/sign-out", {}).status == 303

    def lines() -> list[dict[str, object]]:
        text = (world.server.root / "audit.log").read_text()
        return [line for line in map(json.loads, text.splitlines()) if line["action"] == "sign-out"]

    wait_until(lines, what="the line", log=world.server.log)
    assert [(line["user"], line["status"]) for line in lines()] == [("alice", 303)]


PAGES = ("/fleet", f"/vulnerability?id={CVE}", "/r/team/app", "/r/team/app:t", "/", "/search?q=app")
ENDPOINTS = (
    "/v2/_digestry/fleet/runs",
    "/v2/_digestry/fleet/summary",
    "/v2/_digestry/fleet/changes",
    f"/v2/_digestry/fleet/timeline?vulnerability={CVE}",
)


def told(answer: Response, path: str) -> str:
    """What an answer says besides the name that was asked for."""
    text = answer.body.decode().replace(html.escape(path), "")
    return text.replace("There is no repository team/app.", "")


@pytest.mark.long
def test_rights_end_at_once_on_every_page_and_endpoint() -> None:
    with guarded() as server:
        world = build(server)
        secret = run_digestry("token", "create", "--root", server.root, "ci-2", timeout=30).stdout.strip()
        robot = Browser(server)
        assert robot.sign_in("robot$ci-2", secret).status == 303
        alice, bob = signed_in(server, "alice"), signed_in(server, "bob")
        carol = signed_in(server, "carol")
        name = "one-of-team/app"
        assert name in alice.text("/fleet") or "team/app" in alice.text("/")

        # An agent's token.
        assert run_digestry("token", "revoke", "--root", server.root, "agent").returncode == 0
        late = report("n1", started("late", "i"), images={"i": report_image("x/y:1", world.mine)}, first=3)
        wait_until(lambda: post(world.agent, late).status == 401, what="the refusal", log=server.log)
        # A robot's: its session, and its requests.
        assert robot.request("GET", "/r/team/app").status == 200
        assert run_digestry("token", "revoke", "--root", server.root, "ci-2").returncode == 0
        wait_until(
            lambda: server.request("GET", "/v2/", headers=basic("robot$ci-2", secret)).status == 401,
            what="the refusal", log=server.log,
        )  # fmt: skip
        for path in PAGES:
            answer = robot.request("GET", path)
            assert "team/app" not in told(answer, path), path
        for path in ENDPOINTS:
            assert server.request("GET", path, headers=basic("robot$ci-2", secret)).status == 401, path
        # A password that changes ends the sessions of that user, and no other's.
        users = server.root.parent / "users"
        others = [line for line in users.read_text().splitlines(True) if not line.startswith("alice:")]
        users.write_text("".join(others) + htpasswd({"alice": "another"}))
        wait_until(lambda: alice.request("GET", "/r/team/app").status == 303, what="the end", log=server.log)
        for path in PAGES:
            assert "team/app" not in told(alice.request("GET", path), path), path
        for path in ENDPOINTS:
            assert of(server, "alice").request("GET", path).status == 401, path
        assert bob.request("GET", "/r/team/app").status == 200
        # A rule that goes: the session stays, and shows nothing of it any more.
        file = server.root.parent / "registry.toml"
        file.write_text(file.read_text().replace(RULES, KEPT))
        server.process.send_signal(signal.SIGHUP)
        wait_for_line(server.log, "the configuration was reloaded by all workers")
        for path in PAGES:
            assert "team/app" not in told(bob.request("GET", path), path), path
        for path in ENDPOINTS:
            answer = of(server, "bob").request("GET", path)
            assert answer.status == 403 or not answer.json().get("runs"), (path, answer.body)
        assert "team/app" in carol.text("/")
        assert nobody(server).request("GET", ENDPOINTS[0]).status == 401
