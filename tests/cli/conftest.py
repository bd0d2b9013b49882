"""Commands as a user runs them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client.docker_registry import running_docker_registry
from tests.support import run_digestry

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command with a home of its own; ``status`` is the exit code that it must have.

    ``given`` is its standard input, and ``more`` is added to its environment.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DIGESTRY_")}
    environment |= {"DIGESTRY_HOME": str(tmp_path / "home"), "DOCKER_CONFIG": str(tmp_path / "docker")}

    def run(
        *arguments: str | Path, status: int = 0, given: str = "", **more: str
    ) -> subprocess.CompletedProcess[str]:
        done = run_digestry(*arguments, env=environment | more, given=given)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def docker_registry() -> Iterator[str]:
    """The address of a running docker-registry."""
    with running_docker_registry() as host:
        yield host
