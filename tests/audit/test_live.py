"""The audit of real engines that pulled from, and pushed to, real registries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.advisories import publish
from digestry.audit.audit import audit
from digestry.audit.findings import ContainerFinding
from digestry.audit.registry_queries import RegistryQueries
from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.inventory.observation import Source, now
from digestry.inventory.source_selection import parse_source
from digestry.inventory.sources.podman import PodmanProgram, PodmanSource
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.e2e.engines import Engine, docker_engine, podman_only, podman_storage, root_file_system, tar
from tests.support import RegistryServer

pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.long]


@pytest.fixture(scope="module")
def docker() -> Iterator[Engine]:
    with docker_engine() as engine:
        engine("import", "-", "base:1", stdin=root_file_system())
        yield engine


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with podman_storage() as options:
        directory = tmp_path_factory.mktemp("podman")
        command = ("podman", *options, *podman_only(directory))
        yield Engine(command, {"HOME": str(directory)})


def build(docker: Engine, name: str, says: str) -> str:
    lines = f'FROM base:1\nLABEL says={says}\nENV PATH=/bin\nCMD ["busybox", "sleep", "1000"]\n'
    return docker(
        "build", "--quiet", "--network=none", f"--tag={name}", "-", stdin=tar({"Dockerfile": lines.encode()})
    )


def start(docker: Engine, image: str, name: str) -> None:
    docker("run", "--detach", "--network=none", f"--name={name}", image)


def digest_of(docker: Engine, image: str) -> Digest:
    (text,) = docker.json("image", "inspect", "--format={{json .RepoDigests}}", image)
    return Digest.parse(text.rpartition("@")[2])


def findings(source: Source) -> dict[str, ContainerFinding]:
    with Session(ClientOptions()) as session:
        report = audit([source], RegistryQueries(session))
    assert report.problems == ()
    return {one.container.name: one for one in report.findings}


def test_docker(docker: Engine, registry: RegistryServer, tmp_path: Path) -> None:
    app = f"{registry.host}/fleet/live/app"
    build(docker, f"{app}:1", "bad")
    docker("push", f"{app}:1")
    bad = digest_of(docker, f"{app}:1")
    start(docker, f"{app}:1", "old")
    identity = build(docker, f"{app}:1", "good")  # the name moves on the engine ...
    docker("push", f"{app}:1")  # ... and in the registry
    good = digest_of(docker, f"{app}:1")
    start(docker, f"{app}:1", "new")
    start(docker, f"{app}@{bad}", "pinned")
    start(docker, identity, "by-id")
    build(docker, f"{app}:local", "local")
    start(docker, f"{app}:local", "local")
    build(docker, f"{app}:loaded", "loaded")
    docker("push", f"{app}:loaded")
    loaded = digest_of(docker, f"{app}:loaded")
    archive = tmp_path / "image.tar"
    docker("save", f"--output={archive}", f"{app}:loaded")
    docker("rmi", f"{app}:loaded")
    docker("load", f"--input={archive}")
    start(docker, f"{app}:loaded", "loaded")
    with Session(ClientOptions()) as session:
        subject = publish.find_image(session, Reference.parse(f"{app}@{bad}"))
        cure = publish.find_image(session, Reference.parse(f"{app}:1"))
        publish.attach_statement(
            session,
            subject,
            publish.NewStatement("CVE-1", "affected", "me", now()),
            [cure],
            new_queries=lambda: RegistryQueries(session),
        )
    seen = findings(parse_source(f"docker:{docker.environment['DOCKER_HOST']}"))
    told = {
        name: (str(one.identity and one.identity.running), one.tag.state, one.assessment.state)
        for name, one in seen.items()
    }
    assert told == {
        "old": (str(bad), "moved", "affected"),
        "new": (str(good), "current", "fixed"),
        "pinned": (str(bad), "pinned", "affected"),
        "by-id": (str(good), "unknown", "fixed"),
        "local": ("None", "never", "unknown"),
        "loaded": (str(loaded), "current", "not_assessed"),
    }
    assert seen["old"].tag.moved_at is not None
    assert seen["old"].tag.digest == good
    assert seen["old"].action == f"restart from {app}@{good}"
    assert "never pushed or pulled" in " ".join(seen["local"].reasons)


def test_podman(docker: Engine, podman: Engine, registry: RegistryServer) -> None:
    app = f"{registry.host}/fleet/live/pod"
    build(docker, f"{app}:1", "first")
    docker("push", f"{app}:1")
    first = digest_of(docker, f"{app}:1")
    podman("pull", "--quiet", "--tls-verify=false", f"{app}:1")
    create = ("create", "--network=host")
    podman(*create, "--name=old", f"{app}:1")
    build(docker, f"{app}:1", "second")
    docker("push", f"{app}:1")
    second = digest_of(docker, f"{app}:1")
    podman("pull", "--quiet", "--tls-verify=false", f"{app}:1")
    podman("tag", f"{app}:1", f"{app}/made/up:1")
    podman(*create, "--name=new", f"{app}:1")
    podman(*create, "--name=made-up", f"{app}/made/up:1")
    source = PodmanSource("podman", PodmanProgram(*podman.command), include_stopped=True)
    seen = findings(source)
    told = {name: (str(one.identity and one.identity.running), one.tag.state) for name, one in seen.items()}
    assert told == {
        "old": (str(first), "moved"),
        "new": (str(second), "current"),
        "made-up": (str(second), "never"),
    }
