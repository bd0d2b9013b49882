"""The process for the registry's own work: it comes back when it is killed, and ends when it is told to."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

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
