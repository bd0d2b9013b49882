"""Podman: its own API, its docker-compatible one, and its program, as a real one (4.3) answered."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from digestry.inventory.engines.client import Engine
from digestry.inventory.observation import ContainerObservation, Unseen
from digestry.inventory.sources.docker import DockerSource
from digestry.inventory.sources.podman import PodmanAPI, PodmanProgram, PodmanSource
from tests.inventory.fakes import RECORDED, engine, names, recording

V1_MANIFEST = "sha256:cd24662fda4e71e1389db3c8b8b3c54f1937ad8f330a19c3202704407c0a8a99"
_PROGRAM = """\
#!{python}
import json, sys
told = json.load(open({recording!r}))
words = sys.argv[1:]
if words[0] == "ps":
    assert "--no-trunc" in words
    answer = told["ps"]
elif words[0] == "info":
    answer = told["info"]
else:
    kind = "inspect" if words[words.index("--type") + 1] == "container" else "images"
    if words[-1] not in told[kind]:
        sys.exit("Error: no such object: " + words[-1])
    answer = [told[kind][words[-1]]]
json.dump(answer, sys.stdout)
"""


def over_api(answers: dict[str, Any]) -> list[Any]:
    with engine(answers) as (url, _):
        connection = Engine(url, timeout=5)
        fallback = DockerSource("podman", connection, made_up=True)
        return list(PodmanSource("podman", PodmanAPI(connection), fallback=fallback).observe())


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "podman"
    told = str(RECORDED / "podman-4.3-program.json")
    path.write_text(_PROGRAM.format(python=sys.executable, recording=told))
    path.chmod(0o755)
    return str(path)


@pytest.fixture(params=["libpod", "program"])
def seen(request: pytest.FixtureRequest, program: str) -> dict[str, ContainerObservation]:
    if request.param == "libpod":
        return names(over_api(recording("podman-4.3-libpod")))
    return names(list(PodmanSource("podman", PodmanProgram(program)).observe()))


def test_every_container_is_one_sighting(seen: dict[str, ContainerObservation]) -> None:
    assert sorted(seen) == [
        "p-good", "p-id", "p-local", "p-madeup", "p-moved", "p-multi", "p-pinned", "p-pod",
    ]  # fmt: skip
    assert {one.host for one in seen.values()} == {"vm"}


def test_pairs_of_name_and_digest_are_only_candidates(seen: dict[str, ContainerObservation]) -> None:
    made_up = [one for one in seen["p-madeup"].image.claims if one.repository is not None]
    assert "localhost:5610/never/pushed" in {one.repository.name for one in made_up if one.repository}
    assert not any(one.obtained for one in made_up)


def test_an_image_without_names_keeps_its_digest(seen: dict[str, ContainerObservation]) -> None:
    moved = seen["p-moved"]
    assert moved.image.reference == "localhost:5610/pod/app:1"
    assert next((str(one.digest), one.repository) for one in moved.image.claims) == (V1_MANIFEST, None)
    assert moved.image.claims[-1].found_by == "image-id"


def test_localhost_without_a_port_is_no_registry(seen: dict[str, ContainerObservation]) -> None:
    local = seen["p-local"]
    assert not local.image.registry_named
    assert all(one.repository is None for one in local.image.claims)
    assert "built or loaded locally" in local.remarks[0]


def test_the_pod_is_the_namespace() -> None:
    assert names(over_api(recording("podman-4.3-libpod")))["p-pod"].namespace == "mypod"


def test_a_docker_compatible_socket_without_podmans_own_api() -> None:
    seen = names(over_api(recording("podman-4.3")))
    assert len(seen) == 8
    assert not any(one.obtained for one in seen["p-madeup"].image.claims)
    # There is no ImageDigest in that API: what is left of a lost name is the image ID.
    assert [one.found_by for one in seen["p-moved"].image.claims] == ["image-id"]


def test_a_container_that_ended_is_dropped_and_a_failure_is_a_row() -> None:
    answers = recording("podman-4.3-libpod")
    listed = answers["/v4.0.0/libpod/containers/json?pod=true"]["body"]
    first, second = listed[0]["Names"][0], listed[1]["Names"][0]
    paths = [f"/v4.0.0/libpod/containers/{one['Id']}/json" for one in listed]

    def ended(reply: BinaryIO) -> None:
        del listed[0]
        reply.write(b"HTTP/1.0 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")

    answers[paths[0]] = {"status": 404, "body": {"message": "no such container"}}
    answers[paths[1]] = {"status": 500, "body": {"message": "storage is locked"}}
    seen = names(over_api(answers))
    assert len(seen) == 8
    assert "says that it is not there" in seen[first].remarks[0]  # it is listed all the same
    answers[paths[0]] = ended
    seen = names(over_api(answers))
    assert len(seen) == 7
    assert [one.name for one in seen.values() if "storage is locked" in " ".join(one.remarks)] == [second]


@pytest.mark.parametrize("script", ["exit 3", "echo nonsense", "echo '{}'"])
def test_a_program_that_fails_is_a_problem(tmp_path: Path, script: str) -> None:
    path = tmp_path / "podman"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    (problem,) = PodmanSource("podman", PodmanProgram(str(path))).observe()
    assert isinstance(problem, Unseen)


def test_no_program_is_a_problem() -> None:
    (problem,) = PodmanSource("podman", PodmanProgram("/nowhere/podman")).observe()
    assert isinstance(problem, Unseen)
    assert "cannot run" in problem.message


def test_recordings_hold_no_more_than_they_need() -> None:
    for path in RECORDED.glob("*.json"):
        assert "Env" not in json.loads(path.read_text()), path
