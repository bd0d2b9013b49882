"""Real clients pull another registry's images through this one, also when the other is gone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import asking
from tests.e2e.engines import (
    Engine,
    Layout,
    containerd_engine,
    docker_engine,
    docker_registry,
    root_file_system,
)
from tests.registry.pull_through.support import mirroring
from tests.support import RegistryServer

DOCKER = pytest.mark.xdist_group("docker")
PODMAN = pytest.mark.xdist_group("podman")
_PLAIN = "--tls-verify=false"


@dataclass
class Hub:
    """docker-registry as docker.io, and a registry in front of it."""

    host: str
    mirror: RegistryServer
    skopeo: Engine
    directory: Path
    running: contextlib.ExitStack
    images: int = 0

    def publish(self, repository: str, tag: str, says: str) -> str:
        """Pushes an image that prints ``says`` to docker-registry; its digest."""
        self.images += 1
        layout = Layout(self.directory / f"layout{self.images}")
        layer = root_file_system(says=says.encode())
        digest = layout.name(layout.image([layer], "cat", "/says"), "it")
        self.skopeo(
            "copy",
            "--dest-tls-verify=false",
            f"oci:{layout.path}:it",
            f"docker://{self.host}/{repository}:{tag}",
        )
        return str(digest)

    def leave(self) -> None:
        """Ends docker-registry."""
        self.running.close()


@pytest.fixture
def hub(skopeo: Engine, tmp_path: Path) -> Iterator[Hub]:
    with contextlib.ExitStack() as running:
        host = running.enter_context(docker_registry())
        keys = f'url = "http://{host}"\ndefault = true\ntag-ttl = 0\n'
        with mirroring(tmp_path / "mirror", f'workers = 2\n[mirror."docker.io"]\n{keys}') as server:
            yield Hub(host, server, skopeo, tmp_path, running)


@pytest.mark.long
@DOCKER
@pytest.mark.peer("dockerd")
def test_dockers_registry_mirrors(hub: Hub) -> None:
    first = hub.publish("library/hello", "1", "first")
    with docker_engine(f"--registry-mirror=http://{hub.mirror.host}") as docker:
        docker("pull", "hello:1")
        assert docker("run", "--rm", "--network=none", "hello:1") == "first"
        assert docker("images", "--digests", "--format={{.Digest}}", "hello") == first

        second = hub.publish("library/hello", "1", "second")
        docker("pull", "hello:1")
        assert docker("run", "--rm", "--network=none", "hello:1") == "second"

        hub.leave()
        docker("rmi", "--force", "hello:1", f"hello@{first}")
        docker("pull", "hello:1")
        assert docker("run", "--rm", "--network=none", "hello:1") == "second"
        docker("pull", f"hello@{first}")
        assert docker("run", "--rm", "--network=none", f"hello@{first}") == "first"
    here = "docker.io/library/hello"
    assert asking.moves(hub.mirror, here, "1") == [("created", None, first), ("moved", first, second)]
    assert {entry["actor"] for entry in asking.journal(hub.mirror, here)} == {"mirror:docker.io"}


@pytest.mark.long
@PODMAN
@pytest.mark.peer("podman")
def test_podman_by_the_prefix_and_by_registries_conf(hub: Hub, podman: Engine, tmp_path: Path) -> None:
    digest = hub.publish("team/hello", "1", "podman")
    name = f"{hub.mirror.host}/docker.io/team/hello:1"
    podman("pull", _PLAIN, name)
    assert podman("image", "inspect", "--format={{.Digest}}", name) == digest
    podman("rmi", name)
    hub.leave()
    conf = tmp_path / "registries.conf"
    conf.write_text(
        '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\n'
        f'location = "{hub.mirror.host}/docker.io"\ninsecure = true\n'
    )
    mirrored = Engine(podman.command, {**podman.environment, "CONTAINERS_REGISTRIES_CONF": str(conf)})
    mirrored("pull", "docker.io/team/hello:1")
    assert mirrored("image", "inspect", "--format={{.Digest}}", "docker.io/team/hello:1") == digest
    mirrored("rmi", "docker.io/team/hello:1")


@pytest.mark.peer("skopeo")
def test_skopeo_copies_out_of_the_mirror(hub: Hub, skopeo: Engine, tmp_path: Path) -> None:
    digest = hub.publish("library/hello", "1", "skopeo")
    source = f"docker://{hub.mirror.host}/docker.io/library/hello"
    assert skopeo.json("list-tags", _PLAIN, source)["Tags"] == ["1"]
    assert skopeo.json("inspect", _PLAIN, f"{source}:1")["Digest"] == digest
    skopeo("copy", "--src-tls-verify=false", "--preserve-digests", f"{source}:1", f"oci:{tmp_path}/out:1")
    pushed = skopeo.attempt(
        "copy", "--dest-tls-verify=false", f"oci:{tmp_path}/out:1", f"{source.replace('hello', 'other')}:1"
    )
    assert pushed.returncode != 0
    assert "copy of what docker.io has" in pushed.stderr


@pytest.mark.long
@DOCKER
@pytest.mark.peer("containerd")
def test_containerds_hosts_toml(hub: Hub, tmp_path: Path) -> None:
    digest = hub.publish("library/hello", "1", "containerd")
    hosts = tmp_path / "hosts"
    (hosts / "docker.io").mkdir(parents=True)
    (hosts / "docker.io" / "hosts.toml").write_text(
        f'[host."http://{hub.mirror.host}"]\ncapabilities = ["pull", "resolve"]\n'
    )
    with containerd_engine() as ctr:
        ctr("images", "pull", "--snapshotter=native", f"--hosts-dir={hosts}", "docker.io/library/hello:1")
        assert digest in ctr("images", "ls")
    assert asking.moves(hub.mirror, "docker.io/library/hello", "1") == [("created", None, digest)]
