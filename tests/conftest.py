"""Fixtures that many rooms' tests use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import RegistryServer, running_registry


@pytest.fixture(scope="session")
def registry() -> Iterator[RegistryServer]:
    """One running registry for all tests of a process: each uses repositories of its own."""
    with running_registry() as server:
        yield server
