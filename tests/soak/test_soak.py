"""The soak in short; ``python -m tests.soak`` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.run import soak


@pytest.mark.parametrize(("seconds", "clients"), [(5, 4), pytest.param(12, 8, marks=pytest.mark.long)])
def test_nothing_live_is_lost_and_nothing_dead_is_left(tmp_path: Path, seconds: float, clients: int) -> None:
    outcome = soak(tmp_path / "root", seconds=seconds, clients=clients, seed=1)
    assert outcome.wrong == []
    assert outcome.left == []
    assert outcome.logged == []
    # It was a soak: collection ran, and had work.
    assert outcome.collected["runs"] >= 2
    assert outcome.collected["manifests"] > 10
    assert outcome.did["pull"] > 10
    assert outcome.did["index"] > 3
