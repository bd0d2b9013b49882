"""Fixtures that many rooms' tests use."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import seaweed
from tests.blobs import memory_server
from tests.blobs.s3 import registries
from tests.support import RegistryServer, running_registry


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--store",
        choices=["disk", "memory", "s3"],
        default="disk",
        help="where registries keep their content",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--store") == "memory":
        directory = tempfile.TemporaryDirectory(prefix="digestry-test-")
        config.add_cleanup(directory.cleanup)
        server = memory_server.MemoryServer(str(Path(directory.name) / "stores"))
        config.add_cleanup(server.close)
        os.environ[memory_server.VARIABLE] = server.address  # for the fork server
        memory_server.install(server.address)
    elif config.getoption("--store") == "s3":
        endpoint = os.environ.get(registries.VARIABLE)
        if endpoint is None:
            stack = contextlib.ExitStack()
            config.add_cleanup(stack.close)
            endpoint = stack.enter_context(seaweed.running_server()).endpoint
            os.environ[registries.VARIABLE] = endpoint  # for the fork server, and other test processes
        registries.install(endpoint)


@pytest.fixture(scope="session")
def registry() -> Iterator[RegistryServer]:
    """One running registry for all tests of a process: each uses repositories of its own."""
    with running_registry() as server:
        yield server
