"""The local store: names, listing, removal, and that other tools and other processes are safe."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

import pytest

from digestry.blobs.protocols import FullSpeed
from digestry.errors import ContentError, DigestMismatch, NotFound
from digestry.images.listing import DamagedImage, StoredImage, list_images
from digestry.images.removal import remove_images
from digestry.images.store import ImageStore
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.images.making import HOST, OTHER, index_of, packed
from tests.stores import blob_file
from tests.support import program

NAME = "h.example:5000/app"
ONE = Reference.parse(f"{NAME}:1")


def images(store: ImageStore) -> list[StoredImage]:
    found = list_images(store)
    assert not any(isinstance(row, DamagedImage) for row in found), found
    return [row for row in found if isinstance(row, StoredImage)]


def lines(store: ImageStore) -> list[tuple[str, str | None, Digest]]:
    return [(row.name, row.tag, row.digest) for row in images(store)]


def put_index(store: ImageStore, raw: bytes, name: str) -> Descriptor:
    with store.adding():
        descriptor = Descriptor(media_types.OCI_INDEX, store.blobs.put(raw), len(raw))
        store.point(Reference.parse(name), descriptor)
    return descriptor


def test_nothing(store: ImageStore) -> None:
    assert list_images(store) == []
    with pytest.raises(NotFound, match="not in the local store") as caught:
        store.find(ONE)
    assert "digestry pull" in caught.value.hint
    assert not store.root.exists(), "looking makes nothing"


def test_names(store: ImageStore, tmp_path: Path) -> None:
    made = packed(store, tmp_path / "a", f"{NAME}:1", file="one")
    assert store.find(ONE) == made.manifest
    assert store.find(ONE.with_digest(made.manifest.digest)) == made.manifest
    assert lines(store) == [(NAME, "1", made.manifest.digest)]
    (image,) = images(store)
    assert image.image_id == made.config.digest
    assert image.size == made.config.size + made.layer.size
    assert image.created == "1970-01-01T00:00:00Z"
    assert image.platforms == (str(HOST),)
    with pytest.raises(NotFound):
        store.find(Reference.parse(f"{NAME}2:1"))
    with pytest.raises(NotFound):
        store.find(Reference.parse("other.example/app").with_digest(made.manifest.digest))


def test_a_moved_tag_leaves_its_digest_listed(store: ImageStore, tmp_path: Path) -> None:
    old = packed(store, tmp_path / "a", f"{NAME}:1", file="one")
    new = packed(store, tmp_path / "b", f"{NAME}:1", file="two")
    assert sorted(lines(store), key=str) == sorted(
        [(NAME, "1", new.manifest.digest), (NAME, None, old.manifest.digest)], key=str
    )
    assert store.find(ONE.with_digest(old.manifest.digest)) == old.manifest


def test_tag(store: ImageStore, tmp_path: Path) -> None:
    made = packed(store, tmp_path / "a", f"{NAME}:1", file="one")
    other = Reference.parse("second.example/copy:2")
    assert store.tag(ONE, other) == (made.manifest, None)
    assert store.tag(ONE, other) == (made.manifest, made.manifest.digest)
    assert lines(store) == [(NAME, "1", made.manifest.digest), (other.name, "2", made.manifest.digest)]
    with pytest.raises(NotFound):
        store.tag(Reference.parse(f"{NAME}:9"), other)


def test_removal(store: ImageStore, tmp_path: Path) -> None:
    shared = packed(store, tmp_path / "a", f"{NAME}:1", file="one")
    store.tag(ONE, ONE.with_tag("2"))
    other = packed(store, tmp_path / "b", f"{NAME}:3", file="two")
    first = remove_images(store, [ONE])
    assert first.names == (str(ONE),)
    assert first.deleted == ()
    second = remove_images(store, [ONE.with_tag("2")])
    assert set(second.names) == {f"{NAME}:2", f"{NAME}@{shared.manifest.digest}"}
    assert set(second.deleted) == {shared.manifest.digest, shared.config.digest, shared.layer.digest}
    assert second.freed == shared.manifest.size + shared.config.size + shared.layer.size
    assert lines(store) == [(NAME, "3", other.manifest.digest)]
    third = remove_images(store, [ONE.with_digest(other.manifest.digest)])
    assert f"{NAME}:3" in third.names
    assert list(store.blobs.digests()) == []
    assert images(store) == []


def test_removal_is_all_or_nothing(store: ImageStore, tmp_path: Path) -> None:
    made = packed(store, tmp_path / "a", f"{NAME}:1", file="one")
    with pytest.raises(NotFound):
        remove_images(store, [ONE, ONE.with_tag("nope")])
    assert lines(store) == [(NAME, "1", made.manifest.digest)]
    assert remove_images(store, [ONE, ONE]).names


def test_content_that_another_image_has_stays(store: ImageStore, tmp_path: Path) -> None:
    packed(store, tmp_path / "a", f"{NAME}:1", file="same")
    other = packed(store, tmp_path / "a", f"{NAME}:2", platform=OTHER)
    removal = remove_images(store, [ONE])
    assert other.layer.digest not in removal.deleted
    assert len(removal.deleted) == 2
    assert store.blobs.verify(other.layer.digest, other.layer.size, FullSpeed()).problem is None


def test_no_sweep_while_somebody_brings_content_in(store: ImageStore, tmp_path: Path) -> None:
    packed(store, tmp_path / "a", f"{NAME}:1", file="one")
    with store.adding():
        orphan = store.blobs.put(b"pulled, and not named yet")
        removal = remove_images(store, [ONE])
        assert removal.deleted == ()
        assert "storing content" in removal.kept
    packed(store, tmp_path / "b", f"{NAME}:2", file="two")
    removal = remove_images(store, [ONE.with_tag("2")])
    assert orphan in removal.deleted
    assert list(store.blobs.digests()) == []


def test_doubt_ends_a_sweep(store: ImageStore, tmp_path: Path) -> None:
    packed(store, tmp_path / "a", f"{NAME}:1", file="one")
    damaged = packed(store, tmp_path / "b", f"{NAME}:2", file="two")
    blob_file(store.root, damaged.manifest.digest).write_bytes(b"{}")
    removal = remove_images(store, [ONE])
    assert removal.deleted == ()
    assert "damaged" in removal.kept
    assert store.blobs.stat(damaged.layer.digest) is not None


def test_an_index_keeps_its_bytes_and_lists_what_is_absent(store: ImageStore, tmp_path: Path) -> None:
    mine = packed(store, tmp_path / "a", f"{NAME}:child", file="one")
    absent = Descriptor(media_types.OCI_MANIFEST, Digest.of(b"absent"), 7)
    raw = index_of((mine.manifest, HOST), (absent, OTHER))
    descriptor = put_index(store, raw, f"{NAME}:multi")
    row = next(row for row in images(store) if row.tag == "multi")
    assert row.digest == Digest.of(raw)
    assert row.image_id == mine.config.digest
    assert row.platforms == (str(HOST),)
    assert row.absent == (str(OTHER),)
    assert store.image(descriptor).digest == mine.manifest.digest
    with pytest.raises(NotFound, match="was not pulled"):
        store.image(descriptor, OTHER)
    # The child is found in its repository, and held by the index alone.
    remove_images(store, [Reference.parse(f"{NAME}:child")])
    assert store.find(ONE.with_digest(mine.manifest.digest)).digest == mine.manifest.digest
    assert store.blobs.read(descriptor.digest) == raw


def test_damage_is_told_in_the_listing(store: ImageStore, tmp_path: Path) -> None:
    bad = packed(store, tmp_path / "a", f"{NAME}:1", file="one")
    packed(store, tmp_path / "b", f"{NAME}:2", file="two")
    blob_file(store.root, bad.manifest.digest).write_bytes(b"damaged")
    rows = list_images(store)
    assert [type(row) for row in rows] == [DamagedImage, StoredImage]
    assert isinstance(rows[0], DamagedImage)
    assert rows[0].name == f"{NAME}:1"
    assert "damaged" in rows[0].reason
    with pytest.raises(DigestMismatch, match="damaged"):
        store.manifest(bad.manifest)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"manifests": 1}',
        b'{"manifests": [1]}',
        b'{"manifests": [{"digest": "x"}]}',
        b"\xff",
    ],
)
def test_an_index_file_that_is_damaged(store: ImageStore, content: bytes) -> None:
    store.blobs.prepare()
    (store.root / "index.json").write_bytes(content)
    with pytest.raises(ContentError, match=r"index\.json") as caught:
        list_images(store)
    assert caught.value.hint
    with pytest.raises(ContentError), store.adding():
        store.point(ONE, Descriptor(media_types.OCI_MANIFEST, Digest.of(b""), 0))
    assert (store.root / "index.json").read_bytes() == content


def test_what_other_tools_wrote_survives(store: ImageStore, tmp_path: Path) -> None:
    made = packed(store, tmp_path / "a", f"{NAME}:1", file="one")
    path = store.root / "index.json"
    document = json.loads(path.read_bytes())
    document["x-tool"] = {"kept": True}
    document["manifests"][0]["annotations"]["x.tool"] = "kept"
    unnamed = {key: document["manifests"][0][key] for key in ("mediaType", "digest", "size")}
    short = {"org.opencontainers.image.ref.name": "latest"}
    document["manifests"] += [unnamed, {**unnamed, "annotations": short}]
    path.write_text(json.dumps(document))
    packed(store, tmp_path / "b", f"{NAME}:2", file="two")
    after = json.loads(path.read_bytes())
    assert after["x-tool"] == {"kept": True}
    assert after["manifests"][0]["annotations"]["x.tool"] == "kept"
    assert [(row.name, row.tag) for row in images(store)] == [
        (NAME, "1"),
        ("<none>", None),
        ("latest", None),
        (NAME, "2"),
    ]
    remove_images(store, [ONE])
    assert store.blobs.stat(made.manifest.digest) is not None, "the other tool's entry holds it"


def test_many_at_once(store: ImageStore, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            own = ImageStore(store.root)
            for turn in range(5):
                packed(own, tmp_path / f"r{number}", f"{NAME}:t{number}", file=f"{number} {turn}")
                remove_images(own, [ONE.with_tag(f"t{number}")])
                packed(own, tmp_path / f"r{number}", f"{NAME}:k{number}", file=f"{number}")
        except BaseException as error:  # noqa: BLE001 - told in the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    rows = images(store)
    assert {row.tag for row in rows} == {f"k{number}" for number in range(4)}
    for row in rows:
        manifest = store.manifest(Descriptor(row.media_type, row.digest, 0))
        for blob in manifest.blobs():
            assert store.blobs.verify(blob.digest, blob.size, FullSpeed()).problem is None


@pytest.mark.peer("skopeo")
def test_skopeo_reads_and_writes_it(store: ImageStore, tmp_path: Path) -> None:
    made = packed(store, tmp_path / "a", f"{NAME}:1", file="one")
    skopeo = program("skopeo")
    raw = subprocess.run(
        [skopeo, "inspect", "--raw", f"oci:{store.root}:{NAME}:1"], capture_output=True, check=True
    )
    assert Digest.of(raw.stdout) == made.manifest.digest
    subprocess.run(
        [skopeo, "copy", "-q", f"oci:{store.root}:{NAME}:1", f"oci:{store.root}:{NAME}:by-skopeo"], check=True
    )
    assert store.find(ONE.with_tag("by-skopeo")).digest == made.manifest.digest
    assert store.find(ONE) == made.manifest
