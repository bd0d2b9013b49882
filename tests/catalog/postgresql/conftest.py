"""What is tested here is PostgreSQL's alone."""

from __future__ import annotations

import pytest


@pytest.fixture
def database() -> str:
    return "postgresql"
