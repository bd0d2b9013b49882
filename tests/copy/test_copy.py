"""Copies between all places that need no engine: what arrives is what there was, and only what is missing is
sent."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from digestry.copy.copy import CopyOptions, CopyResult
from digestry.copy.location import parse_location
from digestry.copy.places import Surroundings
from digestry.copy.request import CopyRequest, run_copy
from digestry.errors import (
    Ambiguous,
    CallerError,
    Conflict,
    ContentError,
    DigestMismatch,
    DigestryError,
    InvalidConfiguration,
    InvalidManifest,
    NotFound,
)
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.platform import Platform
from digestry.model.reference import Reference
from tests.images.making import HOST, OTHER
from tests.support import RegistryServer, descriptor, run_digestry

BIG = b"x" * 3_000_000
"""A layer that is worth a file while it is on its way."""


def copy(around: Surroundings, source: str, target: str, **more: Any) -> CopyResult:
    options = {key: more.pop(key) for key in ("platforms", "referrers", "dry_run") if key in more}
    request = CopyRequest(parse_location(source, around.read), parse_location(target, around.read), **more)
    return run_copy(request, around, CopyOptions(**options))


def push_index(registry: RegistryServer, name: str, tag: str) -> tuple[Digest, Digest, Digest]:
    """An index of two images; returns its digest and theirs: this machine's first."""
    images = []
    for number, platform in enumerate((HOST, OTHER)):
        config = json.dumps(
            {"os": platform.os, "architecture": platform.architecture, "rootfs": {"type": "layers"}}
        ).encode()
        layer = b"layer of %d" % number + BIG
        body = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": media_types.OCI_MANIFEST,
                "config": descriptor(media_types.OCI_CONFIG, registry.push_blob(name, config), len(config)),
                "layers": [descriptor(media_types.OCI_LAYER, registry.push_blob(name, layer), len(layer))],
            }
        ).encode()
        digest = registry.push_manifest(name, str(Digest.of(body)), body)
        images.append(
            descriptor(
                media_types.OCI_MANIFEST,
                digest,
                len(body),
                platform={"os": platform.os, "architecture": platform.architecture},
            )
        )
    index = json.dumps(
        {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": images, "x-unknown": [1]}
    ).encode()
    top = registry.push_manifest(name, tag, index, media_types.OCI_INDEX)
    return top, Digest.parse(images[0]["digest"]), Digest.parse(images[1]["digest"])


PLACES = {
    "registry": "{host}/{repository}/there:1",
    "local": "local:{host}/{repository}/here:1",
    "oci": "oci:{path}/layout:1",
    "oci-archive": "oci-archive:{path}/layout.tar:1",
    "docker-archive": "docker-archive:{path}/saved.tar:{host}/{repository}/saved:1",
}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, registry: RegistryServer, repository: str, tmp_path: Path) -> str:
    """Each kind of place."""
    return PLACES[request.param].format(host=registry.host, repository=repository, path=tmp_path)


def test_an_image_goes_there_and_back(
    around: Surroundings, registry: RegistryServer, repository: str, place: str
) -> None:
    digest = registry.push_image(repository, "1", BIG)
    source = f"{registry.host}/{repository}:1"
    sent = copy(around, source, place)
    assert [(image.digest, image.source, image.before) for image in sent.images] == [(digest, digest, None)]
    assert len(sent.sent) + len(sent.mounted) == 2
    back = copy(around, place, f"{registry.host}/{repository}/back:2")
    assert back.images[0].digest == digest
    got = registry.request("GET", f"/v2/{repository}/back/manifests/2")
    assert Digest.of(got.body) == digest
    layer = json.loads(got.body)["layers"][0]["digest"]
    assert registry.request("GET", f"/v2/{repository}/back/blobs/{layer}").body == BIG
    assert not list(around.scratch.glob("*"))


def test_what_is_there_is_not_sent_again(
    around: Surroundings, registry: RegistryServer, repository: str, place: str
) -> None:
    digest = registry.push_image(repository, "1", BIG)
    copy(around, f"{registry.host}/{repository}:1", place)
    again = copy(around, f"{registry.host}/{repository}:1", place)
    if "archive" in place:  # written anew each time
        assert len(again.sent) == 2
    else:
        assert (again.sent, again.images[0].before) == ((), digest)
    registry.push_image(repository, "1", b"another layer")
    moved = copy(around, f"{registry.host}/{repository}:1", place)
    assert moved.images[0].before == (None if "archive" in place else digest)


@pytest.mark.parametrize("kind", ["registry", "local", "oci", "oci-archive"])
def test_an_index_keeps_its_digest(
    around: Surroundings, registry: RegistryServer, repository: str, tmp_path: Path, kind: str
) -> None:
    index, *images = push_index(registry, repository, "1")
    place = PLACES[kind].format(host=registry.host, repository=repository, path=tmp_path)
    assert copy(around, f"{registry.host}/{repository}:1", place).images[0].digest == index
    assert copy(around, place, f"{registry.host}/{repository}/back:1").images[0].digest == index
    for image in images:
        assert registry.request("HEAD", f"/v2/{repository}/back/manifests/{image}").status == 200


def test_one_platform_of_an_index(around: Surroundings, registry: RegistryServer, repository: str) -> None:
    index, _, other = push_index(registry, repository, "1")
    source = f"{registry.host}/{repository}:1"
    one = copy(around, source, f"{registry.host}/{repository}/one:1", platforms=(OTHER,))
    assert (one.images[0].digest, one.images[0].source) == (other, index)
    assert "another digest" in one.images[0].remark
    with pytest.raises(NotFound, match="no image for"):
        copy(around, source, f"{registry.host}/{repository}/one:2", platforms=(Platform("mips", "linux"),))
    # In the local store a name goes on meaning the index, as after a pull.
    kept = copy(around, source, "local:kept:1", platforms=(OTHER,))
    assert kept.images[0].digest == index
    assert around.store.blobs.stat(other) is not None
    assert len(around.store.present_images(around.store.manifest(around.store.find(_full("kept:1"))))) == 1
    # Which a registry cannot have.
    with pytest.raises(NotFound, match=f"linux/{HOST.architecture}, which is neither in"):
        copy(around, "local:kept:1", f"{registry.host}/{repository}/whole:1")


def test_some_platforms_of_an_index(around: Surroundings, registry: RegistryServer, repository: str) -> None:
    index, here, other = push_index(registry, repository, "1")
    made = copy(
        around,
        f"{registry.host}/{repository}:1",
        f"{registry.host}/{repository}/n:1",
        platforms=(HOST, OTHER),
    )
    found = registry.request("GET", f"/v2/{repository}/n/manifests/1").json()
    assert [entry["digest"] for entry in found["manifests"]] == [str(here), str(other)]
    assert found["x-unknown"] == [1]
    assert made.images[0].source == index


def test_a_file_for_docker_has_this_machines_image(
    around: Surroundings, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    _, here, _ = push_index(registry, repository, "1")
    file = tmp_path / "saved.tar"
    made = copy(around, f"{registry.host}/{repository}:1", f"docker-archive:{file}")
    assert made.images[0].digest == here
    with tarfile.open(file) as archive:
        (saved,) = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert saved["RepoTags"] == [f"{registry.host}/{repository}:1"]
        assert {saved["Config"], *saved["Layers"]} <= set(archive.getnames())


def test_all_tags_and_those_that_match(
    around: Surroundings, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    digests = {tag: registry.push_image(repository, tag, tag.encode()) for tag in ("1.0", "1.1", "2.0")}
    source = f"{registry.host}/{repository}"
    made = copy(around, source, f"{registry.host}/{repository}/all", all_tags=True)
    assert {image.name: image.digest for image in made.images} == digests
    some = copy(around, source, f"oci:{tmp_path}/layout", tags=("1.*",))
    assert [image.name for image in some.images] == ["1.0", "1.1"]
    saved = copy(around, source, f"docker-archive:{tmp_path}/saved.tar", all_tags=True)
    assert {image.name for image in saved.images} == {f"{source}:{tag}" for tag in digests}
    back = copy(around, f"docker-archive:{tmp_path}/saved.tar", "local:back", all_tags=True)
    assert {image.name: image.digest for image in back.images} == digests
    with pytest.raises(NotFound, match="no tag that matches 3"):
        copy(around, source, "local:back", tags=("3.*",))
    with pytest.raises(InvalidConfiguration, match="names one"):
        copy(around, f"{source}:1.0", "local:back", all_tags=True)


def test_what_refers_to_an_image_comes_too(
    around: Surroundings, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    digest = registry.push_image(repository, "1")
    size = int(registry.request("HEAD", f"/v2/{repository}/manifests/1").headers["content-length"])
    subject = descriptor(media_types.OCI_MANIFEST, digest, size)
    sbom = registry.push_image(repository, "sbom", b"sbom", subject=subject, artifactType="a/sbom")
    registry.request("DELETE", f"/v2/{repository}/manifests/sbom")
    signature = registry.push_image(repository, f"sha256-{digest.encoded}.sig", b"signature")
    for target in (f"{registry.host}/{repository}/r:1", f"oci:{tmp_path}/layout:1", "local:r:1"):
        made = copy(around, f"{registry.host}/{repository}:1", target, referrers=True)
        assert made.images[0].referrers == (sbom,)
        assert made.images[1].digest == signature
        back = copy(around, target, f"{registry.host}/{repository}/back/{target[:2]}:1", referrers=True)
        assert back.images[0].referrers == (sbom,)
    listed = registry.request("GET", f"/v2/{repository}/r/referrers/{digest}").json()
    assert [entry["digest"] for entry in listed["manifests"]] == [str(sbom)]


@pytest.mark.peer("docker-registry")
def test_all_tags_leave_the_targets_own_lists_of_referrers(
    around: Surroundings, docker_registry: str, registry: RegistryServer, repository: str
) -> None:
    digest = registry.push_image(repository, "1")
    size = int(registry.request("HEAD", f"/v2/{repository}/manifests/1").headers["content-length"])
    subject = descriptor(media_types.OCI_MANIFEST, digest, size)
    one, two = (
        registry.push_image(f"{repository}/{kind}", kind, kind.encode(), subject=subject, artifactType="a/b")
        for kind in ("one", "two")
    )
    plain = f"{docker_registry}/{repository}"
    for kind in ("one", "two"):
        registry.push_image(f"{repository}/{kind}", "1")
        copy(around, f"{registry.host}/{repository}/{kind}:1", f"{plain}/{kind}:1", referrers=True)
    made = copy(around, f"{plain}/one", f"{plain}/two", all_tags=True, referrers=True)
    assert [image.name for image in made.images] == ["1"]
    remote = around.session.repository(Reference.parse(f"{plain}/two"))
    assert {entry.digest for entry in remote.referrers(digest)} == {one, two}
    whole = copy(around, f"{plain}/one", f"{plain}/three", all_tags=True)
    assert {image.name for image in whole.images} == {"1", f"sha256-{digest.encoded}"}


@pytest.mark.peer("docker-registry")
def test_a_referrer_that_is_listed_and_was_deleted_is_skipped(
    around: Surroundings, docker_registry: str, registry: RegistryServer, repository: str
) -> None:
    """By a client that does not keep the list at the referrers tag."""
    digest = registry.push_image(repository, "1")
    size = int(registry.request("HEAD", f"/v2/{repository}/manifests/1").headers["content-length"])
    subject = descriptor(media_types.OCI_MANIFEST, digest, size)
    kept, gone = (
        registry.push_image(repository, kind, kind.encode(), subject=subject, artifactType=f"a/{kind}")
        for kind in ("kept", "gone")
    )
    copy(around, f"{registry.host}/{repository}:1", f"{docker_registry}/{repository}:1", referrers=True)
    url = f"http://{docker_registry}/v2/{repository}/manifests/{gone}"
    with urlopen(Request(url, method="DELETE")):
        pass
    made = copy(around, f"{docker_registry}/{repository}:1", "local:left:1", referrers=True)
    assert made.images[0].referrers == (kept,)
    assert [one.descriptor.digest for one in made.skipped] == [gone]


def test_a_dry_run_moves_nothing(around: Surroundings, registry: RegistryServer, repository: str) -> None:
    registry.push_image(repository, "1", BIG)
    target = f"{registry.host}/{repository}/dry:1"
    said = copy(around, f"{registry.host}/{repository}:1", target, dry_run=True)
    assert (len(said.sent), said.bytes_sent > len(BIG)) == (2, True)
    assert registry.request("GET", f"/v2/{repository}/dry/manifests/1").status == 404


def test_a_digest_names_what_the_target_must_get(
    around: Surroundings, registry: RegistryServer, repository: str
) -> None:
    digest = registry.push_image(repository, "1")
    target = f"{registry.host}/{repository}/digest"
    made = copy(around, f"{registry.host}/{repository}@{digest}", f"{target}@{digest}")
    assert made.images[0].name is None
    with pytest.raises(Conflict, match="is another"):
        copy(around, f"{registry.host}/{repository}:1", f"{target}@{Digest.of(b'')}")


def test_blobs_are_mounted_in_the_same_registry(
    around: Surroundings, registry: RegistryServer, repository: str
) -> None:
    registry.push_image(repository, "1", BIG)
    made = copy(around, f"{registry.host}/{repository}:1", f"{registry.host}/{repository}/mounted:1")
    assert (len(made.mounted), len(made.sent)) == (2, 0)


# -- archives and layouts of others ----------------------------------------------------------------


def _full(name: str) -> Reference:
    return Reference.parse(name)


def _old_archive(path: Path, *, layers: list[bytes], tags: list[str] | None, **more: bytes) -> str:
    """A file as docker before 25 wrote it; returns the image ID."""
    config = json.dumps(
        {
            "os": "linux",
            "architecture": HOST.architecture,
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer)) for layer in layers]},
        }
    ).encode()
    name = Digest.of(config).encoded
    files = {f"{name}.json": config, **{f"{n}/layer.tar": layer for n, layer in enumerate(layers)}}
    listed = [{"Config": f"{name}.json", "RepoTags": tags, "Layers": list(files)[1:]}]
    files |= {"manifest.json": json.dumps(listed).encode()} | more
    write_tar(path, files)
    return f"sha256:{name}"


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def test_a_file_of_an_old_docker(
    around: Surroundings, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    file = tmp_path / "old.tar"
    image = _old_archive(file, layers=[b"one" * 1000, b"two" * 1000], tags=["app:1", "app:2"])
    made = copy(around, f"docker-archive:{file}", f"{registry.host}/{repository}/old:1")
    manifest = registry.request("GET", f"/v2/{repository}/old/manifests/1").json()
    assert manifest["config"]["digest"] == image
    layers = [
        registry.request("GET", f"/v2/{repository}/old/blobs/{one['digest']}") for one in manifest["layers"]
    ]
    assert [gzip.decompress(layer.body) for layer in layers] == [b"one" * 1000, b"two" * 1000]
    assert {one["mediaType"] for one in manifest["layers"]} == {media_types.OCI_LAYER_GZIP}
    by_name = copy(around, f"docker-archive:{file}:app:2", "local:app:2")
    assert by_name.images[0].digest == made.images[0].digest  # the same each time
    with pytest.raises(NotFound, match=r"has no image docker\.io/library/app:3"):
        copy(around, f"docker-archive:{file}:app:3", "local:app:3")


def test_what_is_made_anew_is_said_before_anything_moves(around: Surroundings, tmp_path: Path) -> None:
    _old_archive(tmp_path / "old.tar", layers=[b"one" * 1000], tags=None)
    said: list[str] = []
    request = CopyRequest(
        parse_location(f"docker-archive:{tmp_path}/old.tar", around.read),
        parse_location("local:old:1", around.read),
    )
    planned = run_copy(request, around, CopyOptions(dry_run=True), tell=said.append)
    assert [text.partition(": ")[2].startswith("it has no manifest: one is made") for text in said] == [True]
    assert not around.store.entries()
    made = run_copy(request, around, CopyOptions())
    assert made.images[0].digest == planned.images[0].digest
    assert {blob.digest for blob in made.sent} == {blob.digest for blob in planned.sent}
    assert list(around.scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("files", "error", "says"),
    [
        ({"x": b""}, ContentError, "not a file of `docker save`"),
        ({"manifest.json": b"{"}, ContentError, "cannot be read"),
        ({"manifest.json": b"[]"}, NotFound, "has no image"),
        ({"manifest.json": b'[{"Config": "../../etc/passwd"}]'}, NotFound, "is not in"),
        ({"manifest.json": b'[{"Config": "c"}]', "c": b"nonsense"}, ContentError, "not JSON"),
        (
            {"manifest.json": b'[{"Config": "c", "Layers": ["l"]}]', "c": b'{"rootfs": {"diff_ids": []}}'},
            ContentError,
            "1 layers for",
        ),
    ],
)
def test_files_that_docker_did_not_write(
    around: Surroundings, tmp_path: Path, files: dict[str, bytes], error: type[DigestryError], says: str
) -> None:
    file = tmp_path / "bad.tar"
    write_tar(file, files)
    with pytest.raises(error, match=says):
        copy(around, f"docker-archive:{file}", "local:bad:1")


def test_a_layer_that_is_not_what_the_config_says(around: Surroundings, tmp_path: Path) -> None:
    file = tmp_path / "old.tar"
    _old_archive(file, layers=[b"one" * 1000], tags=None, **{"0/layer.tar": b"two" * 1000})
    with pytest.raises(DigestMismatch):
        copy(around, f"docker-archive:{file}", "local:bad:1")
    assert not around.store.entries()


def test_a_layout_of_several_images(
    around: Surroundings, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    for tag in ("1", "2"):
        registry.push_image(repository, tag, tag.encode())
        copy(around, f"{registry.host}/{repository}:{tag}", f"oci:{tmp_path}/layout:{tag}")
    with pytest.raises(Ambiguous, match="has several images: 1, 2"):
        copy(around, f"oci:{tmp_path}/layout", "local:x:1")
    with pytest.raises(NotFound, match="has no image 3"):
        copy(around, f"oci:{tmp_path}/layout:3", "local:x:1")


def test_what_cosign_attached_is_no_image_of_a_layout(
    around: Surroundings, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    digest = registry.push_image(repository, "1")
    for suffix in (".sig", ".att", ".sbom"):
        registry.push_image(repository, f"sha256-{digest.encoded}{suffix}", suffix.encode())
    copy(around, f"{registry.host}/{repository}:1", f"oci:{tmp_path}/layout", referrers=True)
    made = copy(around, f"oci:{tmp_path}/layout", "local:signed:1", referrers=True)
    assert made.images[0].digest == digest
    assert len(made.images) == 4
    every = copy(
        around, f"{registry.host}/{repository}", f"oci:{tmp_path}/every", all_tags=True, referrers=True
    )
    assert len(every.images) == len({image.name for image in every.images}) == 4


def test_a_layout_whose_bytes_are_damaged(
    around: Surroundings, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    registry.push_image(repository, "1", BIG)
    copy(around, f"{registry.host}/{repository}:1", f"oci:{tmp_path}/layout:1")
    blob = tmp_path / "layout/blobs/sha256" / Digest.of(BIG).encoded
    blob.chmod(0o644)
    blob.write_bytes(b"y" * len(BIG))
    for target in (f"{registry.host}/{repository}/damaged:1", f"oci-archive:{tmp_path}/a.tar", "local:x:1"):
        with pytest.raises(DigestMismatch):
            copy(around, f"oci:{tmp_path}/layout:1", target)
    assert not (tmp_path / "a.tar").exists()
    assert registry.request("GET", f"/v2/{repository}/damaged/manifests/1").status == 404
    assert not around.store.entries()
    blob.unlink()
    blob.symlink_to("/etc/passwd")
    with pytest.raises(DigestryError):
        copy(around, f"oci:{tmp_path}/layout:1", "local:x:1")


@pytest.mark.parametrize("text", ["oci:", "dokcer://x", "docker-archive:", "local:", "docker-daemon:[x]y"])
def test_names_of_no_place(around: Surroundings, text: str) -> None:
    with pytest.raises(CallerError):
        parse_location(text, around.read)


def test_an_artifact_is_not_for_an_engine(
    around: Surroundings, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    config = registry.push_blob(repository, b"{}")
    body = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "artifactType": "a/thing",
            "config": descriptor(media_types.OCI_EMPTY, config, 2),
            "layers": [],
        }
    ).encode()
    registry.push_manifest(repository, "1", body)
    with pytest.raises(InvalidManifest, match="is an artifact"):
        copy(around, f"{registry.host}/{repository}:1", f"docker-archive:{tmp_path}/a.tar")
    assert not list(tmp_path.glob("*.tar"))


def test_a_file_with_more_names_than_anybody_gives(tmp_path: Path) -> None:
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": []}}).encode()
    listed = [{"Config": "c.json", "RepoTags": [f"app:{n}" for n in range(10_001)], "Layers": []}]
    path = tmp_path / "saved.tar"
    with tarfile.open(path, "w") as archive:
        for name, content in (("manifest.json", json.dumps(listed).encode()), ("c.json", config)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    environment = dict(os.environ, DIGESTRY_HOME=str(tmp_path / "home"))
    done = run_digestry("load", "-i", path, env=environment)
    assert done.returncode == 2
    assert "more than 10000 names of images" in done.stderr
    assert not list((tmp_path / "home").rglob("blobs/*/*"))
