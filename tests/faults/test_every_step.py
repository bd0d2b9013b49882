"""A fault at every durable step in turn: SIGKILL before it and after it, and the power gone.

By default each Nth step is taken; ``DIGESTRY_FAULTS=all`` takes them all, which takes some minutes.
What is tried, and what must hold after it, are in ``campaign.py`` and ``after.py``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_ALL = os.environ.get("DIGESTRY_FAULTS") == "all"


def _campaign(fault: str, every: int, *, seconds: float = 1200) -> dict[str, Any]:
    top = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.faults.campaign", fault, "--every", "1" if _ALL else str(every)]
    run = subprocess.run(
        command,
        cwd=top,
        env={**os.environ, "PYTHONPATH": str(top)},
        capture_output=True,
        text=True,
        timeout=3600 if _ALL else seconds,
        check=False,
    )
    assert run.returncode == 0, f"{' '.join(command)}\n{run.stdout}{run.stderr}"
    result: dict[str, Any] = json.loads(run.stdout)
    print(result)
    assert result["failed"] == 0
    return result


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="finds a file's name in /proc")
class TestEveryStep:
    def test_a_kill_at_any_durable_step_loses_nothing_and_shows_nothing_half_written(self) -> None:
        result = _campaign("kill", every=17)
        assert result["steps"] > 150
        assert result["runs"] > 20

    def test_power_lost_at_any_durable_step_loses_nothing_and_shows_nothing_half_written(self) -> None:
        result = _campaign("power", every=14)
        assert result["runs"] > 20

    def test_a_full_disk_at_any_durable_step_is_told_and_once_there_is_room_all_goes_on(self) -> None:
        result = _campaign("full", every=15)
        assert result["runs"] > 10

    def test_a_failing_disk_at_any_durable_step_is_told_and_nothing_is_lost(self) -> None:
        result = _campaign("io", every=19)
        assert result["runs"] > 8

    def test_a_kill_at_any_step_of_the_first_start_leaves_what_the_next_start_can_use(self) -> None:
        assert _campaign("start", every=4)["runs"] > 5
