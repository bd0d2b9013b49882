"""``digestry audit``, as its own program, against a running registry."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from digestry.model.digest import Digest
from tests.client.dripping import Drip, dripping
from tests.inventory.fakes import engine, recording
from tests.support import RegistryServer, run_digestry


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Nothing of this machine's own: no engine answers here."""
    return {
        "PATH": str(tmp_path), "HOME": str(tmp_path), "DIGESTRY_HOME": str(tmp_path / "home"),
        "DOCKER_HOST": f"unix://{tmp_path}/docker.sock", "XDG_RUNTIME_DIR": str(tmp_path),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }  # fmt: skip


def run(environment: dict[str, str], *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return run_digestry(*arguments, env=environment, given=stdin, timeout=60)  # fmt: skip


def inventory(*entries: dict[str, Any]) -> str:
    return json.dumps(list(entries))


def test_the_story_of_one_moved_tag(environment: dict[str, str], registry: RegistryServer) -> None:
    name = "cli/audit/golftrack"
    bad = registry.push_image(name, "1.5", b"bad")
    good = registry.push_image(name, "1.5", b"good")
    reference = f"{registry.host}/{name}:1.5"
    seen = inventory(
        {"host": "n1", "name": "old", "reference": reference, "digest": str(bad)},
        {"host": "n2", "name": "new", "reference": reference, "digest": str(good)},
    )
    before = run(environment, "audit", "--source", "file:-", stdin=seen)
    assert before.returncode == 0, before.stderr
    assert "2 containers: 2 not assessed" in before.stdout
    added = run(
        environment, "advisory", "add", f"{registry.host}/{name}@{bad}", "--status", "affected",
        "--id", "CVE-2026-1", "--fixed-by", str(good),
    )  # fmt: skip
    assert added.returncode == 0, added.stderr
    after = run(environment, "audit", "--source", "file:-", "--format", "json", stdin=seen)
    assert after.returncode == 1
    answer = json.loads(after.stdout)
    assert answer["problems"] == []
    old, new = answer["containers"]
    assert (old["name"], old["advisory_state"], old["tag_state"]) == ("old", "affected", "moved")
    assert old["running_digest"] == str(bad)
    assert old["tag_digest"] == str(good)
    assert old["moved_at"].endswith("Z")
    assert old["found_by"] == "inventory"
    assert old["action"] == f"restart from {registry.host}/{name}@{good}"
    assert (new["advisory_state"], new["tag_state"]) == ("fixed", "current")
    table = run(environment, "audit", "--source", "file:-", stdin=seen).stdout
    assert table.splitlines()[1].startswith("VULNERABLE")
    assert table.splitlines()[-1] == "2 containers: 1 vulnerable, 1 fixed"
    assert "\x1b" not in table  # no colours into a pipe


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DOCKER_HOST", "unix:///nowhere/docker.sock"),
        ("DOCKER_HOST", "tcp://127.0.0.1:1"),
        ("DOCKER_HOST", "npipe:////./pipe/docker_engine"),
        ("DOCKER_HOST", "nonsense"),
        ("DOCKER_CONTEXT", "missing"),
        ("CONTAINER_HOST", "unix:///nowhere/podman.sock"),
        ("CONTAINER_HOST", "ssh://nobody@127.0.0.1:1/run/podman/podman.sock"),
        ("CONTAINER_CONNECTION", "missing"),
        ("CONTAINERD_ADDRESS", "/nowhere/containerd.sock"),
        ("CONTAINER_RUNTIME_ENDPOINT", "unix:///nowhere/crio.sock"),
        ("CRI_CONFIG_FILE", "/nowhere/crictl.yaml"),
    ],
)
def test_a_named_engine_that_is_dead_is_a_problem(
    environment: dict[str, str], variable: str, value: str
) -> None:
    del environment["DOCKER_HOST"]
    environment[variable] = value
    done = run(environment, "audit", "--format", "json")
    assert done.returncode == 3
    report = json.loads(done.stdout)
    assert report["containers"] == []
    kinds = {"DOCKER": "docker", "CONTAINERD": "containerd", "CONTAINER_RUNTIME": "cri", "CRI_CONFIG": "cri"}
    kind = kinds.get(variable.rpartition("_")[0], "podman")
    (problem,) = [one for one in report["problems"] if one["source"].startswith(kind)]
    assert problem["message"]
    table = run(environment, "audit")
    assert table.returncode == 3
    assert "PROBLEMS" in table.stdout


def test_the_current_context_names_an_engine(environment: dict[str, str], tmp_path: Path) -> None:
    del environment["DOCKER_HOST"]
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text('{"currentContext": "desktop-linux"}')
    done = run(environment, "audit")
    assert done.returncode == 3
    assert "desktop-linux" in done.stdout


def test_a_context_that_is_no_text_names_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    del environment["DOCKER_HOST"]
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text('{"currentContext": 5}')
    done = run(environment, "audit")
    assert done.returncode == 3
    assert "current context is not known" in done.stdout


DEAD = {
    "docker-unix": 'kind = "docker"\nwhere = "unix:///nowhere/docker.sock"',
    "docker-tcp": 'kind = "docker"\nwhere = "tcp://127.0.0.1:1"',
    "podman": 'kind = "podman"\nwhere = "unix:///nowhere/podman.sock"',
    "containerd": 'kind = "containerd"\nwhere = "/nowhere/containerd.sock"',
    "cri": 'kind = "cri"\nwhere = "/nowhere/crio.sock"',
    "kubernetes": 'kind = "kubernetes"\nwhere = "nowhere"',
    "file": 'kind = "file"\nwhere = "nowhere.json"',
}


@pytest.mark.parametrize("format_", ["table", "json", "csv", "sarif", "junit", "markdown", "html"])
def test_one_dead_source_among_living_ones_is_named_in_every_format(
    environment: dict[str, str], tmp_path: Path, registry: RegistryServer, format_: str
) -> None:
    """What lives is listed, what is dead is named, each by its own name, and the exit code says so."""
    good = registry.push_image("cli/audit/fleet", "1", b"fleet")
    where = f"{registry.host}/cli/audit/fleet@{good}"
    run(environment, "advisory", "add", where, "--status", "fixed", "--id", "CVE-1")
    for name in ("first", "last"):
        (tmp_path / f"{name}.json").write_text(inventory({"name": f"{name}-web", "reference": where}))
    blocks = [f'kind = "file"\nwhere = "{tmp_path}/{name}.json"' for name in ("first", "last")]
    blocks[1:1] = [f'name = "dead {name}"\n{lines}' for name, lines in DEAD.items()]
    fleet = tmp_path / "fleet.toml"
    fleet.write_text("".join(f"[[source]]\n{block}\n" for block in blocks))
    for output in (None, tmp_path / "report"):
        options = [] if output is None else ["--output", str(output)]
        arguments = ("--config", str(fleet), "--format", format_, "--all-rows", *options)
        done = run(environment, "audit", *arguments)
        assert done.returncode == 3, done.stderr
        said = done.stdout if output is None else output.read_text()
        living = [] if format_ == "sarif" else ["first-web", "last-web"]  # which has what is bad alone
        for name in (*living, *(f"dead {name}" for name in DEAD)):
            assert name in said
    alone = tmp_path / "alone.toml"
    alone.write_text(f"[[source]]\n{blocks[0]}\n[[source]]\n{blocks[-1]}\n")
    assert run(environment, "audit", "--config", str(alone), "--format", format_).returncode == 0


@pytest.mark.parametrize("format_", ["table", "json", "csv", "sarif", "junit", "markdown", "html"])
def test_a_fleet_that_is_all_dead_is_no_empty_fleet(
    environment: dict[str, str], tmp_path: Path, format_: str
) -> None:
    fleet = tmp_path / "fleet.toml"
    fleet.write_text(f'[[source]]\nname = "the dead one"\n{DEAD["docker-tcp"]}\n')
    done = run(environment, "audit", "--config", str(fleet), "--format", format_)
    assert done.returncode == 3
    assert "the dead one" in done.stdout


def test_a_socket_that_is_there_and_silent_is_a_problem(environment: dict[str, str], tmp_path: Path) -> None:
    # Nobody named it, but something made it: what runs there is not known.
    (tmp_path / "podman").mkdir()
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(tmp_path / "podman" / "podman.sock"))
    del environment["DOCKER_HOST"]
    done = run(environment, "audit")
    assert done.returncode == 3
    assert "podman.sock" in done.stdout


@pytest.mark.skipif(
    any(Path(path).exists() for path in ("/var/run/docker.sock", "/run/podman/podman.sock")),
    reason="this machine has an engine",
)
def test_where_nothing_is_found_that_is_said(environment: dict[str, str]) -> None:
    del environment["DOCKER_HOST"]
    done = run(environment, "audit")
    assert done.returncode == 3
    assert "no container engine was found: nothing was looked at" in done.stdout
    report = json.loads(run(environment, "audit", "--format", "json").stdout)
    assert [one["source"] for one in report["problems"]] == ["this machine"]


def test_an_engine_that_does_not_answer_is_a_problem(environment: dict[str, str]) -> None:
    done = run(environment, "audit", "--source", "docker:unix:///nowhere.sock")
    assert done.returncode == 3
    assert "there is no such socket" in done.stdout


def test_findings_outrank_problems(environment: dict[str, str], registry: RegistryServer) -> None:
    name = "cli/audit/outrank"
    bad = registry.push_image(name, "1", b"outrank")
    where = f"{registry.host}/{name}@{bad}"
    run(environment, "advisory", "add", where, "--status", "affected", "--id", "CVE-1")
    done = run(
        environment, "audit", "--source", "file:-", "--source", "docker:unix:///nowhere.sock",
        stdin=inventory({"reference": where}),
    )  # fmt: skip
    assert done.returncode == 1
    assert "PROBLEMS" in done.stdout


def test_a_bad_line_is_a_problem(environment: dict[str, str], registry: RegistryServer) -> None:
    digest = registry.push_image("cli/audit/lines", "1", b"lines")
    done = run(
        environment, "audit", "--source", "file:-",
        stdin=f"reference,digest\n{registry.host}/cli/audit/lines:1,{digest}\nx,sha256:1\n",
    )  # fmt: skip
    assert done.returncode == 3
    assert "-, line 3" in done.stdout
    assert "1 not assessed" in done.stdout


@pytest.mark.parametrize("source", ["kubernetis", "docker:gopher://x", "file", "file:"])
def test_wrong_sources_are_usage_errors(environment: dict[str, str], source: str) -> None:
    assert run(environment, "audit", "--source", source).returncode == 2


def test_a_whole_engine_and_a_silent_registry(environment: dict[str, str]) -> None:
    answers = recording("docker-20.10")
    dead = "127.0.0.1:9"  # the discard port: nothing listens there
    listed = json.dumps(answers).replace("localhost:5610", dead)
    with engine(json.loads(listed)) as (url, _):
        environment["DOCKER_HOST"] = url
        done = run(environment, "audit", "--source", "docker", "--format", "json", "--timeout", "2")
    assert done.returncode == 3
    answer = json.loads(done.stdout)
    assert len(answer["containers"]) == 9
    assert [one["source"] for one in answer["problems"]] == [f"registry {dead}"]
    assert {one["tag_state"] for one in answer["containers"]} == {"unknown", "pinned"}
    assert next(c for c in answer["containers"] if c["name"] == "loaded")["running_digest"] is None


def test_hostile_names_do_not_reach_the_terminal(environment: dict[str, str]) -> None:
    entry = {
        "name": "\x1b]0;owned\x07",
        "host": "\x1b[31m",
        "digest": str(Digest.of(b"x")),
        "reference": "\u202e",
        "id": "\u200b",
    }
    done = run(environment, "audit", "--source", "file:-", stdin=inventory(entry))
    assert done.returncode == 3, done.stderr  # no registry could be asked of what that is
    assert not {"\x1b", "\x07", "\u202e"} & set(done.stdout + done.stderr)
    values = run(environment, "audit", "--source", "file:-", "--format", "json", stdin=inventory(entry))
    assert json.loads(values.stdout)["containers"][0]["name"]


@pytest.mark.long
def test_an_audit_has_an_end(tmp_path: Path) -> None:
    """A registry that answers each of very many questions just in time."""
    slow = Drip(lambda _: iter([b"HTTP/1.1 404 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"]), 0.5)
    with dripping(slow) as server:
        rows = [{"host": "h", "name": f"n{n}", "reference": f"{server.host}/a{n}/b:1"} for n in range(200)]
        fleet = tmp_path / "fleet.json"
        fleet.write_text(json.dumps(rows))
        begun = time.monotonic()
        done = run_digestry(
            "audit", "--source", f"file:{fleet}", "--time-limit", "2", "--format", "json",
            env=os.environ | {"DIGESTRY_HOME": str(tmp_path)},
        )  # fmt: skip
        assert time.monotonic() - begun < 30
    assert done.returncode == 3
    assert len(json.loads(done.stdout)["containers"]) == 200
