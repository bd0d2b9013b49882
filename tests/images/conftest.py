from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.images.store import ImageStore
from tests.support import PATIENCE


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture
def session() -> Iterator[Session]:
    with Session(ClientOptions(timeout=PATIENCE, retries=1)) as opened:
        yield opened
