"""Podman and buildah: another engine, with its own ideas of formats, compression and image IDs."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from digestry.model import media_types
from tests.e2e import asking
from tests.e2e.engines import Engine, Layout, docker_archive, root_file_system
from tests.support import RegistryServer

pytestmark = [pytest.mark.xdist_group("podman"), pytest.mark.long]

_INSECURE = "--tls-verify=false"


def build(buildah: Engine, name: str, says: str, tmp_path: Path, **extra: str) -> None:
    """Makes an image that prints ``says``."""
    container = buildah("from", "localhost/base:1")
    (tmp_path / "says").write_text(says)
    buildah("copy", "--quiet", container, tmp_path / "says", "/says")
    options = [f"--{key}={value}" for key, value in extra.items()]
    buildah("config", '--cmd=["cat", "/says"]', "--env=PATH=/bin", *options, container)
    buildah("commit", "--quiet", "--rm", container, name)


def run(podman: Engine, name: str) -> str:
    # The limits of the machine's defaults may be above what this process may set.
    limits = ("--ulimit=nofile=256:256", "--ulimit=nproc=512:512")
    return podman("run", "--rm", "--network=none", *limits, name)


@pytest.mark.parametrize(
    ("form", "manifest_type", "config_type", "layer_type"),
    [
        ("v2s2", media_types.DOCKER_MANIFEST, media_types.DOCKER_CONFIG, media_types.DOCKER_LAYER_GZIP),
        ("oci", media_types.OCI_MANIFEST, media_types.OCI_CONFIG, media_types.OCI_LAYER_GZIP),
    ],
)
def test_push_pull_and_run(
    *,
    podman: Engine,
    buildah: Engine,
    registry: RegistryServer,
    repository: str,
    tmp_path: Path,
    form: str,
    manifest_type: str,
    config_type: str,
    layer_type: str,
) -> None:
    name = f"{registry.host}/{repository}:1"
    build(buildah, name, form, tmp_path)
    podman("push", _INSECURE, f"--format={form}", f"--digestfile={tmp_path}/digest", name)
    digest = (tmp_path / "digest").read_text()
    assert str(asking.head(registry, repository, "1")) == digest
    content = asking.manifest(registry, repository, "1")
    assert content.get("mediaType", manifest_type) == manifest_type
    assert content["config"]["mediaType"] == config_type
    assert content["layers"][-1]["mediaType"] == layer_type
    podman("rmi", name)

    for reference in (name, f"{registry.host}/{repository}@{digest}"):
        podman("pull", _INSECURE, reference)
        assert run(podman, reference) == form
        (image,) = podman.json("image", "inspect", reference)
        assert image["Digest"] == digest
        assert f"sha256:{image['Id']}" == content["config"]["digest"]
        assert f"{registry.host}/{repository}@{digest}" in image["RepoDigests"]
        podman("rmi", reference)


def test_zstd_layers(
    podman: Engine, buildah: Engine, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    name = f"{registry.host}/{repository}:1"
    build(buildah, name, "zstd", tmp_path)
    podman("push", _INSECURE, "--format=oci", "--compression-format=zstd", name)
    content = asking.manifest(registry, repository, "1")
    # The layer below may be mounted, as some other image brought it.
    assert content["layers"][-1]["mediaType"] == media_types.OCI_LAYER_ZSTD
    podman("rmi", name)
    by_digest = f"{registry.host}/{repository}@{asking.head(registry, repository, '1')}"
    for reference in (name, by_digest):
        podman("pull", _INSECURE, reference)
        assert run(podman, reference) == "zstd"
        podman("rmi", reference)


def test_an_unchanged_image_writes_no_event(
    podman: Engine, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    name = f"{registry.host}/{repository}:1"
    # A layer of its own: how other tests had theirs compressed must not matter here.
    (tmp_path / "image.tar").write_bytes(
        docker_archive(name, [root_file_system(own=secrets.token_bytes(64))], "ls", "/own")
    )
    podman("load", "--quiet", f"--input={tmp_path}/image.tar")
    podman("push", _INSECURE, name)
    podman("push", _INSECURE, name)
    (entry,) = asking.journal(registry, repository)
    assert entry["event"] == "created"
    podman("rmi", name)
    podman("pull", _INSECURE, name)
    podman("push", _INSECURE, name)
    assert asking.moves(registry, repository, "1") == [("created", None, entry["toDigest"])]
    podman("rmi", name)


def test_buildah_pushes_and_pulls(
    podman: Engine, buildah: Engine, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    name = f"{registry.host}/{repository}:1"
    build(buildah, name, "buildah", tmp_path)
    buildah("push", _INSECURE, "--format=oci", f"--digestfile={tmp_path}/digest", name)
    digest = (tmp_path / "digest").read_text()
    assert str(asking.head(registry, repository, "1")) == digest
    podman("rmi", name)
    for reference in (name, f"{registry.host}/{repository}@{digest}"):
        buildah("pull", "--quiet", _INSECURE, reference)
        assert run(podman, reference) == "buildah"
        podman("rmi", reference)


def test_a_manifest_of_two_platforms(
    podman: Engine, buildah: Engine, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    name = f"{registry.host}/{repository}:1"
    local = f"localhost/{repository}:list"
    podman("manifest", "create", local)
    for architecture in ("amd64", "arm64"):
        image = f"localhost/{repository}:{architecture}"
        build(buildah, image, architecture, tmp_path, arch=architecture, os="linux")
        podman("manifest", "add", local, f"containers-storage:{image}")
    podman(
        "manifest", "push", _INSECURE, "--all", f"--digestfile={tmp_path}/digest", local, f"docker://{name}"
    )
    digest = (tmp_path / "digest").read_text()
    assert str(asking.head(registry, repository, "1")) == digest
    content = asking.manifest(registry, repository, "1")
    assert content["mediaType"] in media_types.INDEXES
    assert {entry["platform"]["architecture"] for entry in content["manifests"]} == {"amd64", "arm64"}
    (entry,) = asking.journal(registry, repository)  # the children came without a tag
    assert entry["toDigest"] == digest
    podman("manifest", "rm", local)
    for architecture in ("amd64", "arm64"):
        podman("rmi", f"localhost/{repository}:{architecture}")

    podman("pull", _INSECURE, "--platform=linux/arm64", name)
    (image,) = podman.json("image", "inspect", name)
    assert image["Architecture"] == "arm64"
    podman("rmi", name)
    podman("pull", _INSECURE, f"{registry.host}/{repository}@{digest}")
    assert run(podman, f"{registry.host}/{repository}@{digest}") == "amd64"
    podman("rmi", f"{registry.host}/{repository}@{digest}")


def test_podman_reads_what_digestry_pulled(
    *, podman: Engine, skopeo: Engine, tool: Engine, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "layout")
    layout.name(layout.image([root_file_system(says=b"from a layout")], "cat", "/says"), "1")
    name = f"{registry.host}/{repository}:1"
    skopeo("copy", "--dest-tls-verify=false", f"oci:{layout.path}:1", f"docker://{name}")
    tool("pull", name)
    store = Path(tool.environment["DIGESTRY_HOME"]) / "images"
    image_id = podman("pull", "--quiet", f"oci:{store}:{name}")
    assert run(podman, image_id) == "from a layout"
    podman("rmi", image_id)
