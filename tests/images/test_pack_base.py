"""Images that are packed upon others, and indexes of packed images."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from digestry.errors import ContentError, InvalidConfiguration, NotFound
from digestry.images.local_store import LocalStore
from digestry.images.pack import Packed, pack, pack_index
from digestry.images.recipe import BASE_DIGEST, BASE_NAME, BaseImage, Recipe
from digestry.images.store import ImageStore
from digestry.images.unpack import unpack
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.image_config import ImageConfig
from digestry.model.manifest import Image, Index
from digestry.model.platform import Platform
from tests.images.making import Item, archive, tree

AMD64, ARM64 = Platform("amd64", "linux"), Platform("arm64", "linux")


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    store = ImageStore(tmp_path / "store")
    store.blobs.prepare()
    return store


def docker_base(store: ImageStore, layer: bytes, **config: Any) -> BaseImage:
    """A base as ``docker build`` pushes it, with ``config`` in its config beside what must be there."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "container": "f00",
        "x-unknown": {"kept": True},
        "config": {"Env": ["PATH=/bin", "A=1"], "Cmd": ["sh"], "Labels": {"of": "base"}, "X-Unknown": 1},
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer))]},
        "history": [{"created_by": "ADD"}, {"created_by": "CMD", "empty_layer": True, "x-kept": 1}],
        **config,
    }
    parts = {
        "config": (media_types.DOCKER_CONFIG, json.dumps(document).encode()),
        "layer": (media_types.DOCKER_LAYER, layer),
    }
    config_, layer_ = (
        {"mediaType": kind, "digest": str(store.blobs.put(raw)), "size": len(raw)}
        for kind, raw in parts.values()
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_types.DOCKER_MANIFEST,
        "config": config_,
        "layers": [{**layer_, "annotations": {"a": "b"}}],
        "annotations": {"org.opencontainers.image.title": "the base"},
    }
    image = Image.parse(json.dumps(manifest).encode())
    store.blobs.put(image.raw)
    return BaseImage("example.com/base:1", image, store.config(image))


def documents(store: ImageStore, made: Packed) -> tuple[dict[str, Any], dict[str, Any]]:
    return (
        json.loads(store.blobs.read(made.manifest.digest)),
        json.loads(store.blobs.read(made.config.digest)),
    )


def test_layers_and_config_of_the_base_stay(store: ImageStore, tmp_path: Path) -> None:
    below = archive([Item("etc/old", b"old"), Item("etc/gone", b"x")])
    base = docker_base(store, below)
    recipe = Recipe(AMD64, environment=("A=2", "B=3"), labels=(("mine", "1"),), annotations=(("k", "v"),))
    upper = io.BytesIO(archive([Item("etc/new", b"new"), Item("etc/.wh.gone")]))
    made = pack(upper, recipe, store.blobs, base=base)
    manifest, config = documents(store, made)
    assert manifest["mediaType"] == media_types.OCI_MANIFEST
    assert manifest["layers"][0] == {
        "mediaType": media_types.OCI_LAYER,
        "digest": str(Digest.of(below)),
        "size": len(below),
        "annotations": {"a": "b"},
    }
    assert manifest["layers"][1]["digest"] == str(made.layer.digest)
    assert manifest["annotations"] == {
        "k": "v",
        BASE_NAME: "example.com/base:1",
        BASE_DIGEST: str(base.image.digest),
    }
    assert config["config"] == {
        "Env": ["PATH=/bin", "A=2", "B=3"],
        "Cmd": ["sh"],
        "Labels": {"mine": "1", "of": "base"},
        "X-Unknown": 1,
    }
    assert config["x-unknown"] == {"kept": True}
    assert "container" not in config
    assert config["rootfs"]["diff_ids"] == [str(Digest.of(below)), str(Digest.of(upper.getvalue()))]
    assert config["history"] == [
        {"created_by": "ADD"},
        {"created_by": "CMD", "empty_layer": True, "x-kept": 1},
        {"created": "1970-01-01T00:00:00Z", "created_by": "digestry pack"},
    ]
    unpack(store, store.image(made.manifest), tmp_path / "root")
    assert sorted(path.name for path in (tmp_path / "root/etc").iterdir()) == ["new", "old"]


def test_an_entrypoint_takes_the_arguments_of_the_base_away(store: ImageStore, tmp_path: Path) -> None:
    base = docker_base(store, archive([]))
    root = tree(tmp_path / "root")
    made = pack(root, Recipe(AMD64, entrypoint=("/app",)), store.blobs, base=base)
    assert "Cmd" not in documents(store, made)[1]["config"]
    made = pack(root, Recipe(AMD64, command=("top",)), store.blobs, base=base)
    assert documents(store, made)[1]["config"]["Cmd"] == ["top"]


@pytest.mark.parametrize("history", [None, [], [{"created_by": "one"}, {"created_by": "two"}]])
def test_a_history_that_does_not_fit_the_layers(store: ImageStore, tmp_path: Path, history: Any) -> None:
    """A history of the new layer alone would be taken for that of the base's."""
    base = docker_base(store, archive([]), history=history)
    made = pack(tree(tmp_path / "root"), Recipe(AMD64), store.blobs, base=base)
    steps = ImageConfig.parse(store.blobs.read(made.config.digest)).history
    assert [step.created_by for step in steps] == ["unknown", "digestry pack"]


def test_bases_that_cannot_be(store: ImageStore, tmp_path: Path) -> None:
    root = tree(tmp_path / "root")
    base = docker_base(store, archive([]))
    with pytest.raises(InvalidConfiguration, match="is for linux/amd64, not for linux/arm64"):
        pack(root, Recipe(ARM64), store.blobs, base=base)
    damaged = docker_base(store, archive([]), rootfs={"type": "layers", "diff_ids": []})
    with pytest.raises(ContentError, match="has 1 layers, but its config 0"):
        pack(root, Recipe(AMD64), store.blobs, base=damaged)
    raw = json.loads(base.image.raw) | {"mediaType": media_types.OCI_MANIFEST}
    raw["config"]["mediaType"] = "application/vnd.example+json"
    artifact = BaseImage("", Image.parse(json.dumps(raw).encode()), base.config)
    with pytest.raises(InvalidConfiguration, match="is an artifact"):
        pack(root, Recipe(AMD64), store.blobs, base=artifact)


def test_a_base_of_the_local_store(tmp_path: Path) -> None:
    with LocalStore(tmp_path / "store") as store:
        store.pack(tree(tmp_path / "one", a="1"), "base:1", recipe=Recipe(AMD64, user="7"))
        store.pack(tree(tmp_path / "two", b="2"), "app:1", recipe=Recipe(AMD64), base="base:1")
        image = store.image("app:1", platform=AMD64)
        assert len(image.layers) == 2
        assert store.config(image).settings["User"] == "7"
        assert image.annotations[BASE_DIGEST] == str(store.resolve("base:1").digest)
        store.unpack("app:1", tmp_path / "out", platform=AMD64)
        assert [(tmp_path / "out" / name).read_text() for name in "ab"] == ["1", "2"]
        ImageStore(tmp_path / "store").blobs.delete(image.layers[0].digest)
        with pytest.raises(NotFound, match="a layer of"):
            store.pack(tmp_path / "two", "app:2", recipe=Recipe(AMD64), base="base:1")


def test_indexes(store: ImageStore, tmp_path: Path) -> None:
    def read(blob: Descriptor) -> bytes:
        return store.blobs.read(blob.digest)

    def platforms(made: Descriptor) -> dict[str, Digest]:
        index = Index.parse(read(made))
        return {str(entry.platform): entry.digest for entry in index.manifests}

    one, two, three = (
        pack(tree(tmp_path / name, file=name), Recipe(platform), store.blobs)
        for name, platform in (("one", AMD64), ("two", ARM64), ("three", ARM64))
    )
    both = pack_index([one, two], store.blobs, read)
    assert platforms(both) == {"linux/amd64": one.manifest.digest, "linux/arm64": two.manifest.digest}
    assert pack_index([one, two], store.blobs, read) == both
    changed = pack_index([three], store.blobs, read, old=Index.parse(read(both)))
    assert platforms(changed) == {"linux/amd64": one.manifest.digest, "linux/arm64": three.manifest.digest}
    with pytest.raises(InvalidConfiguration, match="linux/arm64 is there twice"):
        pack_index([two, three], store.blobs, read)


def test_an_archive_in_a_file(store: ImageStore, tmp_path: Path) -> None:
    content = archive([Item("bin/su", b"#!", mode=0o4755)])
    (tmp_path / "root.tar").write_bytes(content)
    made = pack(tmp_path / "root.tar", Recipe(AMD64, compression="none"), store.blobs)
    assert made.entries == 1
    assert store.blobs.read(made.layer.digest) == content
    with tarfile.open(fileobj=io.BytesIO(content)) as file:
        assert file.getmember("bin/su").mode == 0o4755


def test_nothing_is_kept_of_an_archive_that_is_refused(store: ImageStore) -> None:
    with pytest.raises(ContentError, match="standard input cannot be a layer"):
        pack(io.BytesIO(archive([Item("../x", b"x")])), Recipe(AMD64), store.blobs)
    assert list(store.blobs.digests()) == []
    assert list(store.blobs.ingests()) == []
