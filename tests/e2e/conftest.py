"""Real clients: each session has engines of its own, which end with it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.engines import Engine, docker_engine, podman_only, podman_storage, root_file_system
from tests.support import digestry, free_port, program, wait_until


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
def repository(request: pytest.FixtureRequest) -> str:
    """A repository for one test alone."""
    module = request.node.path.stem.removeprefix("test_")
    return f"e2e/{module}/" + re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")


@pytest.fixture(scope="session")
def peer_registry() -> Iterator[str]:
    """The address of a running docker-registry (the distribution project's, 2.8)."""
    server = program("docker-registry")
    with tempfile.TemporaryDirectory(prefix="digestry-peer-") as name:
        directory = Path(name)
        host = f"127.0.0.1:{free_port()}"
        config = {
            "version": 0.1,
            "storage": {
                "filesystem": {"rootdirectory": f"{name}/data"},
                "delete": {"enabled": True},
            },
            "http": {"addr": host},
            "log": {"accesslog": {"disabled": True}, "level": "error"},
        }
        (directory / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [server, "serve", f"{name}/config.yml"], stdout=log, stderr=log, start_new_session=True
            )
        try:
            wait_until(lambda: _answers(host), seconds=15, what="docker-registry's first answer")
            yield host
        finally:
            process.terminate()
            process.wait(timeout=20)


def _answers(host: str) -> bool:
    with contextlib.closing(http.client.HTTPConnection(host, timeout=5)) as connection:
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status == 200
        except OSError:
            return False
