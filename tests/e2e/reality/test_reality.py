"""Every situation of the table on every real runtime: digestry's answer is the right one, or an honest
"unknown" where that runtime cannot know."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.engines import docker_registry
from tests.e2e.reality.rows import ROWS, Row
from tests.e2e.reality.runtimes import KINDS, Kind, Runtime, running
from tests.e2e.reality.stage import staged
from tests.support import RegistryServer

pytestmark = pytest.mark.reality


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
    containers = {one["name"]: one for one in report["containers"]}
    assert containers.keys() == row.right.keys(), report["problems"]
    less = [one for one in row.less if one.families & {runtime.kind.family, runtime.kind.name}]
    codes = {row.exit}
    shown = json.dumps(report, indent=1)
    for name, right in row.right.items():
        seen = containers[name]
        allowed = [right, *(answer for one in less for answer in one.answers.get(name, ()))]
        answers = [(stage.digest(one.runs), one.tag, one.advisory) for one in allowed]
        answer = (seen["running_digest"], seen["tag_state"], seen["advisory_state"])
        assert answer in answers, f"{name}: {answer}, and not {answers}; {stage.labels}\n{shown}"
        if answer != answers[0]:
            told = seen["reasons"] or "unknown" not in answer
            assert told, f"{name}: less than can be known, and no reason is given"
            codes |= {number for one in less for number in one.exits}
    assert code in codes, f"exit code {code}, and not {codes}\n{shown}"
