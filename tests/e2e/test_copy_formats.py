"""Round trips of ``copy``, ``save`` and ``load`` with other programs on both ends: digests are compared."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest

from digestry.model.digest import Digest
from tests.copy.test_odd_images import LayoutDirectory
from tests.e2e import asking
from tests.e2e.engines import Engine, Layout, docker_archive, root_file_system, tar
from tests.e2e.peers import built
from tests.support import RegistryServer

_PLAIN = "--tls-verify=false"


def layers(*marks: str) -> list[bytes]:
    return [tar({"mark": mark.encode(), "body": mark.encode() * 400_000}) for mark in marks]


@pytest.fixture
def image(skopeo: Engine, registry: RegistryServer, repository: str, tmp_path: Path) -> tuple[str, Digest]:
    """An image of a registry: its name and its digest."""
    layout = Layout(tmp_path / "made")
    digest = layout.name(layout.image(layers("a", "b"), "cat", "/mark", compress=True), "one")
    name = f"{registry.host}/{repository}:1"
    skopeo(
        "copy", "--dest-tls-verify=false", "--preserve-digests", f"oci:{layout.path}:one", f"docker://{name}"
    )
    return name, digest


def test_skopeo_reads_what_was_written(
    tool: Engine, skopeo: Engine, image: tuple[str, Digest], tmp_path: Path
) -> None:
    name, digest = image
    for place in (f"oci:{tmp_path}/layout:one", f"oci-archive:{tmp_path}/layout.tar:one"):
        tool("copy", name, place)
        assert skopeo.json("inspect", place)["Digest"] == str(digest)
    saved = f"docker-archive:{tmp_path}/saved.tar"
    tool("copy", name, saved)
    config = skopeo("inspect", "--config", "--raw", saved)
    assert Digest.of(config.encode()) == asking_config(name, skopeo)


def asking_config(name: str, skopeo: Engine) -> Digest:
    return Digest.of(skopeo("inspect", _PLAIN, "--config", "--raw", f"docker://{name}").encode())


@pytest.mark.long
def test_what_skopeo_wrote_is_read(
    *,
    tool: Engine,
    skopeo: Engine,
    registry: RegistryServer,
    repository: str,
    image: tuple[str, Digest],
    tmp_path: Path,
) -> None:
    name, digest = image
    for number, place in enumerate((f"oci:{tmp_path}/layout:one", f"oci-archive:{tmp_path}/layout.tar:one")):
        skopeo("copy", "--src-tls-verify=false", "--preserve-digests", f"docker://{name}", place)
        tool("copy", place, f"{registry.host}/{repository}/back:{number}")
        assert asking.head(registry, f"{repository}/back", str(number)) == digest
    skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"docker-archive:{tmp_path}/s.tar:any:1")
    tool("copy", f"docker-archive:{tmp_path}/s.tar", f"{registry.host}/{repository}/back:docker")
    manifest = asking.manifest(registry, f"{repository}/back", "docker")
    assert manifest["config"]["digest"] == str(asking_config(name, skopeo))


@pytest.mark.long
def test_an_index_of_skopeo(
    *, tool: Engine, skopeo: Engine, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "layout")
    entries = [
        layout.image(layers("same", name), "sh", architecture=name) for name in ("amd64", "arm64", "s390x")
    ]
    digest = layout.name(layout.index(entries), "all")
    name = f"{registry.host}/{repository}:1"
    tool("copy", f"oci:{layout.path}:all", name)
    assert asking.head(registry, repository, "1") == digest
    tool("copy", name, f"oci-archive:{tmp_path}/all.tar:all")
    back = f"docker://{registry.host}/{repository}:2"
    skopeo("copy", "--all", "--dest-tls-verify=false", f"oci-archive:{tmp_path}/all.tar:all", back)
    assert asking.head(registry, repository, "2") == digest


@pytest.mark.long
@pytest.mark.xdist_group("docker")
def test_docker_loads_and_saves(
    *,
    tool: Engine,
    docker: Engine,
    registry: RegistryServer,
    repository: str,
    image: tuple[str, Digest],
    tmp_path: Path,
) -> None:
    name, digest = image
    image_id = asking.manifest(registry, repository, "1")["config"]["digest"]
    tool("pull", name)
    tool("save", "-o", tmp_path / "saved.tar", name)
    assert name in docker("load", "--input", tmp_path / "saved.tar")
    assert docker("image", "inspect", "--format={{.Id}}", name).strip() in {image_id, str(digest)}
    docker("save", "--output", tmp_path / "theirs.tar", name)
    docker("rmi", "--force", name)
    tool("rmi", name)
    assert tool("load", "-i", tmp_path / "theirs.tar").splitlines()[0] == f"Loaded image: {name}"
    assert image_id in tool("inspect", name)
    # The engine itself, by its API.
    engine = Engine(
        tool.command, {**tool.environment, **docker.environment, "HOME": tool.environment["HOME"]}
    )
    engine("copy", name, f"docker-daemon:{name}")
    assert docker("image", "inspect", "--format={{.Id}}", name).strip() in {image_id, str(digest)}
    engine("copy", f"docker-daemon:{name}", f"{registry.host}/{repository}/engine:1")
    assert asking.manifest(registry, f"{repository}/engine", "1")["config"]["digest"] == image_id
    refused = engine.attempt("copy", "docker-daemon:nobody/has:this", "local:x:1")
    assert refused.returncode != 0
    assert "nobody/has:this" in refused.stderr
    docker("rmi", "--force", name)


@pytest.mark.long
def test_docker_load_of_an_image_that_runs(
    *, tool: Engine, docker: Engine, registry: RegistryServer, repository: str, skopeo: Engine, tmp_path: Path
) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(docker_archive("any:1", [root_file_system(hello=b"hello")], "cat", "/hello"))
    name = f"{registry.host}/{repository}:1"
    tool("copy", f"docker-archive:{archive}", name)
    tool("copy", name, f"docker-archive:{tmp_path}/again.tar")
    docker("load", "--input", tmp_path / "again.tar")
    assert docker("run", "--rm", "--network=none", name) == "hello"
    docker("rmi", "--force", name)


@pytest.mark.long
@pytest.mark.xdist_group("podman")
def test_podman_loads_and_saves(
    *,
    tool: Engine,
    podman: Engine,
    registry: RegistryServer,
    repository: str,
    image: tuple[str, Digest],
    tmp_path: Path,
) -> None:
    name, _ = image
    image_id = asking.manifest(registry, repository, "1")["config"]["digest"]
    tool("copy", name, f"docker-archive:{tmp_path}/saved.tar")
    podman("load", "--input", tmp_path / "saved.tar")
    assert podman.json("image", "inspect", name)[0]["Id"] == image_id.removeprefix("sha256:")
    for form in ("docker-archive", "oci-archive", "oci-dir"):
        kind = form.removesuffix("-dir")
        podman("save", "--format", form, "--output", tmp_path / form, name)
        tool("copy", f"{kind}:{tmp_path}/{form}", f"{registry.host}/{repository}/back:{form}")
        back = asking.manifest(registry, f"{repository}/back", form)
        assert back["config"]["digest"] == image_id
    podman("rmi", "--force", name)
    # The storage itself, by the podman that is in PATH.
    wrapper = tmp_path / "bin/podman"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, podman.command))} "$@"\n')
    wrapper.chmod(0o755)
    path = f"{wrapper.parent}:{os.environ['PATH']}"
    here = Engine(tool.command, {**tool.environment, **podman.environment, "PATH": path})
    here("copy", name, f"containers-storage:{name}")
    found = podman.json("image", "inspect", name)[0]
    assert found["Id"] == image_id.removeprefix("sha256:")
    here("copy", f"containers-storage:{name}", f"{registry.host}/{repository}/storage:1")
    stored = asking.manifest(registry, f"{repository}/storage", "1")
    assert stored["config"]["digest"] == image_id
    podman("rmi", "--force", name)


@pytest.mark.long
def test_crane_reads_and_writes(
    *, tool: Engine, registry: RegistryServer, repository: str, image: tuple[str, Digest], tmp_path: Path
) -> None:
    name, digest = image
    crane = Engine((str(built("crane")),), {"HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path)})
    crane("pull", "--format=oci", name, tmp_path / "layout")
    tool("copy", f"oci:{tmp_path}/layout", f"{registry.host}/{repository}/back:oci")
    assert asking.head(registry, f"{repository}/back", "oci") == digest
    crane("pull", "--format=tarball", name, tmp_path / "crane.tar")
    tool("copy", f"docker-archive:{tmp_path}/crane.tar", f"{registry.host}/{repository}/back:tarball")
    image_id = asking.manifest(registry, repository, "1")["config"]["digest"]
    assert asking.manifest(registry, f"{repository}/back", "tarball")["config"]["digest"] == image_id
    tool("copy", name, f"docker-archive:{tmp_path}/ours.tar")
    crane("push", tmp_path / "ours.tar", f"{registry.host}/{repository}/back:ours")
    assert asking.manifest(registry, f"{repository}/back", "ours")["config"]["digest"] == image_id
    tool("copy", name, f"oci:{tmp_path}/ours")
    crane("push", tmp_path / "ours", f"{registry.host}/{repository}/back:layout")
    assert asking.head(registry, f"{repository}/back", "layout") == digest


@pytest.mark.long
def test_between_two_registries(
    *, tool: Engine, registry: RegistryServer, peer_registry: str, repository: str, image: tuple[str, Digest]
) -> None:
    """To docker-registry and back; a second time only looks."""
    name, digest = image
    there = f"{peer_registry}/{repository}:1"
    tool("copy", name, there)
    done = json.loads(tool("copy", "--format", "json", there, f"{registry.host}/{repository}/back:1"))
    assert done["images"][0]["digest"] == str(digest)
    assert asking.head(registry, f"{repository}/back", "1") == digest
    again = json.loads(tool("copy", "--format", "json", name, there))
    assert (again["blobs_sent"], again["images"][0]["previous_digest"]) == (0, str(digest))


@pytest.mark.long
def test_layers_in_zstd(
    *, tool: Engine, skopeo: Engine, registry: RegistryServer, repository: str, image: tuple[str, Digest],
    tmp_path: Path,
) -> None:  # fmt: skip
    name, _ = image
    compressed = f"{registry.host}/{repository}/zstd:1"
    theirs = f"oci:{tmp_path}/theirs:1"
    skopeo("copy", "--src-tls-verify=false", "--dest-compress-format=zstd", f"docker://{name}", theirs)
    tool("copy", theirs, compressed)
    digest = asking.head(registry, f"{repository}/zstd", "1")
    manifest = asking.manifest(registry, f"{repository}/zstd", "1")
    assert {layer["mediaType"].rpartition("+")[2] for layer in manifest["layers"]} == {"zstd"}
    for number, place in enumerate(
        (f"oci:{tmp_path}/layout:1", f"docker-archive:{tmp_path}/saved.tar:app:1")
    ):
        said = tool.attempt("copy", compressed, place)
        assert said.returncode == 0, said.stderr
        assert (f"{digest} has layers in zstd, which docker 20.10 cannot load" in said.stderr) == (
            number == 1
        )
        skopeo("copy", place, f"dir:{tmp_path}/read-{number}")
        tool("copy", place, f"{registry.host}/{repository}/back:{number}")
        assert asking.head(registry, f"{repository}/back", str(number)) == digest
    assert "is valid" in tool("validate", compressed)


@pytest.mark.long
def test_oras_reads_and_writes_layouts_with_artifacts(
    *, tool: Engine, registry: RegistryServer, repository: str, image: tuple[str, Digest], tmp_path: Path
) -> None:
    name, digest = image
    oras = Engine((str(built("oras")),), {"HOME": str(tmp_path)})
    (tmp_path / "sbom.json").write_text("{}")
    tool("attach", name, tmp_path / "sbom.json", "--artifact-type", "application/x.sbom")
    (sbom,) = json.loads(tool("referrers", name, "--format", "json"))
    # theirs, read by us
    oras("copy", "--recursive", "--from-plain-http", name, "--to-oci-layout", f"{tmp_path}/theirs:1")
    back = f"{registry.host}/{repository}/back:1"
    tool("copy", "--referrers", f"oci:{tmp_path}/theirs:1", back)
    assert asking.head(registry, f"{repository}/back", "1") == digest
    (found,) = json.loads(tool("referrers", back, "--format", "json"))
    assert found["digest"] == sbom["digest"]
    # ours, read by them
    tool("copy", "--referrers", name, f"oci:{tmp_path}/ours:1")
    discovered = oras.json("discover", "--oci-layout", "--format=json", f"{tmp_path}/ours:1")
    assert [one["digest"] for one in discovered["referrers"]] == [sbom["digest"]]
    there = f"{registry.host}/{repository}/there:1"
    oras("copy", "--recursive", "--to-plain-http", "--from-oci-layout", f"{tmp_path}/ours:1", there)
    assert json.loads(tool("referrers", there, "--format", "json"))[0]["digest"] == sbom["digest"]
    # an artifact without an image
    (tmp_path / "notes.txt").write_text("hello")
    artifact = f"{registry.host}/{repository}/notes:1"
    arguments = ("--disable-path-validation", f"{tmp_path}/notes.txt:text/plain")
    oras("push", "--plain-http", "--artifact-type", "application/x.notes", artifact, *arguments)
    tool("copy", artifact, f"oci-archive:{tmp_path}/notes.tar:1")
    tool("copy", f"oci-archive:{tmp_path}/notes.tar:1", f"{registry.host}/{repository}/notes:2")
    assert asking.head(registry, f"{repository}/notes", "1") == asking.head(
        registry, f"{repository}/notes", "2"
    )


@pytest.mark.long
@pytest.mark.xdist_group("podman")
def test_buildah_reads_and_writes(
    *, tool: Engine, buildah: Engine, registry: RegistryServer, repository: str, image: tuple[str, Digest],
    tmp_path: Path,
) -> None:  # fmt: skip
    name, _ = image
    image_id = asking.manifest(registry, repository, "1")["config"]["digest"]
    for place in (f"oci:{tmp_path}/ours:1", f"oci-archive:{tmp_path}/ours.tar:1"):
        tool("copy", name, place)
        assert image_id == f"sha256:{buildah('pull', '--quiet', place)}"
    for kind in ("oci", "oci-archive", "docker-archive"):
        tag = "app:1" if kind == "docker-archive" else "1"
        buildah("push", "--quiet", image_id.removeprefix("sha256:"), f"{kind}:{tmp_path}/{kind}:{tag}")
        tool("copy", f"{kind}:{tmp_path}/{kind}:{tag}", f"{registry.host}/{repository}/back:{kind}")
        assert asking.manifest(registry, f"{repository}/back", kind)["config"]["digest"] == image_id
    buildah("rmi", "--force", image_id.removeprefix("sha256:"))


@pytest.mark.long
def test_an_image_of_sha512_keeps_its_digest_under_a_tag(
    tool: Engine, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    oras = Engine((str(built("oras")),), {"HOME": str(tmp_path)})
    layout = LayoutDirectory(tmp_path / "long", "sha512")
    layout.name(layout.image(b"one"), "1")
    digest = Digest.parse(layout.entries[0]["digest"])
    there = f"{registry.host}/{repository}/long"
    tool("copy", f"oci:{layout.path}:1", f"{there}:1")
    assert asking.head(registry, f"{repository}/long", "1") == digest
    oras("copy", "--from-plain-http", f"{there}@{digest}", "--to-oci-layout", f"{tmp_path}/back:1")
    tool("copy", f"oci:{tmp_path}/back:1", f"{there}:2")
    assert asking.head(registry, f"{repository}/long", "2") == digest
