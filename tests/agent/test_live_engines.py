"""Followers of real engines: starts, restarts, ends, and containers that are gone at once."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from digestry.inventory.follower_selection import parse_follower
from digestry.inventory.runs import AllRuns, RunStopped
from tests.agent.following import Told, following
from tests.agent.scripts import wait_for
from tests.e2e.engines import (
    Engine,
    containerd_engine,
    docker_archive,
    docker_engine,
    podman_only,
    podman_service,
    podman_storage,
    root_file_system,
)
from tests.support import program

SLEEP = ("busybox", "sleep", "1000")
IMAGE = "reg.example/app:1"


def archive(directory: Path) -> Path:
    path = directory / "image.tar"
    path.write_bytes(docker_archive(IMAGE, [root_file_system()], *SLEEP))
    return path


def check_life(told: Told, container: str, flashed: int) -> None:
    """A container that was started, started again, and killed, and ``flashed`` that were gone at once."""
    own = [run for run in told.runs() if run.container == container]
    assert [run.instance == "first" for run in own] == [True, False]
    stops = [one for one in told.changes if isinstance(one, RunStopped)]
    assert [one.instance for one in stops if one.container == container] == [run.instance for run in own]
    others = [run for run in told.runs() if run.container != container]
    assert len(others) == flashed
    assert {run.instance for run in others} == {"first"}
    assert {one.container for one in stops} == {container} | {run.container for run in others}
    assert all(one.after is None for one in stops)
    assert all(run.image.image_id is not None and run.image.reference == IMAGE for run in told.runs())
    assert len({run.image.image_id for run in told.runs()}) == 1


@pytest.mark.long
@pytest.mark.xdist_group("docker")
@pytest.mark.peer("docker")
def test_docker(tmp_path: Path) -> None:
    with docker_engine() as docker:
        docker("load", "--input", archive(tmp_path))
        follower = parse_follower(f"docker:{docker.environment['DOCKER_HOST']}")
        with following(follower) as told:
            one = docker("run", "--detach", "--network=none", "--name=one", IMAGE)
            docker("pause", "one")
            docker("unpause", "one")
            docker("restart", "--time=0", "one")
            for _ in range(3):
                docker("run", "--rm", "--network=none", IMAGE, "busybox", "true")
            with following(parse_follower(follower.name), "") as other:
                (all_runs,) = [change for change in other.changes if isinstance(change, AllRuns)]
            docker("kill", "one")
            wait_for(lambda: told.short().count(f"-{one}") == 2)
        check_life(told, one, 3)
        assert [run.instance for run in all_runs.runs] == [told.runs()[1].instance]


@pytest.mark.long
@pytest.mark.xdist_group("podman")
@pytest.mark.peer("podman")
def test_podman(tmp_path: Path) -> None:
    with podman_storage() as options:
        storage = Path(options[0].removeprefix("--root=")).parent
        own = ("--events-backend=file", *podman_only(storage))
        podman = Engine((program("podman"), *options, *own))
        podman("load", "--input", archive(tmp_path))
        limits = ("--ulimit=nofile=256:256", "--ulimit=nproc=512:512", "--network=none")
        with podman_service(podman) as url, following(parse_follower(f"podman:{url}")) as told:
            one = podman("run", "--detach", "--name=one", *limits, IMAGE)
            podman("restart", "--time=0", "one")
            for _ in range(2):
                podman("run", "--rm", *limits, IMAGE, "busybox", "true")
            podman("kill", "one")
            wait_for(lambda: told.short().count(f"-{one}") == 2)
        check_life(told, one, 2)


@pytest.mark.xdist_group("docker")
@pytest.mark.peer("containerd")
def test_containerd(tmp_path: Path) -> None:
    native = "--snapshotter=native"
    with containerd_engine() as ctr:
        ctr("images", "import", native, archive(tmp_path))
        socket = ctr.command[2]
        follower = parse_follower(f"containerd:{socket}")
        # The OCI runtime's names are those of the whole machine.
        before, a, b, long = (secrets.token_hex(8) for _ in range(4))
        ctr("run", "--detach", native, IMAGE, before)
        try:
            with following(follower) as told:
                assert told.short() == [f"=k8s.io/{before}"]
                for name in (a, b):
                    ctr("run", "--rm", native, IMAGE, name, "busybox", "true")
                ctr("run", "--detach", native, IMAGE, long)
                with following(parse_follower(follower.name)) as other:
                    pass
                for name in (long, before):
                    ctr("tasks", "kill", "--signal=9", name)
                told.wait(f"-k8s.io/{long}", f"-k8s.io/{before}")
        finally:
            for name in (before, long):
                ctr.attempt("tasks", "delete", "--force", name)
        runs = {run.container.partition("/")[2]: run for run in told.runs()}
        assert list(runs) == [a, b, long]
        assert len({run.instance for run in runs.values()}) == 3
        assert {run.image.reference for run in runs.values()} == {IMAGE}
        assert all(run.image.image_id is not None for run in runs.values())
        stops = {one.container.partition("/")[2]: one for one in told.changes if isinstance(one, RunStopped)}
        assert {name: one.instance for name, one in stops.items() if name in runs} == {
            name: run.instance for name, run in runs.items()
        }
        (all_runs,) = [change for change in other.changes if isinstance(change, AllRuns)]
        seen = {run.container.partition("/")[2]: run.instance for run in all_runs.runs}
        assert seen[long] == runs[long].instance
