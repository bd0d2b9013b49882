"""An observer sees what moves in another registry, once and in order, while nobody pulls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.observe.support import Observing, observing
from tests.registry.pull_through.support import Upstream, upstream


@pytest.fixture
def up() -> Iterator[Upstream]:
    with upstream() as made:
        yield made


@pytest.fixture
def observer(up: Upstream, tmp_path: Path) -> Iterator[Observing]:
    with observing(tmp_path, up.url) as made:
        yield made


def test_moves_are_in_the_journal_once_and_in_order(up: Upstream, observer: Observing) -> None:
    first = up.image("own/app", "1.5", layer=b"one")
    observer.wait_for("1.5", first)
    second = up.image("own/app", "1.5", layer=b"two")
    observer.wait_for("1.5", first, second)
    up.tags["own/app", "1.5"] = str(first)
    observer.wait_for("1.5", first, second, first)
    del up.tags["own/app", "1.5"]
    observer.wait_for("1.5", first, second, first, None)
    up.tags["own/app", "1.5"] = str(second)
    observer.wait_for("1.5", first, second, first, None, second)
    created, *later = observer.entries("1.5")
    assert "notBefore" not in created or created["notBefore"] < created["at"]
    assert all(one["notBefore"] < one["at"] for one in later)
    assert {one["actor"] for one in later} == {"mirror:up.test"}
