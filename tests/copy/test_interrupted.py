"""Copies that are killed, and connections that are cut: the next attempt goes on where the last one ended."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from digestry.copy.copy import CopyOptions
from digestry.copy.location import parse_location
from digestry.copy.places import Surroundings
from digestry.copy.request import CopyRequest, run_copy
from tests.copy.slow_proxy import SlowProxy, slow_proxy
from tests.support import RegistryServer, digestry, run_digestry

SIZE = 12 << 20
RATE = 8 << 20
"""Bytes a second: a copy takes about a second and a half."""
IN_FLIGHT = 3 << 20
"""Bytes that may be on the way, sent and not yet kept, when a process is killed."""
TARGETS = {
    "registry": "{host}/{repository}/there:1",
    "local": "local:killed:1",
    "oci": "oci:{path}/layout:1",
    "oci-archive": "oci-archive:{path}/layout.tar:1",
}


def kills(kind: str) -> int:
    """How often a copy is killed: a few times, or in a long run of all tests a hundred."""
    return 100 if os.environ.get("DIGESTRY_FAULTS") == "all" else 3 if kind == "registry" else 2


def steps(rounds: int) -> list[int]:
    """After how many bytes more each process is killed: together they are less than the layer has."""
    chance = random.Random(rounds)
    return [chance.randrange(1, 2 * SIZE // (rounds + 2)) for _ in range(rounds)]


def kill_after(count: int, proxy: SlowProxy, line: list[str], environment: dict[str, str]) -> None:
    """Kill a command when so many bytes more have passed the proxy."""
    before = proxy.sent
    process = subprocess.Popen(digestry(*line), env=environment, stderr=subprocess.DEVNULL)
    while proxy.sent < before + count and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.long
@pytest.mark.parametrize("kind", TARGETS)
def test_a_copy_that_is_killed(registry: RegistryServer, repository: str, tmp_path: Path, kind: str) -> None:
    layer = random.Random(kind).randbytes(SIZE)
    digest = registry.push_image(repository, "1", layer)
    target = TARGETS[kind].format(host=registry.host, repository=repository, path=tmp_path)
    environment = dict(os.environ, DIGESTRY_HOME=str(tmp_path / "home"), DOCKER_CONFIG=str(tmp_path))
    with slow_proxy(registry.port, rate=RATE) as proxy:
        line = ["copy", "--quiet", f"{proxy.host}/{repository}:1", target]
        for count in steps(kills(kind)):
            kill_after(count, proxy, line, environment)
        done = run_digestry(*line, env=environment)
        assert (done.returncode, done.stdout) == (0, f"{digest}\n"), done.stderr
        assert proxy.sent < SIZE + kills(kind) * IN_FLIGHT
    back = ["copy", "--quiet", target, f"{registry.host}/{repository}/back:1"]
    assert run_digestry(*back, env=environment).stdout == f"{digest}\n"
    assert not [path for path in (tmp_path / "home").rglob("*transfers/*") if path.is_file()]


@pytest.mark.long
@pytest.mark.parametrize("command", ["push", "copy"])
def test_an_upload_that_is_killed(
    registry: RegistryServer, repository: str, tmp_path: Path, command: str
) -> None:
    """The next command goes on with the upload that the registry still has."""
    digest = registry.push_image(repository, "1", random.Random(command).randbytes(SIZE))
    environment = dict(os.environ, DIGESTRY_HOME=str(tmp_path / "home"), DOCKER_CONFIG=str(tmp_path))
    with slow_proxy(registry.port, rate=RATE, uploads=True) as proxy:
        there = f"{proxy.host}/{repository}/{command}:1"
        here = f"local:{there}" if command == "push" else f"oci:{tmp_path}/layout:1"
        made = run_digestry("copy", "--quiet", f"{registry.host}/{repository}:1", here, env=environment)
        assert made.returncode == 0, made.stderr
        line = ["push", "--quiet", there] if command == "push" else ["copy", "--quiet", here, there]
        rounds = kills("registry")
        for count in steps(rounds):
            kill_after(count, proxy, line, environment)
        done = run_digestry(*line, env=environment)
        assert (done.returncode, done.stdout) == (0, f"{digest}\n"), done.stderr
        assert proxy.sent < SIZE + rounds * IN_FLIGHT // 3
    back = ["copy", "--quiet", f"{registry.host}/{repository}/{command}:1", f"oci:{tmp_path}/back"]
    assert run_digestry(*back, env=environment).stdout == f"{digest}\n"
    assert list((tmp_path / "home/uploads").iterdir()) == []


@pytest.mark.long
def test_uploads_that_are_cut(
    around: Surroundings, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    digest = registry.push_image(repository, "1", random.Random(5).randbytes(SIZE))
    with slow_proxy(registry.port, rate=100 << 20, cut_after=2 << 20, uploads=True) as proxy:
        request = CopyRequest(
            parse_location(f"{registry.host}/{repository}:1", around.read),
            parse_location(f"{proxy.host}/{repository}/cut:1", around.read),
        )
        made = run_copy(request, around, CopyOptions())
        assert made.images[0].digest == digest
        assert proxy.sent < SIZE + (4 << 20)


@pytest.mark.parametrize("kind", TARGETS)
def test_connections_that_are_cut(
    around: Surroundings, registry: RegistryServer, repository: str, tmp_path: Path, kind: str
) -> None:
    digest = registry.push_image(repository, "1", random.Random(2).randbytes(SIZE))
    target = TARGETS[kind].format(host=registry.host, repository=repository, path=tmp_path)
    with slow_proxy(registry.port, rate=100 << 20, cut_after=2 << 20) as proxy:
        request = CopyRequest(
            parse_location(f"{proxy.host}/{repository}:1", around.read), parse_location(target, around.read)
        )
        made = run_copy(request, around, CopyOptions())
        assert made.images[0].digest == digest
        assert proxy.sent < SIZE + (1 << 20) * 20


def test_bytes_that_were_kept_and_are_wrong(
    around: Surroundings, registry: RegistryServer, repository: str
) -> None:
    """They are not used a second time."""
    layer = random.Random(3).randbytes(SIZE)
    digest = registry.push_image(repository, "1", layer)
    request = CopyRequest(
        parse_location(f"{registry.host}/{repository}:1", around.read),
        parse_location("oci:" + str(around.scratch.parent / "layout"), around.read),
    )
    name = f"sha256-{registry.push_blob(repository, layer).encoded}"
    kept = around.scratch.parent / "layout/ingest" / f"pull-{name.removeprefix('sha256-')}"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"wrong" * 1000)
    assert run_copy(request, around, CopyOptions()).images[0].digest == digest
    around.scratch.mkdir()
    (around.scratch / name).write_bytes(b"wrong" * 1000)
    archive = CopyRequest(
        request.source, parse_location(f"oci-archive:{around.scratch.parent}/layout.tar", around.read)
    )
    assert run_copy(archive, around, CopyOptions()).images[0].digest == digest


@pytest.mark.long
def test_two_copies_of_the_same_at_once(registry: RegistryServer, repository: str, tmp_path: Path) -> None:
    digest = registry.push_image(repository, "1", random.Random(4).randbytes(SIZE))
    environment = dict(os.environ, DIGESTRY_HOME=str(tmp_path / "home"), DOCKER_CONFIG=str(tmp_path))
    with slow_proxy(registry.port, rate=4 * RATE) as proxy:
        targets = [f"oci:{tmp_path}/one:1", f"oci:{tmp_path}/one:2", f"{registry.host}/{repository}/two:1"]
        lines = [digestry("copy", "-q", f"{proxy.host}/{repository}:1", target) for target in targets]
        running = [subprocess.Popen(line, env=environment, stdout=subprocess.PIPE) for line in lines]
        for process in running:
            said, _ = process.communicate(timeout=60)
            assert (process.returncode, said.decode()) == (0, f"{digest}\n")
