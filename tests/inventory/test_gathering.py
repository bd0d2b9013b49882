"""Many sources at once: one that hangs, fails or drips keeps nothing from the others."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from digestry.audit.audit import audit
from digestry.audit.registry_queries import RegistryQueries
from digestry.errors import Unreachable
from digestry.inventory.gathering import TimeLimitedSource, gather
from digestry.inventory.observation import Observation, Source, Unseen
from tests.audit.fakes import HOST, FakeRegistries
from tests.inventory.fakes import Listed, claim, sighted
from tests.support import digestry

APP = f"{HOST}/app"


class Hanging:
    """Says what it is given, and then nothing, for ever."""

    name = "hanging"

    def __init__(self, *observations: Any) -> None:
        self._observations = observations
        self._never = threading.Event()

    def observe(self) -> Iterator[Observation]:
        yield from self._observations
        self._never.wait()


class Failing:
    name = "failing"

    def __init__(self, error: Exception) -> None:
        self._error = error

    def observe(self) -> Iterator[Observation]:
        yield sighted(f"{APP}:1", name="before")
        raise self._error


@pytest.mark.long
def test_a_source_that_hangs_is_a_problem_and_the_others_are_reported() -> None:
    registries = FakeRegistries(bulk=True)
    one = registries.at(APP).image("one", "1")
    seen = [sighted(f"{APP}:1", claim(one.manifest, APP), name=name) for name in ("a", "b", "c")]
    sources: list[Source] = [
        Hanging(seen[0]),
        Listed(seen[1]),
        Hanging(),
        TimeLimitedSource(Listed(seen[2]), 5),
    ]
    report = audit(sources, RegistryQueries(registries), source_timeout=1.5)
    assert [found.container.name for found in report.findings] == ["a", "b", "c"]
    assert {found.tag.state for found in report.findings} == {"current"}
    assert [problem.source for problem in report.problems] == ["hanging", "hanging"]
    assert "did not finish within 1.5 s; the report lists 1 container that" in report.problems[0].message
    assert report.problems[1].message == "it did not finish within 1.5 s"
    hanging = [thread for thread in threading.enumerate() if thread.name == "source hanging"]
    assert hanging
    assert all(thread.daemon for thread in hanging)  # they do not keep the program from ending


@pytest.mark.long
def test_all_are_asked_at_once_each_within_its_own_time() -> None:
    timeouts = [0.9, 0.1, *[0.8] * 20]
    begun = time.monotonic()
    found = gather([TimeLimitedSource(Hanging(), timeout) for timeout in timeouts], timeout=100)
    assert time.monotonic() - begun < 15  # one after the other, they would take 17 seconds
    assert [problem.message for problem in found.problems] == [
        f"it did not finish within {timeout} s" for timeout in timeouts
    ]


def test_what_fails_is_a_problem_and_a_defect_is_none() -> None:
    found = gather([Failing(Unreachable("gone", hint="look")), Listed(sighted(f"{APP}:1", name="other"))])
    assert [one.name for one in found.containers] == ["before", "other"]
    assert found.problems == [Unseen("failing", "gone", "look")]
    with pytest.raises(ZeroDivisionError):
        gather([Failing(ZeroDivisionError())])
    assert gather([]).containers == []


def test_labels() -> None:
    source = Listed(sighted(f"{APP}:1"), Unseen("test", "no"))
    found = gather(
        [
            TimeLimitedSource(source, label="mine", host="there"),
            TimeLimitedSource(source, label="named"),
            TimeLimitedSource(source),
        ]
    )
    assert [(one.source, one.host) for one in found.containers] == [
        ("mine", "there"), ("named", "node"), ("test", "node"),
    ]  # fmt: skip
    assert [problem.source for problem in found.problems] == ["mine", "named", "test"]
    assert TimeLimitedSource(source).name == "test"
    assert TimeLimitedSource(source, label="x").name == "x"


def test_a_pipe_that_says_nothing_does_not_keep_the_program(tmp_path: Path) -> None:
    config = tmp_path / "fleet.toml"
    config.write_text('[[source]]\nkind = "file"\nwhere = "-"\ntimeout = 0.2\n')
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            digestry("audit", "--config", config),
            stdin=reading,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert done.stderr == ""
    assert "file:-: it did not finish within 0.2 s" in done.stdout
    assert done.returncode == 3
