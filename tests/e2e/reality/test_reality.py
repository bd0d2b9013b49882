"""Every situation of the table on every real runtime: digestry's answer is the right one, or an honest
"unknown" where that runtime cannot know."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.engines import docker_registry
from tests.e2e.reality.rows import ROWS, Right, Row
from tests.e2e.reality.runtimes import KINDS, Kind, Runtime, running
from tests.e2e.reality.stage import staged
from tests.support import RegistryServer


@pytest.fixture(scope="module")
def plain() -> Iterator[str]:
    with docker_registry() as host:
        yield host


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, id=kind.name, marks=pytest.mark.xdist_group(kind.name)) for kind in KINDS],
)
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    kind: Kind = request.param
    with running(kind) as started:
        yield started


def test_the_version_is_the_one_that_is_named(runtime: Runtime) -> None:
    wanted = runtime.kind.name.split("-")[1]
    assert runtime.version().lstrip("v").startswith(f"{wanted}.")


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name.replace(" ", "-")) for row in ROWS])
def test_row(runtime: Runtime, row: Row, registry: RegistryServer, plain: str, tmp_path: Path) -> None:
    with staged(runtime, registry.host, plain, row, str(tmp_path)) as stage:
        stage.play(row)
        code, report = stage.audit()
    labels = {str(digest): label for label, digest in stage.labels.items()}
    containers = {one["name"]: one for one in report["containers"]}
    seen = {
        name: Right(
            labels.get(one["running_digest"], one["running_digest"]), one["tag_state"], one["advisory_state"]
        )
        for name, one in containers.items()
    }
    why = {name: one["reasons"] for name, one in containers.items()}
    assert seen.keys() == row.right.keys(), (seen, report["problems"])
    less = [one for one in row.less if runtime.kind.family in one.families]
    for name, right in row.right.items():
        allowed = [right, *(answer for one in less for answer in one.answers.get(name, ()))]
        assert seen[name] in allowed, f"{name}: {seen[name]}, and not {allowed}: {why[name]}"
        if seen[name] != right:
            assert why[name], f"{name}: no reason is given"
    codes = {row.exit, *(code for one in less for code in one.exits)} if seen != row.right else {row.exit}
    assert code in codes, (code, codes, seen, report["problems"])
