"""Real clients: each session has engines of its own, which end with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.engines import (
    Engine,
    docker_engine,
    docker_registry,
    podman_only,
    podman_storage,
    root_file_system,
)
from tests.support import RegistryServer, digestry, program


@pytest.fixture(scope="session")
def docker() -> Iterator[Engine]:
    """A private docker engine that has the image ``base:1``, in which busybox runs."""
    with docker_engine() as engine:
        engine("import", "-", "base:1", stdin=root_file_system())
        yield engine


@pytest.fixture(scope="session")
def storage() -> Iterator[tuple[str, ...]]:
    with podman_storage() as options:
        yield options


@pytest.fixture(scope="session")
def podman(storage: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Podman with a private storage that has the image ``localhost/base:1``."""
    directory = tmp_path_factory.mktemp("podman")
    engine = Engine((program("podman"), *storage, *podman_only(directory)), {"HOME": str(directory)})
    engine("import", "-", "base:1", stdin=root_file_system())
    return engine


@pytest.fixture(scope="session")
def buildah(storage: tuple[str, ...], podman: Engine) -> Engine:
    """Buildah, on podman's storage."""
    return Engine((program("buildah"), *storage), podman.environment)


@pytest.fixture(scope="session")
def skopeo(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    home = tmp_path_factory.mktemp("skopeo")
    return Engine((program("skopeo"), "--insecure-policy"), {"HOME": str(home)})


@pytest.fixture
def tool(tmp_path: Path) -> Engine:
    """digestry's own command, with a local store and a home that are empty."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {"HOME": str(home), "DOCKER_CONFIG": str(home), "DIGESTRY_HOME": str(home)}
    return Engine(tuple(digestry()), environment)


@pytest.fixture
def registry_on_disk(request: pytest.FixtureRequest, registry: RegistryServer) -> RegistryServer:
    """The registry, for tests that change the files in its root."""
    if request.config.getoption("--nodes"):
        pytest.skip("changes files, and the content of nodes is in a store")
    return registry


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """A repository for one test alone."""
    module = request.node.path.stem.removeprefix("test_")
    return f"e2e/{module}/" + re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")


@pytest.fixture(scope="session")
def peer_registry() -> Iterator[str]:
    """The address of a running docker-registry (the distribution project's, 2.8)."""
    with docker_registry() as host:
        yield host
