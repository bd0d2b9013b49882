"""An observer that is killed again and again: each move that stood for longer is in the journal once."""

from __future__ import annotations

import itertools
import random
import time
from pathlib import Path

import pytest

from digestry.model.digest import Digest
from tests.observer.support import Observing, observing, spans
from tests.registry.pull_through.support import Upstream, upstream
from tests.support import start_registry


@pytest.mark.long
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.long)])
def test_an_observer_is_killed_at_any_moment(tmp_path: Path, kills: int) -> None:
    chance = random.Random(kills)
    with upstream() as up, observing(tmp_path, up.url) as started:
        observer = started
        moved: list[Digest] = [_move(up, 0)]
        observer.wait_for("1.5", *moved)
        for number in range(1, kills + 1):
            moved.append(_move(up, number))
            time.sleep(chance.uniform(0, 1.5))  # before it is seen, while it is fetched, or after
            observer.server.kill()
            observer = _again(observer, tmp_path)
            observer.wait_for("1.5", *moved)
        entries = observer.entries("1.5")
        times = [one["notBefore"] for one in entries[1:]]
        assert times == sorted(times)
        assert all(one["notBefore"] < one["at"] for one in entries[1:])
        # What it could not see while it was dead begins a new span, or was in time.
        for earlier, later in itertools.pairwise(spans(observer, "1.5")):
            assert earlier["lastAt"] < later["firstAt"]
        observer.server.stop()


def _move(up: Upstream, number: int) -> Digest:
    return up.image("own/app", "1.5", layer=f"layer {number % 4} of {number}".encode())


def _again(observer: Observing, directory: Path) -> Observing:
    return Observing(start_registry(directory / "root", "--config", str(directory / "registry.toml")))
