"""The process for the registry's own work: it comes back when it is killed, and ends when it is told to."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from digestry.errors import DigestryError, StorageBusy, StorageError
from digestry.registry import maintenance
from digestry.registry.maintenance import Maintenance
from tests.support import wait_until


class _Says:
    """A job that tells which process it runs in."""

    name = "says"

    def __init__(self, file: Path) -> None:
        self._file = file

    def run(self, _stop: threading.Event) -> float:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(os.getpid()))
        fresh.replace(self._file)
        return 0.05


class _Fails:
    """A job that is of no use."""

    name = "fails"

    def run(self, _stop: threading.Event) -> float:
        raise OSError("this one fails")


def _jobs(file: Path) -> list[maintenance.Job]:
    return [_Fails(), _Says(file)]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(maintenance, "_RESPAWN_SECONDS", 0.05)
    file = tmp_path / "said"
    running = Maintenance(partial(_jobs, file), {"version": 1})
    running.start()
    try:
        wait_until(file.exists, what="the process's first word")
        yield file
    finally:
        running.stop()
        last = int(file.read_text())
        wait_until(lambda: not Path(f"/proc/{last}").exists(), what="the process's end")


@pytest.mark.long
def test_killed_it_comes_back_each_time(said: Path) -> None:
    killed = {os.getpid()}
    for _ in range(2):
        wait_until(lambda: int(said.read_text()) not in killed, what="another process")
        process = int(said.read_text())
        nicest = min(19, os.nice(0) + maintenance._NICENESS)
        assert os.getpriority(os.PRIO_PROCESS, process) == nicest
        os.kill(process, signal.SIGKILL)
        killed.add(process)
    wait_until(lambda: int(said.read_text()) not in killed, what="another process")


class _Fragile:
    """A job that fails with ``errors``, one after the other, and then does not."""

    name = "fragile"

    def __init__(self, errors: Sequence[DigestryError]) -> None:
        self._errors = list(errors)

    def run(self, stop: threading.Event) -> float:
        if self._errors:
            raise self._errors.pop(0)
        stop.set()
        return 0.0


def logged(caplog: pytest.LogCaptureFixture, *errors: DigestryError) -> list[tuple[str, str]]:
    """The lines about a job with these errors: their levels and first words."""
    with caplog.at_level(logging.INFO, logger="digestry.registry"):
        maintenance._repeat(_Fragile(errors), threading.Event())
    return [(record.levelname, " ".join(record.getMessage().split()[:2])) for record in caplog.records]


def test_a_database_that_is_away_for_a_moment_is_no_error(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_BUSY_SECONDS", 0.001)
    found = logged(caplog, *(StorageBusy("the database is away", hint="wait") for _ in range(4)))
    assert found == [("WARNING", "fragile stopped,"), ("WARNING", "fragile goes")]
    assert "the database is away (wait)" in caplog.text


def test_one_that_stays_away_is_an_error(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_BUSY_SECONDS", 0.001)
    monkeypatch.setattr(maintenance, "_TROUBLE_SECONDS", 0.01)
    found = logged(caplog, *(StorageBusy("the database is away") for _ in range(6)))
    assert found[0] == ("WARNING", "fragile stopped,")
    assert found[-1] == ("WARNING", "fragile goes")
    assert 1 <= found.count(("ERROR", "fragile has")) == len(found) - 2


def test_any_other_failure_is_an_error_at_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_TROUBLE_SECONDS", 0.001)
    assert logged(caplog, StorageError("it is damaged")) == [("ERROR", "fragile failed,")]
