"""Fixtures of the observer's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.observer.support import Observing, observing
from tests.registry.pull_through.support import Upstream, upstream


@pytest.fixture
def up() -> Iterator[Upstream]:
    with upstream() as made:
        yield made


@pytest.fixture
def observer(up: Upstream, tmp_path: Path) -> Iterator[Observing]:
    with observing(tmp_path, up.url) as made:
        yield made
