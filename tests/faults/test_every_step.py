"""A fault at every durable step in turn: SIGKILL before it and after it, and the power gone.

By default each Nth step is taken, and of the tests that are marked ``long`` more of them;
``DIGESTRY_FAULTS=all`` takes them all, which takes some minutes.
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


def _steps(*, few: int, many: int) -> pytest.MarkDecorator:
    """Runs a test with each ``few``-th step, and with each ``many``-th one where there is time for it."""
    taken = [1] if _ALL else [few, pytest.param(many, marks=pytest.mark.long)]
    return pytest.mark.parametrize("every", taken)


def _campaign(fault: str, every: int, *, seconds: float = 1200) -> dict[str, Any]:
    top = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.faults.campaign", fault, "--every", str(every)]
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
    @pytest.mark.long
    @_steps(few=102, many=17)
    def test_a_kill_at_any_durable_step_loses_nothing_and_shows_nothing_partial(self, every: int) -> None:
        result = _campaign("kill", every=every)
        assert result["steps"] > 150
        assert result["runs"] > 340 // every

    @pytest.mark.long
    @_steps(few=112, many=14)
    def test_power_lost_at_any_durable_step_loses_nothing_and_shows_nothing_partial(self, every: int) -> None:
        result = _campaign("power", every=every)
        assert result["runs"] > 280 // every

    @pytest.mark.long
    @_steps(few=90, many=15)
    def test_a_full_disk_at_any_durable_step_is_told_and_then_all_goes_on(self, every: int) -> None:
        result = _campaign("full", every=every)
        assert result["runs"] > 150 // every

    @pytest.mark.long
    @_steps(few=114, many=19)
    def test_a_failing_disk_at_any_durable_step_is_told_and_nothing_is_lost(self, every: int) -> None:
        result = _campaign("io", every=every)
        assert result["runs"] > 152 // every

    @pytest.mark.long
    @_steps(few=20, many=4)
    def test_a_kill_at_any_step_of_the_first_start_leaves_what_the_next_can_use(self, every: int) -> None:
        assert _campaign("start", every=every)["runs"] > 20 // every
