"""Places to copy from and to."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.copy.places import Surroundings
from digestry.images.store import ImageStore
from digestry.model.reference import Reference
from tests.client.docker_registry import running_docker_registry
from tests.support import PATIENCE, RegistryServer


@pytest.fixture
def session() -> Iterator[Session]:
    with Session(ClientOptions(timeout=PATIENCE, retries=1)) as opened:
        yield opened


@pytest.fixture
def around(session: Session, tmp_path: Path) -> Surroundings:
    return Surroundings(session, ImageStore(tmp_path / "images"), tmp_path / "transfers", Reference.parse)


@pytest.fixture
def repository(registry: RegistryServer) -> str:
    """The name of a repository that nobody else uses."""
    return f"copy/{secrets.token_hex(6)}"


@pytest.fixture(scope="module")
def docker_registry() -> Iterator[str]:
    """The address of a running docker-registry."""
    with running_docker_registry() as host:
        yield host
