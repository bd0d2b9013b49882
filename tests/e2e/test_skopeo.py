"""Skopeo copies in all directions, and a digest stays what it was wherever the format allows it."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.e2e import asking
from tests.e2e.engines import Engine, Layout, docker_archive, tar
from tests.support import RegistryServer

_TO = "--dest-tls-verify=false"
_FROM = "--src-tls-verify=false"
_PLAIN = "--tls-verify=false"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


def layers(*marks: str) -> list[bytes]:
    return [tar({"mark": mark.encode(), "body": mark.encode() * 50_000}) for mark in marks]


@pytest.mark.parametrize("compress", [True, False])
def test_an_oci_layout_goes_there_and_back(
    *,
    skopeo: Engine,
    registry: RegistryServer,
    repository: str,
    layout: Layout,
    tmp_path: Path,
    compress: bool,
) -> None:
    digest = layout.name(layout.image(layers("a", "b"), "sh", compress=compress), "one")
    remote = f"docker://{registry.host}/{repository}"
    skopeo("copy", _TO, "--preserve-digests", f"oci:{layout.path}:one", f"{remote}:1")
    assert asking.head(registry, repository, "1") == digest
    original = (layout.path / "blobs/sha256" / digest.encoded).read_bytes()
    assert asking.raw(registry, repository, "1") == original
    for target in (":1", f"@{digest}"):
        back = tmp_path / "back"
        skopeo("copy", _FROM, "--preserve-digests", f"{remote}{target}", f"oci:{back}:one")
        (entry,) = json.loads((back / "index.json").read_text())["manifests"]
        assert entry["digest"] == str(digest)
        assert (back / "blobs/sha256" / digest.encoded).read_bytes() == original


def test_a_docker_archive_goes_there_and_back(
    skopeo: Engine, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(docker_archive("any:1", layers("x", "y"), "sh"))
    remote = f"docker://{registry.host}/{repository}:1"
    skopeo("copy", _TO, f"docker-archive:{archive}", remote)
    content = asking.manifest(registry, repository, "1")
    assert content["mediaType"] == media_types.DOCKER_MANIFEST
    back = tmp_path / "back.tar"
    skopeo("copy", _FROM, remote, f"docker-archive:{back}:any:1")
    config = skopeo("inspect", "--config", "--raw", f"docker-archive:{back}")
    assert str(Digest.of(config.encode())) == content["config"]["digest"]


def test_a_directory_goes_there_and_back(
    skopeo: Engine, registry: RegistryServer, repository: str, layout: Layout, tmp_path: Path
) -> None:
    digest = layout.name(layout.image(layers("d"), "sh"), "one")
    skopeo("copy", f"oci:{layout.path}:one", f"dir:{tmp_path}/dir")
    remote = f"docker://{registry.host}/{repository}"
    skopeo("copy", _TO, "--preserve-digests", f"dir:{tmp_path}/dir", f"{remote}:1")
    assert asking.head(registry, repository, "1") == digest
    skopeo("copy", _FROM, f"{remote}@{digest}", f"dir:{tmp_path}/again")
    assert Digest.of((tmp_path / "again/manifest.json").read_bytes()) == digest


@pytest.mark.parametrize("form", ["v2s2", "oci"])
def test_formats_are_converted_by_the_client(
    skopeo: Engine, registry: RegistryServer, repository: str, layout: Layout, form: str
) -> None:
    layout.name(layout.image(layers("f"), "sh"), "one")
    skopeo(
        "copy", _TO, f"--format={form}", f"oci:{layout.path}:one", f"docker://{registry.host}/{repository}:1"
    )
    expected = media_types.DOCKER_MANIFEST if form == "v2s2" else media_types.OCI_MANIFEST
    assert asking.manifest(registry, repository, "1")["mediaType"] == expected


@pytest.mark.long
def test_an_index_with_all_its_platforms(
    skopeo: Engine, registry: RegistryServer, repository: str, layout: Layout, tmp_path: Path
) -> None:
    entries = [
        layout.image(layers("same", name), "sh", architecture=name) for name in ("amd64", "arm64", "s390x")
    ]
    digest = layout.name(layout.index(entries), "all")
    first = f"{registry.host}/{repository}/a"
    second = f"{registry.host}/{repository}/b"
    skopeo("copy", "--all", "--preserve-digests", _TO, f"oci:{layout.path}:all", f"docker://{first}:1")
    assert asking.head(registry, f"{repository}/a", "1") == digest
    # From repository to repository, by digest: blobs are mounted.
    skopeo(
        "copy",
        "--all",
        "--preserve-digests",
        _FROM,
        _TO,
        f"docker://{first}@{digest}",
        f"docker://{second}:x",
    )
    assert asking.head(registry, f"{repository}/b", "x") == digest
    for entry in entries:
        assert str(asking.head(registry, f"{repository}/b", entry["digest"])) == entry["digest"]
    skopeo("copy", "--all", _FROM, f"docker://{second}:x", f"oci:{tmp_path}/back:all")
    (back,) = json.loads((tmp_path / "back/index.json").read_text())["manifests"]
    assert back["digest"] == str(digest)

    # One platform of it; its digest is that of the index's entry.
    arm = ("--override-arch=arm64", "--override-os=linux")
    skopeo(*arm, "copy", _FROM, f"docker://{first}:1", f"oci:{tmp_path}/arm:1")
    (only,) = json.loads((tmp_path / "arm/index.json").read_text())["manifests"]
    assert only["digest"] == entries[1]["digest"]
    assert skopeo.json(*arm, "inspect", _PLAIN, f"docker://{first}:1")["Architecture"] == "arm64"


def test_inspect_and_list_tags(
    skopeo: Engine, registry: RegistryServer, repository: str, layout: Layout
) -> None:
    digest = layout.name(layout.image(layers("i", "j"), "sh"), "one")
    remote = f"docker://{registry.host}/{repository}"
    for tag in ("2", "1", "latest"):
        skopeo("copy", _TO, f"oci:{layout.path}:one", f"{remote}:{tag}")
    seen = skopeo.json("inspect", _PLAIN, f"{remote}:1")
    assert seen["Digest"] == str(digest)
    assert seen["RepoTags"] == ["1", "2", "latest"]
    assert len(seen["Layers"]) == 2
    raw = skopeo("inspect", "--raw", _PLAIN, f"{remote}@{digest}")
    assert Digest.of(raw.encode()) == digest
    config = skopeo.json("inspect", "--config", _PLAIN, f"{remote}:latest")
    assert config["architecture"] == "amd64"
    assert skopeo.json("list-tags", _PLAIN, remote)["Tags"] == ["1", "2", "latest"]


def test_delete_takes_every_tag_of_the_manifest_and_is_remembered(
    skopeo: Engine, registry: RegistryServer, repository: str, layout: Layout
) -> None:
    remote = f"docker://{registry.host}/{repository}"
    gone = layout.name(layout.image(layers("gone"), "sh"), "gone")
    kept = layout.name(layout.image(layers("kept"), "sh"), "kept")
    skopeo("copy", _TO, f"oci:{layout.path}:gone", f"{remote}:1")
    skopeo("copy", _TO, f"oci:{layout.path}:gone", f"{remote}:same")
    skopeo("copy", _TO, f"oci:{layout.path}:kept", f"{remote}:2")
    skopeo("delete", _PLAIN, f"{remote}:1")
    assert skopeo.json("list-tags", _PLAIN, remote)["Tags"] == ["2"]
    assert skopeo.attempt("inspect", _PLAIN, f"{remote}@{gone}").returncode != 0
    assert asking.head(registry, repository, "2") == kept
    for tag in ("1", "same"):
        assert asking.moves(registry, repository, tag) == [
            ("created", None, str(gone)),
            ("deleted", str(gone), None),
        ]
    # The same image again is welcome.
    skopeo("copy", _TO, f"oci:{layout.path}:gone", f"{remote}:1")
    assert asking.head(registry, repository, "1") == gone


def test_concurrent_copies_to_one_tag_make_one_chain(
    skopeo: Engine, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    pushed = []
    for number in range(6):
        layout = Layout(tmp_path / str(number))
        digest = layout.name(layout.image(layers("shared", f"own {number}"), "sh"), "one")
        pushed.append((layout, str(digest)))

    def copy(item: tuple[Layout, str]) -> None:
        skopeo("copy", _TO, f"oci:{item[0].path}:one", f"docker://{registry.host}/{repository}:1")

    with ThreadPoolExecutor(len(pushed)) as pool:
        list(pool.map(copy, pushed))
    moves = asking.moves(registry, repository, "1")
    assert sorted(str(move[2]) for move in moves) == sorted(digest for _, digest in pushed)
    assert [move[1] for move in moves] == [None, *(move[2] for move in moves[:-1])]
    assert str(asking.head(registry, repository, "1")) == moves[-1][2]


@pytest.mark.long
def test_a_large_blob_of_random_bytes(
    skopeo: Engine, registry: RegistryServer, repository: str, layout: Layout, tmp_path: Path
) -> None:
    """Sent and received in pieces, compared to the last byte."""
    digest = layout.name(layout.image([tar({"noise": os.urandom(40_000_000)})], "sh"), "one")
    remote = f"docker://{registry.host}/{repository}:1"
    skopeo("copy", _TO, f"oci:{layout.path}:one", remote)
    skopeo("copy", _FROM, remote, f"oci:{tmp_path}/back:one")
    for path in (layout.path / "blobs/sha256").iterdir():
        assert (tmp_path / "back/blobs/sha256" / path.name).read_bytes() == path.read_bytes()
    assert asking.head(registry, repository, "1") == digest


@pytest.mark.long
def test_copies_between_two_registries_keep_digests(
    skopeo: Engine, registry: RegistryServer, peer_registry: str, repository: str, layout: Layout
) -> None:
    entries = [layout.image(layers("same", name), "sh", architecture=name) for name in ("amd64", "arm64")]
    digest = layout.name(layout.index(entries), "all")
    ours, theirs = f"docker://{registry.host}/{repository}", f"docker://{peer_registry}/{repository}"
    options = ("--all", "--preserve-digests", _FROM, _TO)
    skopeo("copy", *options, f"oci:{layout.path}:all", f"{theirs}:1")
    skopeo("copy", *options, f"{theirs}:1", f"{ours}:from-peer")
    assert asking.head(registry, repository, "from-peer") == digest
    skopeo("copy", *options, f"{ours}@{digest}", f"{theirs}:back")
    for target in (f"{theirs}:1", f"{theirs}:back", f"{ours}:from-peer", f"{ours}@{digest}"):
        assert Digest.of(skopeo("inspect", "--raw", _PLAIN, target).encode()) == digest


@pytest.mark.long
def test_sync_of_a_repository_from_the_peer(
    skopeo: Engine, registry: RegistryServer, peer_registry: str, repository: str, layout: Layout
) -> None:
    theirs = f"{peer_registry}/{repository}"
    digests = {}
    for tag in ("1", "2", "3"):
        digests[tag] = layout.name(layout.image(layers(f"sync {tag}"), "sh"), tag)
        skopeo("copy", _TO, f"oci:{layout.path}:{tag}", f"docker://{theirs}:{tag}")
    skopeo("sync", "--src=docker", "--dest=docker", _FROM, _TO, theirs, f"{registry.host}/mirror")
    name = "mirror/" + repository.rpartition("/")[2]
    for tag, digest in digests.items():
        assert asking.head(registry, name, tag) == digest
