from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.catalog.catalog import Catalog
from tests.backends import open_catalog
from tests.catalog.support import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(tmp_path: Path, clock: Clock) -> Iterator[Catalog]:
    """An empty catalog, its schema up to date, with a clock that stands still."""
    made = open_catalog(tmp_path, now=clock)
    made.migrate()
    yield made
    made.close()
