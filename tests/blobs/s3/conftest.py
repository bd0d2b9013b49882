"""Fixtures of the S3 store's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import seaweed


@pytest.fixture(scope="session")
def s3_server() -> Iterator[seaweed.S3Server]:
    """One S3 server for all tests of a process."""
    with seaweed.running_server() as server:
        yield server
