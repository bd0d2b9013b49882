"""Each client pushes and pulls through a balancer, whose connections and requests each meet another node."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests import seaweed
from tests.cluster.balancer import tcp_proxy
from tests.cluster.nodes import Nodes, registry_nodes
from tests.e2e import asking
from tests.e2e.engines import Engine, Layout, docker_archive, tar
from tests.e2e.peers import built
from tests.postgresql import running_cluster
from tests.support import RegistryServer

# Those of one process share their nodes.
pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.long]

_PLAIN: Final = "--tls-verify=false"
_NOISE: Final = 3_000_000
"""The size of a layer that cannot be compressed: so large that clients may be redirected to the store."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(running_cluster())
        s3 = stack.enter_context(seaweed.running_server())
        yield stack.enter_context(registry_nodes(tmp_path_factory.mktemp("balanced"), cluster, s3))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((True, False), id="a node for each request, bytes"),
        pytest.param((False, True), id="a node for each connection, redirects"),
        pytest.param((True, True), id="a node for each request, redirects"),
        pytest.param((False, False), id="a node for each connection, bytes"),
    ],
)
def balanced(request: pytest.FixtureRequest, stores: Nodes) -> Iterator[RegistryServer]:
    """Two nodes behind a balancer."""
    one_request, redirect = request.param
    settings = stores.directory / f"redirect-{redirect}.toml"
    settings.write_text(f"[storage]\nredirect = {str(redirect).lower()}\n")
    running = [stores.start("--config", str(settings)) for _ in range(2)]
    targets = [("127.0.0.1", node.port) for node in running]
    with tcp_proxy(*targets, one_request=one_request) as balancer:
        yield RegistryServer(balancer.host, running[0].process, running[0].root, running[0].log)
    stores.stop()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


@pytest.fixture
def noise() -> bytes:
    """An uncompressed layer that nobody has pushed yet."""
    return tar({"noise": os.urandom(_NOISE)})


def test_docker(docker: Engine, balanced: RegistryServer, noise: bytes) -> None:
    name = f"{balanced.host}/balanced/docker:1"
    docker("load", stdin=docker_archive(name, [noise], "sh"))
    image_id = docker("image", "inspect", "--format={{.Id}}", name)
    found = re.search(r"digest: (sha256:[0-9a-f]{64})", docker("push", name))
    assert found
    assert str(asking.head(balanced, "balanced/docker", "1")) == found[1]
    docker("rmi", "--force", name, image_id)
    docker("pull", f"{balanced.host}/balanced/docker@{found[1]}")
    assert docker("image", "inspect", "--format={{.Id}}", image_id) == image_id
    docker("rmi", "--force", image_id)


def test_podman(podman: Engine, balanced: RegistryServer, noise: bytes, tmp_path: Path) -> None:
    name = f"{balanced.host}/balanced/podman:1"
    podman("load", stdin=docker_archive(name, [noise], "sh"))
    image_id = podman("image", "inspect", "--format={{.Id}}", name)
    podman("push", _PLAIN, f"--digestfile={tmp_path}/digest", name)
    digest = (tmp_path / "digest").read_text()
    assert str(asking.head(balanced, "balanced/podman", "1")) == digest
    podman("rmi", "--force", image_id)
    assert podman("pull", "--quiet", _PLAIN, name) == image_id
    podman("rmi", "--force", image_id)


def test_buildah(
    buildah: Engine, balanced: RegistryServer, layout: Layout, noise: bytes, tmp_path: Path
) -> None:
    layout.name(layout.image([noise], "sh"), "one")
    name = f"{balanced.host}/balanced/buildah:1"
    image_id = buildah("pull", "--quiet", f"oci:{layout.path}:one")
    buildah("push", _PLAIN, f"--digestfile={tmp_path}/digest", image_id, f"docker://{name}")
    pushed = (tmp_path / "digest").read_text()
    assert str(asking.head(balanced, "balanced/buildah", "1")) == pushed
    buildah("rmi", "--force", image_id)
    assert buildah("pull", "--quiet", _PLAIN, name) == image_id
    buildah("rmi", "--force", image_id)


def test_skopeo(
    skopeo: Engine, balanced: RegistryServer, layout: Layout, noise: bytes, tmp_path: Path
) -> None:
    entries = [
        layout.image([noise, tar({"of": name.encode()})], "sh", architecture=name)
        for name in ("amd64", "arm64")
    ]
    digest = layout.name(layout.index(entries), "all")
    remote = f"docker://{balanced.host}/balanced/skopeo:1"
    options = ("--all", "--preserve-digests")
    skopeo("copy", *options, "--dest-tls-verify=false", f"oci:{layout.path}:all", remote)
    assert asking.head(balanced, "balanced/skopeo", "1") == digest
    skopeo("copy", *options, "--src-tls-verify=false", remote, f"oci:{tmp_path}/back:all")
    _assert_same_blobs(layout.path, tmp_path / "back")


def test_crane(balanced: RegistryServer, layout: Layout, noise: bytes, tmp_path: Path) -> None:
    crane = Engine((str(built("crane")),), {"HOME": str(tmp_path)})
    digest = layout.name(layout.image([noise], "sh"), "one")
    name = f"{balanced.host}/balanced/crane:1"
    crane("push", layout.path, name)
    assert asking.head(balanced, "balanced/crane", "1") == digest
    crane("pull", "--format=oci", name, tmp_path / "back")
    _assert_same_blobs(layout.path, tmp_path / "back")
    assert crane("validate", "--remote", name) == f"PASS: {name}"


def test_oras(balanced: RegistryServer, layout: Layout, noise: bytes, tmp_path: Path) -> None:
    oras = Engine((str(built("oras")),), {"HOME": str(tmp_path)})
    (tmp_path / "noise").write_bytes(noise)
    name = f"{balanced.host}/balanced/oras"
    attach = ("--plain-http", "--disable-path-validation", "--artifact-type=application/x-noise")
    oras("push", *attach, f"{name}:1", tmp_path / "noise")
    (tmp_path / "said").write_text("a word about it")
    oras("attach", *attach, f"{name}:1", tmp_path / "said")
    assert len(oras.json("discover", "--plain-http", "--format=json", f"{name}:1")["referrers"]) == 1
    oras("copy", "--recursive", "--from-plain-http", "--to-oci-layout", f"{name}:1", f"{tmp_path}/back:1")
    kept = {path.name for path in (tmp_path / "back/blobs/sha256").iterdir()}
    assert hashlib.sha256(noise).hexdigest() in kept
    assert hashlib.sha256(b"a word about it").hexdigest() in kept


def _assert_same_blobs(pushed: Path, pulled: Path) -> None:
    for path in (pushed / "blobs/sha256").iterdir():
        assert (pulled / "blobs/sha256" / path.name).read_bytes() == path.read_bytes()
