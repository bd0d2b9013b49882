from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry.garbage_collection.support import AT_ONCE
from tests.support import RegistryServer, start_registry


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """The ``registry.toml`` of ``server``: :data:`AT_ONCE`."""
    file = tmp_path / "registry.toml"
    file.write_text(AT_ONCE)
    return file


@pytest.fixture
def server(tmp_path: Path, settings: Path) -> Iterator[RegistryServer]:
    """A registry that collects when it is told to."""
    running = start_registry(tmp_path / "root", "--config", str(settings))
    yield running
    if running.process.poll() is None:
        running.stop()
