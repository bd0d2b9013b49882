"""Fixtures of the S3 store's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from digestry.blobs.s3.config import S3Config
from tests import seaweed


@pytest.fixture(scope="session")
def s3_server() -> Iterator[seaweed.S3Server]:
    """One S3 server for all tests of a process."""
    with seaweed.running_server() as server:
        yield server


@pytest.fixture
def s3_config(s3_server: seaweed.S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Config:
    """The configuration of an empty store; its credentials are in the environment."""
    for name, value in seaweed.environment(s3_server.endpoint).items():
        monkeypatch.setenv(name, value)
    return s3_server.config()
