"""Images that are legal and rare go through every place that can hold them, and keep their digests."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from digestry.copy.places import Surroundings
from digestry.errors import (
    Ambiguous,
    ContentError,
    DigestryError,
    InvalidConfiguration,
    InvalidManifest,
    NotFound,
)
from digestry.images.validation import content_of, validate
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.copy.test_copy import copy, write_tar
from tests.images.making import HOST, OTHER
from tests.support import RegistryServer

Entry = dict[str, Any]
_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_IN_TOTO = "application/vnd.in-toto+json"


class LayoutDirectory:
    """An OCI layout that is put together blob by blob."""

    def __init__(self, path: Path, algorithm: str = "sha256") -> None:
        self.path = path
        self.algorithm = algorithm
        self.entries: list[Entry] = []
        path.mkdir()
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def blob(self, content: bytes, media_type: str = media_types.OCI_LAYER, **more: Any) -> Entry:
        """Adds a blob, and returns its descriptor."""
        encoded = hashlib.new(self.algorithm, content).hexdigest()
        file = self.path / "blobs" / self.algorithm / encoded
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return {
            "mediaType": media_type,
            "digest": f"{self.algorithm}:{encoded}",
            "size": len(content),
            **more,
        }

    def image(self, *layers: bytes, architecture: str = HOST.architecture, **more: Any) -> Entry:
        """Adds an image with these layers."""
        config = {
            "os": HOST.os,
            "architecture": architecture,
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers],
            },
        }
        document = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": self.blob(json.dumps(config).encode(), media_types.OCI_CONFIG),
            "layers": [self.blob(layer) for layer in layers],
            **more,
        }
        return self.blob(json.dumps(document).encode(), media_types.OCI_MANIFEST)

    def index(self, *entries: Entry) -> Entry:
        document = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}
        return self.blob(json.dumps(document).encode(), media_types.OCI_INDEX)

    def remove(self, entry: Entry) -> None:
        algorithm, _, encoded = entry["digest"].partition(":")
        (self.path / "blobs" / algorithm / encoded).unlink()

    def name(self, entry: Entry, name: str = "1", **annotations: str) -> None:
        """Lists an entry in ``index.json``, under a name."""
        self.list({**entry, "annotations": {"org.opencontainers.image.ref.name": name, **annotations}})

    def list(self, entry: Entry) -> None:
        self.entries.append(entry)
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.entries}))


def on(entry: Entry, architecture: str) -> Entry:
    return {**entry, "platform": {"os": HOST.os, "architecture": architecture}}


def many_layers(layout: LayoutDirectory) -> None:
    layout.name(layout.image(*(b"layer %d" % number for number in range(127))))


def no_layers(layout: LayoutDirectory) -> None:
    layout.name(layout.image())


def the_same_layer_again(layout: LayoutDirectory) -> None:
    layout.name(layout.image(b"one", b"one", b"one"))


def an_empty_layer(layout: LayoutDirectory) -> None:
    layout.name(layout.image(b"", b"one"))


def no_media_type(layout: LayoutDirectory) -> None:
    image = layout.image(b"one")
    document = json.loads((layout.path / "blobs/sha256" / image["digest"][7:]).read_bytes())
    layout.remove(image)
    del document["mediaType"]
    layout.name(layout.blob(json.dumps(document).encode(), media_types.OCI_MANIFEST))


def unknown_fields(layout: LayoutDirectory) -> None:
    layout.name(layout.image(b"one", annotations={"key": "é\u202e"}, x_unknown=[1, None, {"a": 0.5}]))


def sha512(layout: LayoutDirectory) -> None:
    layout.algorithm = "sha512"
    layout.name(layout.image(b"one", b"two"))


def full_names(layout: LayoutDirectory) -> None:
    name = "docker.io/library/app:1"
    layout.name(layout.image(b"one"), "1", **{"io.containerd.image.name": name})


IMAGES = [
    many_layers, no_layers, the_same_layer_again, an_empty_layer, no_media_type, unknown_fields, sha512,
    full_names,
]  # fmt: skip


def attestations(layout: LayoutDirectory) -> None:
    """As buildkit makes them: of a platform that is none, about another entry."""
    image = layout.image(b"one")
    statement = layout.blob(b'{"_type": "https://in-toto.io/Statement/v0.1"}', _IN_TOTO)
    attestation = layout.image(layers=[statement])
    about = {
        "vnd.docker.reference.digest": image["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    }
    unknown = {"os": "unknown", "architecture": "unknown"}
    layout.name(
        layout.index(
            on(image, HOST.architecture),
            on(layout.image(b"two", architecture=OTHER.architecture), OTHER.architecture),
            {**attestation, "platform": unknown, "annotations": about},
        )
    )


def an_index_in_an_index(layout: LayoutDirectory) -> None:
    inner = layout.index(on(layout.image(b"two", architecture=OTHER.architecture), OTHER.architecture))
    layout.name(layout.index(on(layout.image(b"one"), HOST.architecture), inner))


def an_artifact(layout: LayoutDirectory) -> None:
    empty = layout.blob(b"{}", media_types.OCI_EMPTY, data="e30=")
    file = layout.blob(b"hello", "text/plain", annotations={"org.opencontainers.image.title": "hello.txt"})
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": "application/x.sbom",
        "config": empty,
        "layers": [file],
    }
    layout.name(layout.blob(json.dumps(document).encode(), media_types.OCI_MANIFEST))


def a_layer_elsewhere(layout: LayoutDirectory) -> None:
    layer = {**layout.blob(b"licensed", _FOREIGN), "urls": ["https://licensed.example/layer"]}
    layout.remove(layer)
    layout.name(layout.image(layers=[layer]))


OTHERS = [attestations, an_index_in_an_index, an_artifact, a_layer_elsewhere]
Make = Callable[[LayoutDirectory], None]


def called(make: Make) -> str:
    return make.__name__


@pytest.mark.long
@pytest.mark.parametrize("make", [*IMAGES, *OTHERS], ids=called)
def test_a_digest_stays(
    around: Surroundings, registry: RegistryServer, repository: str, tmp_path: Path, make: Make
) -> None:
    layout = LayoutDirectory(tmp_path / "made")
    make(layout)
    wanted = Digest.parse(layout.entries[0]["digest"])
    base = f"{registry.host}/{repository}"
    name = "docker.io/library/app:1" if make is full_names else "1"
    places = [
        f"oci:{layout.path}:{name}", f"{base}/a:1", f"oci:{tmp_path}/written:1", f"{base}/b:1",
        f"oci-archive:{tmp_path}/written.tar:1", f"{base}/c:1", f"local:{base}/here:1", f"{base}/d:1",
    ]  # fmt: skip
    if make in IMAGES:
        places += [f"docker-archive:{tmp_path}/saved.tar:{base}/saved:1", f"{base}/e:1"]
    for source, target in pairwise(places):
        assert copy(around, source, target).images[0].digest == wanted, target
    last = places[-1].rpartition("/")[2].removesuffix(":1")
    assert registry.request("GET", f"/v2/{repository}/{last}/manifests/{wanted}").status == 200


def test_a_file_for_docker_lacks_nothing(around: Surroundings, tmp_path: Path) -> None:
    layout = LayoutDirectory(tmp_path / "made")
    a_layer_elsewhere(layout)
    with pytest.raises(InvalidManifest, match="kept elsewhere by its licence"):
        copy(around, f"oci:{layout.path}:1", f"docker-archive:{tmp_path}/saved.tar:app:1")
    assert not (tmp_path / "saved.tar").exists()


def test_an_index_takes_the_blobs_along_that_it_lists(
    around: Surroundings, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    """BuildKit's caches list layers in an index, and a config of their own."""
    layout = LayoutDirectory(tmp_path / "made")
    contents = {b"a layer": media_types.OCI_LAYER_GZIP, b"{}": "application/vnd.buildkit.cacheconfig.v0"}
    listed = [layout.blob(content, kind) for content, kind in contents.items()]
    gone = layout.blob(b"gone", "application/vnd.example.other")
    layout.name(layout.index(*listed))
    layout.name(layout.index(*listed, gone), "incomplete")
    layout.remove(gone)
    base = f"{registry.host}/{repository}"
    for source, target in pairwise(
        (f"oci:{layout.path}:1", f"{base}/a:1", f"{base}/b:1", f"oci:{tmp_path}/b:1")
    ):
        made = copy(around, source, target)
        assert str(made.images[0].digest) == layout.entries[0]["digest"]
        assert not made.skipped
    for entry in listed:
        assert (tmp_path / "b/blobs/sha256" / entry["digest"].partition(":")[2]).exists()
        assert registry.request("HEAD", f"/v2/{repository}/b/blobs/{entry['digest']}").status == 200
    remote = around.session.repository(Reference.parse(f"{base}/b"))
    checked = validate(content_of(remote), remote.resolve("1"))
    assert (checked.problems, checked.not_checked, checked.blobs) == ([], [], len(listed))
    some = copy(around, f"oci:{layout.path}:incomplete", f"oci:{tmp_path}/some:1")
    assert [str(one.descriptor.digest) for one in some.skipped] == [gone["digest"]]
    with pytest.raises(DigestryError, match=gone["digest"]):
        copy(around, f"oci:{layout.path}:incomplete", f"{base}/c:1")


def sparse(layout: LayoutDirectory) -> None:
    absent = layout.image(b"two", architecture=OTHER.architecture)
    layout.name(layout.index(on(layout.image(b"one"), HOST.architecture), on(absent, OTHER.architecture)))
    layout.remove(absent)


def lacking(layout: LayoutDirectory) -> None:
    layout.name(layout.image(b"one", b"two"))
    layout.remove(layout.blob(b"two"))


def schema_1(layout: LayoutDirectory) -> None:
    document = {
        "schemaVersion": 1,
        "name": "app",
        "tag": "1",
        "fsLayers": [],
        "history": [],
        "signatures": [],
    }
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    layout.name(layout.blob(json.dumps(document).encode(), kind))


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (sparse, NotFound, f"lists {OTHER.os}/{OTHER.architecture}, which is neither in"),
        (lacking, DigestryError, "a part of the image, is not in"),
        (schema_1, ContentError, "schema 1"),
    ],
    ids=["sparse", "lacking", "schema 1"],
)
def test_what_is_not_whole_or_not_known_is_said(
    *,
    around: Surroundings,
    registry: RegistryServer,
    repository: str,
    tmp_path: Path,
    make: Make,
    error: type[DigestryError],
    says: str,
) -> None:
    layout = LayoutDirectory(tmp_path / "made")
    make(layout)
    with pytest.raises(error, match=says) as refused:
        copy(around, f"oci:{layout.path}:1", f"{registry.host}/{repository}:1")
    if make is sparse:
        assert refused.value.hint.endswith(f"--platform {HOST.os}/{HOST.architecture}")
    assert registry.request("GET", f"/v2/{repository}/manifests/1").status == 404


def saved(path: Path, *names: str) -> None:
    """A file of `docker save` of an old engine, with one image for each name."""
    files: dict[str, bytes] = {}
    listed = []
    for number, name in enumerate(names):
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            archive.addfile(tarfile.TarInfo(f"file-{number}"))
        layer = tar.getvalue()
        config = json.dumps({
            "os": HOST.os,
            "architecture": HOST.architecture,
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer))]},
        }).encode()  # fmt: skip
        files |= {f"{number}.json": config, f"{number}/layer.tar": layer}
        listed.append({"Config": f"{number}.json", "RepoTags": [name], "Layers": [f"{number}/layer.tar"]})
    write_tar(path, {**files, "manifest.json": json.dumps(listed).encode()})


def test_images_of_several_repositories_keep_their_names(
    around: Surroundings, registry: RegistryServer, repository: str, tmp_path: Path
) -> None:
    names = ("docker.io/team/one:1", "docker.io/team/two:1", "docker.io/team/two:2")
    saved(tmp_path / "saved.tar", *names)
    made = copy(around, f"docker-archive:{tmp_path}/saved.tar", f"oci:{tmp_path}/layout", all_tags=True)
    assert [image.name for image in made.images] == list(names)
    assert len({image.digest for image in made.images}) == 3
    again = copy(
        around, f"docker-archive:{tmp_path}/saved.tar", f"docker-archive:{tmp_path}/b.tar", all_tags=True
    )
    assert [image.name for image in again.images] == list(names)
    with pytest.raises(InvalidConfiguration, match="several repositories with the same tag"):
        copy(around, f"docker-archive:{tmp_path}/saved.tar", f"{registry.host}/{repository}", all_tags=True)
    one = copy(around, f"oci:{tmp_path}/layout:{names[1]}", f"{registry.host}/{repository}:two")
    assert one.images[0].digest == made.images[1].digest


def test_names_in_engines_are_dockers(around: Surroundings, tmp_path: Path) -> None:
    """Whatever registry is meant by a name without a host elsewhere."""
    saved(tmp_path / "saved.tar", "app:1")
    elsewhere = Surroundings(
        around.session,
        around.store,
        around.scratch,
        lambda text: Reference.parse(text, default_host="here:1"),
    )
    made = copy(
        elsewhere, f"docker-archive:{tmp_path}/saved.tar:app:1", f"docker-archive:{tmp_path}/b.tar:other:2"
    )
    assert made.images[0].name == "docker.io/library/other:2"


def test_a_name_that_two_images_of_a_layout_have_is_ambiguous(tmp_path: Path, around: Surroundings) -> None:
    layout = LayoutDirectory(tmp_path / "layout")
    first, second = layout.image(b"one"), layout.image(b"two")
    for image, name in ((first, "reg.example/app:1"), (second, "reg.example/other:1")):
        layout.name(image, "1", **{"io.containerd.image.name": name})
    with pytest.raises(Ambiguous, match=r"several images 1: reg\.example/app:1, reg\.example/other:1"):
        copy(around, f"oci:{layout.path}:1", f"oci:{tmp_path / 'out'}:1")
    copy(around, f"oci:{layout.path}:reg.example/other:1", f"oci:{tmp_path / 'out'}:1")
    (entry,) = json.loads((tmp_path / "out" / "index.json").read_bytes())["manifests"]
    assert entry["digest"] == second["digest"]


def test_a_name_that_is_listed_twice_for_one_image_is_its_name(tmp_path: Path, around: Surroundings) -> None:
    layout = LayoutDirectory(tmp_path / "layout")
    image = layout.image(b"one")
    layout.name(image)
    layout.name(image)
    copy(around, f"oci:{layout.path}:1", f"oci:{tmp_path / 'out'}:1")
    (entry,) = json.loads((tmp_path / "out" / "index.json").read_bytes())["manifests"]
    assert entry["digest"] == image["digest"]
