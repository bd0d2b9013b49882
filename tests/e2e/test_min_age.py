"""Real engines pull through a registry with a minimum age: what they run, and what they say when refused."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.backend import open_backend
from digestry.catalog import clock
from digestry.model.digest import Digest
from tests.e2e.engines import (
    Engine,
    Layout,
    containerd_engine,
    docker_engine,
    docker_registry,
    root_file_system,
)
from tests.e2e.test_mirror import DOCKER, PODMAN, Hub
from tests.registry.pull_through.support import mirroring

DAY = 86400 * clock.SECOND
HOUR = 3600 * clock.SECOND


@pytest.fixture
def hub(skopeo: Engine, tmp_path: Path) -> Iterator[Hub]:
    """docker-registry as docker.io, and a registry in front of it that serves what is a week old."""
    with contextlib.ExitStack() as running:
        host = running.enter_context(docker_registry())
        keys = f'url = "http://{host}"\ndefault = true\ntag-ttl = 0\nmin-age = "7d"\n'
        with mirroring(tmp_path / "mirror", f'workers = 2\n[mirror."docker.io"]\n{keys}') as server:
            yield Hub(host, server, skopeo, tmp_path, running)


def observed(hub: Hub, repository: str, digest: str) -> None:
    """As if the registry had seen the digest under the tag for a month, until an hour ago."""
    now = clock.now()
    catalog = open_backend(hub.mirror.root, now=lambda: now).open_catalog()
    try:
        for ago in (30 * DAY, HOUR):
            catalog.observations.seen(
                f"docker.io/{repository}", "1", Digest.parse(digest), interval=30 * DAY, at=now - ago
            )
    finally:
        catalog.close()


def overwritten(hub: Hub, repository: str) -> tuple[str, str]:
    """A tag that was overwritten just now; its digest of a month, and the new one."""
    old = hub.publish(repository, "1", "old")
    observed(hub, repository, old)
    return old, hub.publish(repository, "1", "overwritten")


@pytest.mark.long
@DOCKER
@pytest.mark.peer("dockerd")
def test_dockers_registry_mirrors(hub: Hub) -> None:
    old, _ = overwritten(hub, "library/hello")
    hub.publish("library/young", "1", "young")
    with docker_engine(f"--registry-mirror=http://{hub.mirror.host}") as docker:
        docker("pull", "hello:1")
        assert docker("run", "--rm", "--network=none", "hello:1") == "old"
        assert docker("images", "--digests", "--format={{.Digest}}", "hello") == old
        # A mirror that refuses is passed over: docker asks Docker Hub itself.
        assert docker.attempt("pull", "young:1").returncode != 0
        # By its own name it is asked alone, and says why.
        refused = docker.attempt("pull", f"{hub.mirror.host}/docker.io/library/young:1")
        assert refused.returncode != 0
        assert "has been seen under this tag for 7 days" in refused.stderr


@pytest.mark.long
@DOCKER
@pytest.mark.peer("containerd")
def test_containerds_hosts_toml(hub: Hub, tmp_path: Path) -> None:
    old, new = overwritten(hub, "library/hello")
    hub.publish("library/young", "1", "young")
    hosts = tmp_path / "hosts"
    (hosts / "docker.io").mkdir(parents=True)
    # The mirror is the server too: containerd asks no other one when it refuses.
    (hosts / "docker.io" / "hosts.toml").write_text(
        f'server = "http://{hub.mirror.host}"\n'
        f'[host."http://{hub.mirror.host}"]\ncapabilities = ["pull", "resolve"]\n'
    )
    with containerd_engine() as ctr:
        pull = ("images", "pull", "--snapshotter=native", f"--hosts-dir={hosts}")
        ctr(*pull, "docker.io/library/hello:1")
        assert old in ctr("images", "ls")
        for name in ("young:1", f"hello@{new}"):
            refused = ctr.attempt(*pull, f"docker.io/library/{name}")
            assert refused.returncode != 0
            assert "403" in refused.stderr


def index_over_time(hub: Hub, repository: str) -> tuple[str, str, str]:
    """A tag whose index got another image just now. Returns the digest of a month, that image's, and its
    layer's."""
    layout = Layout(hub.directory / f"indexes-{repository.replace('/', '-')}")
    old = layout.image([root_file_system(says=b"old")], "cat", "/says")
    new = layout.image([root_file_system(says=b"new")], "cat", "/says")
    first = layout.name(layout.index([old]), "first")
    second = layout.name(layout.index([new]), "second")

    def publish(name: str) -> None:
        target = f"docker://{hub.host}/{repository}:1"
        hub.skopeo("copy", "--all", "--dest-tls-verify=false", f"oci:{layout.path}:{name}", target)

    publish("first")
    observed(hub, repository, str(first))
    publish("second")
    # So that the registry knows the new one, as its observer would.
    assert hub.mirror.request("HEAD", f"/v2/docker.io/{repository}/manifests/1").status == 200
    assert second != first
    manifest = json.loads((layout.path / "blobs/sha256" / new["digest"].partition(":")[2]).read_text())
    return str(first), str(new["digest"]), str(manifest["layers"][0]["digest"])


def refused_by_digest(hub: Hub, repository: str, child: str, layer: str) -> None:
    """Neither the new image nor its layer is served by its digest."""
    for kind, digest in (("manifests", child), ("blobs", layer)):
        answer = hub.mirror.request("GET", f"/v2/docker.io/{repository}/{kind}/{digest}")
        assert (answer.status, answer.code) == (403, "DENIED"), (kind, answer.body)


@pytest.mark.long
@DOCKER
@pytest.mark.peer("dockerd")
def test_docker_gets_no_new_child_of_an_index(hub: Hub) -> None:
    _, child, layer = index_over_time(hub, "library/multi")
    with docker_engine(f"--registry-mirror=http://{hub.mirror.host}") as docker:
        docker("pull", "multi:1")
        assert docker("run", "--rm", "--network=none", "multi:1") == "old"
        name = f"{hub.mirror.host}/docker.io/library/multi"
        refused = docker.attempt("pull", f"{name}@{child}")
        assert refused.returncode != 0
        assert "is too young" in refused.stderr
    refused_by_digest(hub, "library/multi", child, layer)


@pytest.mark.long
@DOCKER
@pytest.mark.peer("containerd")
def test_containerd_gets_no_new_child_of_an_index(hub: Hub, tmp_path: Path) -> None:
    first, child, layer = index_over_time(hub, "library/multi")
    hosts = tmp_path / "hosts"
    (hosts / "docker.io").mkdir(parents=True)
    host = f"http://{hub.mirror.host}"
    (hosts / "docker.io" / "hosts.toml").write_text(
        f'server = "{host}"\n[host."{host}"]\ncapabilities = ["pull", "resolve"]\n'
    )
    with containerd_engine() as ctr:
        pull = ("images", "pull", "--snapshotter=native", f"--hosts-dir={hosts}")
        ctr(*pull, "docker.io/library/multi:1")
        assert first in ctr("images", "ls")
        refused = ctr.attempt(*pull, f"docker.io/library/multi@{child}")
        assert refused.returncode != 0
        assert "403" in refused.stderr
    refused_by_digest(hub, "library/multi", child, layer)


@pytest.mark.long
@PODMAN
@pytest.mark.peer("podman")
def test_podman_by_a_mirror_of_registries_conf(hub: Hub, podman: Engine, tmp_path: Path) -> None:
    first, child, layer = index_over_time(hub, "team/multi")
    conf = tmp_path / "registries.conf"
    conf.write_text(
        '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\n'
        f'location = "{hub.mirror.host}/docker.io"\ninsecure = true\n'
    )
    mirrored = Engine(podman.command, {**podman.environment, "CONTAINERS_REGISTRIES_CONF": str(conf)})
    mirrored("pull", "docker.io/team/multi:1")
    assert first in mirrored("image", "inspect", "--format={{.RepoDigests}}", "docker.io/team/multi:1")
    mirrored("rmi", "docker.io/team/multi:1")
    refused = mirrored.attempt("pull", f"docker.io/team/multi@{child}")
    assert refused.returncode != 0
    assert "is too young" in refused.stderr
    refused_by_digest(hub, "team/multi", child, layer)


@pytest.mark.long
@PODMAN
@pytest.mark.peer("podman")
def test_podman_by_registries_conf(hub: Hub, podman: Engine, tmp_path: Path) -> None:
    old, _ = overwritten(hub, "team/hello")
    hub.publish("team/young", "1", "young")
    conf = tmp_path / "registries.conf"
    conf.write_text(
        f'[[registry]]\nprefix = "docker.io"\nlocation = "{hub.mirror.host}/docker.io"\ninsecure = true\n'
    )
    mirrored = Engine(podman.command, {**podman.environment, "CONTAINERS_REGISTRIES_CONF": str(conf)})
    mirrored("pull", "docker.io/team/hello:1")
    assert mirrored("image", "inspect", "--format={{.Digest}}", "docker.io/team/hello:1") == old
    mirrored("rmi", "docker.io/team/hello:1")
    refused = mirrored.attempt("pull", "docker.io/team/young:1")
    assert refused.returncode != 0
    assert "has been seen under this tag for 7 days" in refused.stderr


@pytest.mark.peer("skopeo")
def test_a_push_to_an_own_repository_goes_on(hub: Hub, skopeo: Engine) -> None:
    """Also of content that the default mirror has, and would not give out yet."""
    hub.publish("team/app", "1", "young")
    for _ in range(2):
        source = f"oci:{hub.directory}/layout1:it"
        skopeo("copy", "--dest-tls-verify=false", source, f"docker://{hub.mirror.host}/team/app:own")
    assert hub.mirror.request("GET", "/v2/team/app/manifests/own").status == 200
