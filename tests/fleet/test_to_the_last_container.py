"""From an advisory on a layer to the last container: everything that answers agrees."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from digestry.model.digest import Digest
from tests.cli.test_layer_advisories import push
from tests.fleet.support import SimulatedAgent, judged, moment
from tests.support import RegistryServer, run_digestry, running_registry, wait_until
from tests.web.browser import Browser
from tests.web.test_tag import plain

HOSTS = 12


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with running_registry() as server:
        yield server


def ask(server: RegistryServer, *line: str, status: int) -> Any:
    done = run_digestry(*line, "--registry", server.host, "--format", "json", timeout=120)
    assert done.returncode == status, (line, done.stdout[-1000:], done.stderr)
    return json.loads(done.stdout)


def metric(server: RegistryServer, name: str) -> float | None:
    text = server.request("GET", "/metrics").body.decode()
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return None if found is None else float(found[1])


@pytest.mark.long
@pytest.mark.parametrize(
    ("affected", "others"), [(6, 4), pytest.param(40, 260, marks=pytest.mark.long)], ids=["short", "whole"]
)
def test_all_answers_agree(server: RegistryServer, affected: int, others: int) -> None:
    base = push(server, "base", "12", b"bad base")
    layer = Digest.of(b"bad base")
    images = [
        f"team/app{number}:1@{push(server, f'team/app{number}', '1', b'bad base', b'%d' % number)}"
        for number in range(affected)
    ]
    images += [
        f"team/ok{number}:1@{push(server, f'team/ok{number}', '1', b'good base', b'%d' % number)}"
        for number in range(others)
    ]
    agents = [SimulatedAgent(server, f"host{number}") for number in range(HOSTS)]
    for number, agent in enumerate(agents):
        mine = range(number, len(images), HOSTS)
        agent.start({f"c{one}": images[one] for one in mine})
    judged(server, {"not_assessed": affected + others})
    done = run_digestry(
        "advisory", "add", f"{server.host}/base@{layer}", "--id", "CVE-2026-7", "--status", "affected",
        "--author", "sec@example", timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    judged(server, {"affected": affected, "not_assessed": others})

    # Who runs it: by vulnerability, by layer; each row names the layer and the image that it came with.
    for target in ("CVE-2026-7", "cve-2026-7", str(layer)):
        rows = ask(server, "fleet", "who", target, status=1)
        assert {row["container"] for row in rows} == {f"c{number}" for number in range(affected)}
        assert {row["layer"] for row in rows} == {str(layer)}
        assert {row["base"] for row in rows} == {f"{server.host}/base:12@{base}"}
    assert [row["container"] for row in ask(server, "fleet", "who", "team/app1:1", status=1)] == ["c1"]
    summary = ask(server, "fleet", "summary", status=1)
    assert (summary["containers"]["affected"], summary["containers"]["not_assessed"]) == (affected, others)
    wait_until(
        lambda: metric(server, 'digestry_fleet_containers{state="affected"}') == affected, what="the metric"
    )
    done = run_digestry("audit", "--fleet", server.host, "--format", "json", timeout=120)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["problems"] == []
    bad = [row for row in report["containers"] if row["advisory_state"] == "affected"]
    assert {row["name"] for row in bad} == {f"name-of-c{number}" for number in range(affected)}
    assert {row["advisories"][0]["part"]["digest"] for row in bad} == {str(layer)}
    assert len(report["containers"]) == affected + others

    # The containers are replaced, one by one.
    for number in range(affected):
        seen = ask(server, "fleet", "timeline", "CVE-2026-7", status=1)
        assert (seen["running"], seen["last_end"], seen["total"]) == (affected - number, None, affected)
        at = moment(-0.001)
        agents[number % HOSTS].stop(f"c{number}", at)
        agents[number % HOSTS].start({f"new{number}": images[affected]})
    seen = ask(server, "fleet", "timeline", "CVE-2026-7", status=0)
    assert (seen["running"], seen["unknown"]) == (0, 0)
    assert datetime.datetime.fromisoformat(seen["last_end"]) == datetime.datetime.fromisoformat(at)
    assert seen["last_end_after"] == seen["last_end"]
    assert seen["sentence"] == f"The last container is gone at {at[:10]} {at[11:19]}Z."
    assert seen["points"][-1]["containers"] == 0
    assert ask(server, "fleet", "who", "CVE-2026-7", status=0) == []
    assert len(ask(server, "fleet", "who", "CVE-2026-7", "--ever", status=1)) == affected
    wait_until(lambda: metric(server, 'digestry_fleet_containers{state="affected"}') == 0, what="the metric")
    assert metric(server, "digestry_fleet_oldest_affected_timestamp_seconds") is None


@pytest.mark.long
def test_an_end_that_nobody_saw_and_silence(server: RegistryServer) -> None:
    bad = push(server, "team/app", "1", b"bad")
    first, second = SimulatedAgent(server, "h1"), SimulatedAgent(server, "h2", interval=1)
    first.start({"a": f"team/app:1@{bad}"})
    after, until = moment(-5), moment(-2)
    first.stop("a", until, after=after)
    judged(server, {"not_assessed": 1}, f"digest={bad}&ever=1")
    seen = ask(server, "fleet", "timeline", str(bad), status=0)
    assert seen["sentence"] == (
        f"The last container ended between {after[:10]} {after[11:19]}Z and {until[:10]} {until[11:19]}Z."
    )
    second.start({"b": f"team/app:1@{bad}"})
    wait_until(
        lambda: ask_silent(server) == [("agent", "h2"), ("source", "h2")], what="an agent that is silent"
    )
    seen = ask(server, "fleet", "timeline", str(bad), status=3)
    assert (seen["running"], seen["unknown"], seen["last_end"]) == (1, 1, None)
    assert (
        "When the last one ends is not known: 1 container runs in h2, which is silent since"
        in (seen["sentence"])
    )
    (row,) = ask(server, "fleet", "who", str(bad), status=3)
    assert (row["silent"], row["until"]) == (True, None)
    done = run_digestry("audit", "--fleet", server.host, "--format", "json", timeout=60)
    assert done.returncode == 3
    report = json.loads(done.stdout)
    assert [row["name"] for row in report["containers"]] == ["name-of-b"]
    (problem,) = report["problems"]
    assert "1 container ran then" in problem["message"]
    second.report()
    wait_until(lambda: ask_silent(server) == [], what="an agent that is heard again")


@pytest.mark.long
def test_a_vulnerability_may_be_in_what_is_not_known(server: RegistryServer) -> None:
    agent = SimulatedAgent(server, "h1")
    bad = push(server, "team/app", "1", b"bad")
    agent.start({"a": f"team/app:1@{bad}", "b": f"docker.io/library/redis:7@{Digest.of(b'redis')}"})
    done = run_digestry(
        "advisory", "add", f"{server.host}/team/app:1", "--id", "CVE-2026-9", "--status", "affected",
        "--author", "sec@example", timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    judged(server, {"affected": 1, "unknown": 1})
    assert len(ask(server, "fleet", "who", "CVE-2026-9", status=1)) == 1
    agent.stop("a", moment(-0.001))
    assert ask(server, "fleet", "who", "CVE-2026-9", status=3) == []
    seen = ask(server, "fleet", "timeline", "CVE-2026-9", status=3)
    assert (seen["running"], seen["unknown"]) == (0, 0)
    # Of a digest everything is known.
    assert ask(server, "fleet", "timeline", str(bad), status=0)["running"] == 0
    done = run_digestry("fleet", "who", "CVE-2026-9", "--registry", server.host, timeout=60)
    assert "1 container runs an image whose verdict is unknown: it may be affected" in done.stderr
    page = plain(Browser(server).text("/vulnerability?id=CVE-2026-9"))
    assert "1 container runs an image whose verdict is unknown: it may be affected." in page


def ask_silent(server: RegistryServer) -> list[tuple[str, str]]:
    done = run_digestry("fleet", "silent", "--registry", server.host, "--format", "json", timeout=60)
    assert done.returncode in {0, 3}, done.stderr
    return sorted((row["what"], row["place"]) for row in json.loads(done.stdout))


@pytest.mark.long
def test_a_registry_without_agents(server: RegistryServer) -> None:
    for line in (("summary",), ("silent",), ("since", "1h"), ("who", "CVE-1"), ("timeline", "CVE-1")):
        done = run_digestry("fleet", *line, "--registry", server.host, timeout=60)
        assert done.returncode == 3, (line, done.stdout, done.stderr)
        assert "no agent has reported" in done.stderr
    done = run_digestry("audit", "--fleet", server.host, timeout=60)
    assert done.returncode == 3
    assert "no agent has reported" in done.stdout
