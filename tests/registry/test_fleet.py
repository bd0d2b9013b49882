"""What agents report, over HTTP: who may, and who may ask."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from digestry.model.fleet import LARGEST_REPORT
from digestry.registry.routes import ROUTES
from tests.registry.access.support import As, basic, bearer, guarded, of, token
from tests.support import RegistryServer, Response, run_digestry

REPORTS = "/v2/_digestry/fleet/reports"
RUNS = "/v2/_digestry/fleet/runs"
_numbers: dict[str, int] = {}


def now(seconds: float = 0) -> str:
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)).isoformat()


def started(container: str, image: str = "i", **more: Any) -> dict[str, Any]:
    run = {"container": container, "instance": "1", "image": image, "startedAt": now(-10), **more}
    return {"type": "started", "source": "docker", "run": run}


def report(place: str, *entries: dict[str, Any], agent: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "agent": agent or os.urandom(16).hex(), "place": place, "version": "1", "interval": 60,
        "sentAt": now(), "first": 1, "entries": entries, **more,
    }  # fmt: skip


def image(reference: str, digest: object, kind: str = "manifest") -> dict[str, Any]:
    return {"reference": reference, "claims": [{"digest": str(digest), "kind": kind}]}


def post(asking: RegistryServer | As, body: object) -> Response:
    return asking.request("POST", REPORTS, json.dumps(body), {"Content-Type": "application/json"})


def test_reported_and_asked(registry: RegistryServer) -> None:
    digest = registry.push_image("fleet/app", "t", os.urandom(10))
    body = report("h1", started("c1", name="web"), images={"i": image("reg.example/fleet/app:t", digest)})
    answer = post(registry, body)
    assert answer.status == 200, answer.body
    assert answer.json()["received"] == 1
    found = registry.request("GET", f"{RUNS}?digest={digest}").json()
    (run,) = found["runs"]
    assert (found["total"], found["running"], run["container"], run["name"]) == (1, 1, "c1", "web")
    assert found["images"][0]["number"] == run["image"]
    assert "report" not in found["images"][0]
    assert registry.request("GET", f"{RUNS}?digest={digest}&with-images=1").json()["images"][0]["report"]
    assert registry.request("GET", f"{RUNS}?digest={digest}&place=h2").json()["total"] == 0


def test_a_state_that_there_is_not_is_no_filter(registry: RegistryServer) -> None:
    """An empty page would look as if nothing were affected."""
    for route in ("runs", "changes", "timeline"):
        answer = registry.request(
            "GET", f"/v2/_digestry/fleet/{route}?state=afected&vulnerability=CVE-2026-1"
        )
        assert answer.status == 400, route
        assert "affected, unknown" in answer.json()["errors"][0]["message"]
    assert registry.request("GET", f"{RUNS}?state=unjudged").status == 200


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with guarded() as server:
        yield server


@pytest.fixture(scope="module")
def agent(server: RegistryServer) -> As:
    done = run_digestry("token", "create", "--root", server.root, "--agent", "cluster", "a1", timeout=30)
    assert done.returncode == 0, done.stderr
    return As(server, bearer(done.stdout.strip()))


@pytest.mark.long
def test_an_agent_reports_for_its_place_and_within_it(agent: As, server: RegistryServer) -> None:
    for place, status in (("cluster", 200), ("cluster/n1", 200), ("cluster2", 403), ("", 400), ("x", 403)):
        answer = post(agent, report(place))
        assert answer.status == status, (place, answer.body)
    assert b"reports for cluster, not for x" in answer.body
    assert post(server, report("cluster")).status == 401
    assert post(of(server, "carol"), report("cluster")).status == 403


@pytest.mark.long
def test_an_agents_token_may_do_nothing_else(agent: As, server: RegistryServer) -> None:
    """Not even what the rules allow to everybody, whichever way it logs in."""
    secret = agent.headers["Authorization"].removeprefix("Bearer ")
    as_user = As(server, basic("robot$a1", secret))
    issued = token(server, "repository:public/x:pull,push registry:catalog:*", headers=as_user.headers)
    assert of(server, "carol").push_image("public/x", "t").status == 201
    tried = 0
    for asking in (agent, as_user, As(server, bearer(issued["token"]))):
        for route in ROUTES:
            if route.agents or not route.identified:
                continue
            path = route.path.replace("<name>", "public/x").replace("<reference>", "t")
            for method in (*route.operations, "GET", "PUT", "DELETE", "POST"):
                answer = asking.request(method, path, b"{}")
                assert answer.status == 403, (method, path, answer.body)
                tried += 1
        assert asking.request("GET", "/v2/").status == 200
        assert asking.request("GET", "/v2/_oci/ext/discover").status == 200
        assert post(asking, report("cluster")).status == 200
    assert tried > 100
    assert server.request("GET", "/v2/public/x/tags/list").status == 200  # without any token


def test_a_revoked_agent(server: RegistryServer) -> None:
    done = run_digestry("token", "create", "--root", server.root, "--agent", "h9", "a9", timeout=30)
    asking = As(server, bearer(done.stdout.strip()))
    one = "9" * 32
    assert post(asking, report("h9", agent=one)).status == 200
    listed = json.loads(run_digestry("token", "list", "--root", server.root, "--format", "json").stdout)
    assert {entry["user"]: entry["place"] for entry in listed}["robot$a9"] == "h9"
    run_digestry("token", "revoke", "--root", server.root, "a9", timeout=30)
    # Another token of the place goes on with the same agent.
    done = run_digestry("token", "create", "--root", server.root, "--agent", "h9", "a10", timeout=30)
    assert post(As(server, bearer(done.stdout.strip())), report("h9", agent=one)).status == 200


def test_who_may_ask(agent: As, server: RegistryServer) -> None:
    mine = of(server, "carol").push_image("team/app", "t", os.urandom(9))
    other = of(server, "carol").push_image("secret/app", "t", os.urandom(9))
    images = {
        "mine": image("reg.example/team/app:t", digest_of(mine)),
        "other": image("reg.example/secret/app:t", digest_of(other)),
        "hub": image("nginx:1", "sha256:" + "0" * 64),
        "liar": image("reg.example/team/app:t", digest_of(other)),
    }
    entries = [started(f"c-{key}", key) for key in images]
    assert post(agent, report("cluster/who", *entries, images=images)).status == 200
    path = f"{RUNS}?place=cluster/who"
    everything = of(server, "carol").request("GET", path).json()
    assert everything["total"] == 4
    some = of(server, "alice").request("GET", path)
    assert [run["container"] for run in some.json()["runs"]] == ["c-mine"]
    assert b"secret" not in some.body
    assert of(server, "bob").request("GET", path).status == 403
    assert server.request("GET", path).status == 401


def digest_of(answer: Response) -> str:
    return answer.headers["docker-content-digest"]


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        {"agent": "x"},
        {"interval": 0},
        {"sentAt": "2026-01-01T00:00:00"},
        {"place": "a\nb"},
        {"first": -1},
        {"first": 1 << 70},
        {"entries": [started("c", "absent")]},
        {"entries": [{"type": "what"}]},
        {"images": {"i": {"claims": [{"digest": "sha256:x"}]}}},
    ],
)
def test_what_is_no_report(registry: RegistryServer, wrong: bytes | Mapping[str, Any]) -> None:
    body = wrong if isinstance(wrong, bytes) else json.dumps({**report("h"), **wrong})
    answer = registry.request("POST", REPORTS, body)
    assert answer.status == 400, answer.body
    assert answer.code == "UNSUPPORTED"


def test_a_report_that_is_too_long(registry: RegistryServer) -> None:
    assert registry.request("POST", REPORTS, b" " * (LARGEST_REPORT + 1)).status == 413


def test_what_is_no_question(registry: RegistryServer) -> None:
    for query in ("after=x", "after=r1", "digest=x", "reference=UPPER", "ever=yes", "at=now", "n=x"):
        assert registry.request("GET", f"{RUNS}?{query}").status == 400, query
    assert registry.request("POST", RUNS).status == 405
    assert registry.request("GET", REPORTS).status == 405


def test_the_audit_log_has_refusals_alone(agent: As, server: RegistryServer) -> None:
    good, bad = post(agent, report("cluster")), post(of(server, "bob"), report("cluster"))
    lines = [json.loads(line) for line in (server.root / "audit.log").read_text().splitlines()]
    assert good.headers["x-request-id"] not in {line.get("request_id") for line in lines}
    (line,) = [one for one in lines if one.get("request_id") == bad.headers["x-request-id"]]
    assert line["action"] == "report-fleet"


def test_changes_places_summary_and_timeline(registry: RegistryServer) -> None:
    digest = registry.push_image("fleet/timed", "t", os.urandom(10))
    images = {"i": image("reg.example/fleet/timed:t", digest)}
    state = {"source": "docker", "confirmedAt": now()}
    assert post(registry, report("timed", started("c1"), images=images, sources=[state])).status == 200

    def get(path: str) -> dict[str, Any]:
        answer = registry.request("GET", f"/v2/_digestry/fleet/{path}")
        assert answer.status == 200, answer.body
        found: dict[str, Any] = answer.json()
        return found

    (change,) = get("changes?place=timed")["changes"]
    assert (change["change"], change["run"]["container"]) == ("started", "c1")
    places = get("places?place=timed")
    assert [source["running"] for source in places["sources"]] == [1]
    assert places["agents"][0]["user"] == "anonymous"
    assert get("places?place=timed&silent=1").get("sources") is None
    assert sum(get("summary")["containers"].values()) >= 1  # the registry may have judged it meanwhile
    name = f"{registry.host}/fleet/timed:t"
    assert [point["containers"] for point in get(f"timeline?reference={name}")["points"]] == [1]
    assert get(f"runs?reference={name}")["total"] == 1
    assert registry.request("GET", "/v2/_digestry/fleet/timeline").status == 400
    for query in ("changes?after=x", "changes?after=a.b.c", "places?after=.", "places?silent=2"):
        assert registry.request("GET", f"/v2/_digestry/fleet/{query}").status == 400, query


def test_places_are_for_who_audits_everything(server: RegistryServer) -> None:
    path = "/v2/_digestry/fleet/places"
    assert of(server, "carol").request("GET", path).status == 200
    assert of(server, "alice").request("GET", path).status == 403
    assert of(server, "alice").request("GET", "/v2/_digestry/fleet/summary").json()["limited"] is True
