"""The soak in short; ``python -m tests.soak`` is the long one."""

from __future__ import annotations

from pathlib import Path

from tests.soak.run import soak


def test_nothing_live_is_lost_and_nothing_dead_is_left(tmp_path: Path) -> None:
    outcome = soak(tmp_path / "root", seconds=12, clients=8, seed=1)
    assert outcome.wrong == []
    assert outcome.left == []
    assert outcome.logged == []
    # It was a soak: collection ran, and had work.
    assert outcome.collected["runs"] >= 2
    assert outcome.collected["manifests"] > 10
    assert outcome.did["pull"] > 10
    assert outcome.did["index"] > 3
