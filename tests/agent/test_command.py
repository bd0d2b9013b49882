"""``digestry agent`` as a command, against the registry itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.engine import engine
from tests.agent.scripts import wait_for
from tests.registry.access.support import guarded, of
from tests.support import RegistryServer, run_digestry


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with guarded() as server:
        yield server


@pytest.fixture(scope="module")
def token(server: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    done = run_digestry("token", "create", "--root", server.root, "--agent", "cluster", "a1", timeout=30)
    assert done.returncode == 0, done.stderr
    path = tmp_path_factory.mktemp("token") / "token"
    path.write_text(done.stdout)
    return path


def words(server: RegistryServer, token: Path, state: Path, *more: str) -> list[str]:
    return [
        "agent", "--registry", f"http://{server.host}", "--token-file", str(token), "--state-dir", str(state),
        *more,
    ]  # fmt: skip


def inventory(directory: Path, *names: str) -> str:
    path = directory / "inventory.json"
    path.write_text(json.dumps([{"name": name, "image": "reg.example/app:1"} for name in names]))
    return f"file:{path}"


@pytest.mark.long
def test_once(server: RegistryServer, token: Path, tmp_path: Path) -> None:
    source = inventory(tmp_path, "web")
    place = ("--place", "cluster/one", "--once")
    done = run_digestry(*words(server, token, tmp_path / "state", "--source", source, *place), timeout=60)
    assert done.returncode == 0, done.stderr
    answer = of(server, "carol").request("GET", "/v2/_digestry/fleet/runs?place=cluster/one")
    (run,) = answer.json()["runs"]
    assert (run["name"], run.get("node", "")) == ("web", "")  # the list names no host: the place is known
    refused = run_digestry(
        *words(server, token, tmp_path / "other", "--source", source, "--place", "elsewhere", "--once"),
        timeout=60,
    )
    assert refused.returncode == 3
    assert "reports for cluster, not for elsewhere" in refused.stderr
    assert token.read_text().strip() not in refused.stderr + done.stderr


def test_a_directory_of_another_place_and_of_another_agent(
    server: RegistryServer, token: Path, tmp_path: Path
) -> None:
    source = inventory(tmp_path, "web")
    common = words(server, token, tmp_path / "state", "--source", source, "--once", "--place")
    assert run_digestry(*common, "cluster/a", timeout=60).returncode == 0
    other = run_digestry(*common, "cluster/b", timeout=60)
    assert other.returncode == 2
    assert "belongs to the place cluster/a" in other.stderr


@pytest.mark.long
def test_it_runs_is_killed_goes_on_and_stops(server: RegistryServer, token: Path, tmp_path: Path) -> None:
    notices = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, engine() as docker:
        manager.bind(str(notices))
        manager.settimeout(30)
        docker.run("stays")
        command = [
            sys.executable, "-m", "digestry",
            *words(server, token, tmp_path / "state", "--source", f"docker:{docker.url}"),
            "--log-format", "json", "--place", "cluster/two", "--interval", "1",
        ]  # fmt: skip
        environment = {**os.environ, "NOTIFY_SOCKET": str(notices), "DIGESTRY_HOME": str(tmp_path / "home")}

        @contextlib.contextmanager
        def start() -> Iterator[subprocess.Popen[bytes]]:
            with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
                try:
                    yield process
                finally:
                    process.kill()

        with start() as first:
            assert manager.recv(100) == b"READY=1"
            wait_for(lambda: known(server) == {"stays": True}, "the first report")
            docker.flash("quick")
            first.send_signal(signal.SIGKILL)
        docker.flash("meanwhile")
        with start() as second:
            wait_for(lambda: known(server) == {"stays": True, "quick": False, "meanwhile": False})
            second.send_signal(signal.SIGTERM)
            _, said = second.communicate(timeout=60)
        assert second.returncode == 0
    lines = [json.loads(line) for line in said.decode().splitlines()]
    assert [line["level"] for line in lines] == ["info"]  # a line a change of its state, and no more


def known(server: RegistryServer) -> dict[str, bool]:
    """The containers of the place, and whether each runs."""
    answer = of(server, "carol").request("GET", "/v2/_digestry/fleet/runs?place=cluster/two&ever=1")
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = answer.json()["runs"]
    assert len({run["container"] for run in found}) == len(found)
    return {run["container"]: run.get("until") is None for run in found}
