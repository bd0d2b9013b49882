"""Closes what the tests of connections opened."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.registry.connections.support import OPENED


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()
