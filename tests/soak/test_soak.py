"""The soak in short; ``python -m tests.soak`` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.nodes import campaign
from tests.soak.run import Outcome, soak


@pytest.mark.long
@pytest.mark.parametrize(("seconds", "clients"), [(5, 4), (12, 8)])
def test_nothing_live_is_lost_and_nothing_dead_is_left(tmp_path: Path, seconds: float, clients: int) -> None:
    outcome = soak(tmp_path, seconds=seconds, clients=clients, seed=1)
    _check(outcome)
    # It was a soak: collection ran, and had work.
    assert outcome.collected["runs"] >= 2
    assert outcome.collected["manifests"] > 10
    assert outcome.did["pull"] > 10
    assert outcome.did["index"] > 3


@pytest.mark.long
@pytest.mark.xdist_group("cluster")
def test_three_nodes_lose_nothing_live_and_leave_nothing_dead(tmp_path: Path) -> None:
    outcome = soak(tmp_path, seconds=campaign(20, 600), clients=6, seed=1, lease=30, nodes=3)
    print(f"{outcome.seconds:.0f} s; clients: {outcome.did}; collected: {outcome.collected}")
    _check(outcome)
    assert outcome.collected["runs"] >= 2
    assert outcome.collected["manifests"] > 0
    assert outcome.did["pull"] > 0


def _check(outcome: Outcome) -> None:
    assert outcome.wrong == []
    assert outcome.left == []
    assert outcome.logged == []
