"""The judging in the server: what agents report is judged by the audit, over the registry's own content."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.backend import open_backend
from digestry.catalog import clock
from digestry.catalog.journal import Origin
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from tests.cli.test_layer_advisories import push
from tests.fleet.support import SimulatedAgent, judged, references, runs, states
from tests.support import RegistryServer, run_digestry, running_registry, start_registry


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with running_registry() as server:
        yield server


def advise(
    server: RegistryServer, image: str, vulnerability: str, *more: str, status: str = "affected"
) -> None:
    """State something about an image."""
    done = run_digestry(
        "advisory", "add", f"{server.host}/{image}", "--id", vulnerability, "--status", status,
        "--author", "sec@example", *more, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_an_image_is_judged_and_judged_again(server: RegistryServer) -> None:
    bad = push(server, "team/app", "1", b"bad")
    good = push(server, "team/app", "2", b"good")
    agent = SimulatedAgent(server, "h1")
    began = time.monotonic()
    agent.start({"a": f"team/app:1@{bad}", "b": f"team/app:2@{good}"})
    judged(server, {"not_assessed": 2})
    assert time.monotonic() - began < 60
    advise(server, f"team/app@{bad}", "CVE-2026-7", "--fixed-by", f"{server.host}/team/app@{good}")
    judged(server, {"affected": 1, "fixed": 1})
    (found,) = runs(server, "vulnerability=CVE-2026-7")
    assert found["container"] == "a"
    assert found["verdict"]["vulnerabilities"] == ["CVE-2026-7"]
    assert found["verdict"]["fixed"].endswith(f"team/app@{good}")
    assert found["verdict"]["tag"] == "current"
    push(server, "team/app", "1", b"newer")
    wait = time.monotonic() + 60
    while runs(server, f"digest={bad}")[0]["verdict"]["tag"] != "moved":
        assert time.monotonic() < wait
        time.sleep(0.1)
    (advisory,) = server.request("GET", f"/v2/team/app/referrers/{bad}").json()["manifests"]
    assert server.request("DELETE", f"/v2/team/app/manifests/{advisory['digest']}").status == 202
    judged(server, {"not_assessed": 1}, f"digest={bad}")


@pytest.mark.long
def test_a_layer_reaches_what_runs(server: RegistryServer) -> None:
    base = push(server, "base", "12", b"bad base")
    children = [push(server, f"team/app{number}", "1", b"bad base", b"%d" % number) for number in range(3)]
    other = push(server, "team/other", "1", b"other")
    layer = Digest.of(b"bad base")
    SimulatedAgent(server, "h1").start(
        {
            f"c{number}": name
            for number, name in enumerate(
                [*references([f"team/app{number}" for number in range(3)], children), f"team/other:1@{other}"]
            )
        }
    )
    judged(server, {"not_assessed": 4})
    advise(server, f"base@{layer}", "CVE-2026-9")
    judged(server, {"affected": 3, "not_assessed": 1})
    for run in runs(server, f"digest={layer}"):
        assert run["verdict"]["layer"] == str(layer)
        assert run["verdict"]["base"] == f"{server.host}/base:12@{base}"


@pytest.mark.long
def test_images_of_another_registry_are_unknown(server: RegistryServer) -> None:
    digest = push(server, "team/app", "1", b"copied")
    elsewhere = Digest.of(b"elsewhere")
    SimulatedAgent(server, "h1").start(
        {"a": f"other.example/team/app:1@{digest}", "b": f"other.example/team/b:1@{elsewhere}"}
    )
    judged(server, {"unknown": 2})
    for run in runs(server):
        assert "other.example is another registry" in " ".join(run["verdict"]["reasons"]), run["verdict"]
        assert run["verdict"]["foreign"] == "other.example"
    done = run_digestry("fleet", "summary", "--registry", server.host)
    assert "Unknown: 2 containers of other.example, which the registry does not ask." in done.stdout
    assert 'hosts = ["other.example"]' in done.stdout
    page = server.request("GET", "/fleet").body.decode()
    assert "2 containers of <strong>other.example</strong> are not known" in page
    assert "hosts = [&#34;other.example&#34;]" in page or 'hosts = ["other.example"]' in page


@pytest.mark.long
@pytest.mark.parametrize("named", [False, True])
def test_a_registry_knows_its_names(tmp_path: Path, named: bool) -> None:
    configuration = tmp_path / "registry.toml"
    configuration.write_text('hosts = ["127.0.0.1", "reg.example"]\n' if named else "")
    server = start_registry(tmp_path / "root", "--config", str(configuration))
    try:
        digest = push(server, "team/app", "1", b"one")
        SimulatedAgent(server, "h1").start({"a": f"reg.example/team/app:1@{digest}"})
        judged(server, {"not_assessed" if named else "unknown": 1})
    finally:
        server.stop()


@pytest.mark.long
def test_the_verdicts_are_the_audits(server: RegistryServer, tmp_path: Path) -> None:
    """What the server judges in process is what an audit over HTTP finds."""
    digests = [push(server, f"team/app{number % 4}", f"v{number}", b"%d" % number) for number in range(12)]
    names = [f"team/app{number % 4}:v{number}@{digest}" for number, digest in enumerate(digests)]
    advise(server, f"team/app0@{digests[0]}", "CVE-1", "--fixed-by", f"{server.host}/team/app0@{digests[4]}")
    advise(server, f"team/app1@{digests[1]}", "CVE-2")
    advise(server, f"team/app2@{digests[2]}", "CVE-3", status="under_investigation")
    push(server, "team/app3", "v3", b"moved")
    SimulatedAgent(server, "h1").start({f"c{number}": name for number, name in enumerate(names)})
    listed = [
        {
            "host": "h1",
            "name": f"c{number}",
            "reference": f"{server.host}/{name.partition('@')[0]}",
            "digest": str(digest),
        }
        for number, (name, digest) in enumerate(zip(names, digests, strict=True))
    ]
    (tmp_path / "fleet.json").write_text(json.dumps(listed))
    done = run_digestry(
        "audit", "--source", f"file:{tmp_path / 'fleet.json'}", "--format", "json", timeout=60
    )
    audited = {
        row["name"]: (row["advisory_state"], row["tag_state"])
        for row in json.loads(done.stdout)["containers"]
    }
    counted: dict[str, int] = {}
    for state, _ in audited.values():
        counted[state] = counted.get(state, 0) + 1
    judged(server, counted)
    assert {
        run["container"]: (run["verdict"]["state"], run["verdict"]["tag"]) for run in runs(server)
    } == audited
    assert states(server, "vulnerability=CVE-2") == {"affected": 1}


def tag_at(root: Path, repository: str, tag: str, manifest: bytes, at: int) -> None:
    """Move a tag to a manifest that is there, at a time."""
    catalog = open_backend(root, now=lambda: at).open_catalog()
    try:
        origin = Origin("tester", "127.0.0.1", "pytest")
        catalog.put_manifest(repository, Manifest.parse(manifest), tag_names=[tag], origin=origin)
    finally:
        catalog.close()


@pytest.mark.long
def test_a_tag_is_what_a_pull_of_it_gets_where_a_minimum_age_serves_an_older_image(tmp_path: Path) -> None:
    """The fleet's verdicts, the audit and the webhook's question say the same."""
    (tmp_path / "registry.toml").write_text('[[min-age]]\nage = "7d"\n')
    with running_registry("--config", str(tmp_path / "registry.toml")) as server:
        digests = {}
        for salt, days in (("gone", 60), ("served", 30), ("young", 1)):
            document = server.image("team/aged", salt.encode())
            raw = json.dumps(document).encode()
            digests[salt] = server.push_manifest("team/aged", str(Digest.of(raw)), document)
            tag_at(server.root, "team/aged", "1", raw, clock.now() - days * 86400 * clock.SECOND)
        agent = SimulatedAgent(server, "h1")
        agent.start({salt: f"team/aged:1@{digest}" for salt, digest in digests.items()})
        judged(server, {"not_assessed": 3})
        expected = {"gone": "moved", "served": "current", "young": "current"}
        assert {run["container"]: run["verdict"]["tag"] for run in runs(server)} == expected
        done = run_digestry("audit", "--fleet", server.host, "--format", "json", timeout=60)
        rows = {row["name"].removeprefix("name-of-"): row for row in json.loads(done.stdout)["containers"]}
        assert {name: row["tag_state"] for name, row in rows.items()} == expected, done.stderr
        assert rows["gone"]["tag_digest"] == str(digests["served"])
        why = f"the tag points to {digests['young']}, and a pull by it gets the older {digests['served']}"
        for row in rows.values():
            assert any(reason.startswith(why) for reason in row["reasons"]), row["reasons"]
        for run in runs(server):
            assert any(reason.startswith(why) for reason in run["verdict"]["reasons"]), run["verdict"]


@pytest.mark.long
def test_a_tag_whose_digests_are_all_too_young_is_judged_by_where_it_points(tmp_path: Path) -> None:
    """A pull by it is refused. The fleet's verdicts and the audit, in bulk and tag by tag, say the same."""
    (tmp_path / "registry.toml").write_text('[[min-age]]\nage = "7d"\n')
    with running_registry("--config", str(tmp_path / "registry.toml")) as server:
        digests = {}
        for salt, hours in (("gone", 3), ("young", 1)):
            document = server.image("team/fresh", salt.encode())
            raw = json.dumps(document).encode()
            digests[salt] = server.push_manifest("team/fresh", str(Digest.of(raw)), document)
            tag_at(server.root, "team/fresh", "1", raw, clock.now() - hours * 3600 * clock.SECOND)
        agent = SimulatedAgent(server, "h1")
        agent.start({salt: f"team/fresh:1@{digest}" for salt, digest in digests.items()})
        judged(server, {"not_assessed": 2})
        expected = {"gone": "moved", "young": "current"}
        assert {run["container"]: run["verdict"]["tag"] for run in runs(server)} == expected
        why = f"the tag points to {digests['young']}, and a pull by it is refused: the registry's minimum age"
        for run in runs(server):
            assert why in run["verdict"]["reasons"], run["verdict"]
        done = run_digestry("audit", "--fleet", server.host, "--format", "json", timeout=60)
        rows = {row["name"].removeprefix("name-of-"): row for row in json.loads(done.stdout)["containers"]}
        assert {name: row["tag_state"] for name, row in rows.items()} == expected, done.stderr
        for row in rows.values():
            assert row["tag_digest"] == str(digests["young"])
            assert why in row["reasons"], row["reasons"]
