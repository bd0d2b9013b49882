"""What people may write for an image of the local store: all that is listed, and digests as printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from digestry.errors import Ambiguous, InvalidReference, NotFound
from digestry.images.layout import INDEX_FILE, NAME
from digestry.images.listing import StoredImage, list_images
from digestry.images.name_lookup import look_up, removable
from digestry.images.removal import remove_images
from digestry.images.store import ImageStore
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import encode
from digestry.model.reference import Reference
from tests.images.making import HOST, OTHER, index_of, packed
from tests.images.test_store import put_index

HERE = "h.example:5000/app"


def read(text: str) -> Reference:
    return Reference.parse(text, default_host="h.example:5000")


def written_by_others(store: ImageStore, descriptor: Descriptor, *names: str | None) -> None:
    """Adds names to the index as other tools do; None is an entry that has none."""
    index = store.root / INDEX_FILE
    document = json.loads(index.read_text())
    for name in names:
        entry = {
            "mediaType": descriptor.media_type,
            "digest": str(descriptor.digest),
            "size": descriptor.size,
        }
        document["manifests"].append(entry if name is None else {**entry, "annotations": {NAME: name}})
    index.write_text(json.dumps(document))


@pytest.mark.parametrize("name", ["other:2", "1.0", "Upper Case", "h.example:5000/app/", "a@b", "…"])
def test_a_name_as_it_is_listed(store: ImageStore, tmp_path: Path, name: str) -> None:
    made = packed(store, tmp_path / "a", f"{HERE}:1")
    written_by_others(store, made.manifest, name)
    listed = [row.name for row in list_images(store) if isinstance(row, StoredImage) and row.tag is None]
    assert listed == [name]
    assert look_up(store, name, read).descriptor == made.manifest
    assert remove_images(store, [removable(store, name, read)]).names == (name,)
    assert store.find(read("app:1")) == made.manifest
    with pytest.raises((NotFound, InvalidReference)):
        look_up(store, name, read)


def test_a_listed_name_is_itself_before_it_is_short_for_another(store: ImageStore, tmp_path: Path) -> None:
    full = packed(store, tmp_path / "a", f"{HERE}:1", file="one")
    other = packed(store, tmp_path / "b", f"{HERE}:2", file="two")
    written_by_others(store, other.manifest, "app:1")
    assert look_up(store, "app:1", read).descriptor == other.manifest
    assert look_up(store, f"{HERE}:1", read).descriptor == full.manifest


def test_the_beginning_of_a_digest_or_image_id(store: ImageStore, tmp_path: Path) -> None:
    made = packed(store, tmp_path / "a", f"{HERE}:1", file="one")
    other = packed(store, tmp_path / "b", f"{HERE}:2", file="two")
    whole = read("app").with_digest(made.manifest.digest)
    for digest in (made.manifest.digest, made.config.digest):
        for text in (digest.encoded[:7], digest.short, f"sha256:{digest.short}", str(digest)):
            for name in (text, f"app@{text}"):
                found = look_up(store, name, read)
                assert (found.descriptor, found.reference) == (made.manifest, whole), name
    assert look_up(store, f"app:9@{made.manifest.digest.short}", read).reference == Reference(
        whole.host, "app", "9", made.manifest.digest
    )
    for text in ("abcdef", "0000000", f"other@{other.manifest.digest.short}"):
        with pytest.raises(NotFound):
            look_up(store, text, read)
    with pytest.raises(NotFound, match="other in the local store begins with"):
        look_up(store, f"other@{other.manifest.digest.short}", read)


def test_a_digest_alone_stands_for_all_its_names(store: ImageStore, tmp_path: Path) -> None:
    made = packed(store, tmp_path / "a", f"{HERE}:1")
    kept = packed(store, tmp_path / "b", f"{HERE}:2", file="two")
    store.tag(read("app:1"), read("else:1"))
    written_by_others(store, made.manifest, "other:2", None)
    assert look_up(store, made.manifest.digest.short, read).reference is None, "nobody knows which repository"
    removal = remove_images(store, [removable(store, made.config.digest.short, read)])
    assert {f"{HERE}:1", "h.example:5000/else:1", "other:2", str(made.manifest.digest)} <= set(removal.names)
    assert made.manifest.digest in removal.deleted
    assert [row.digest for row in list_images(store)] == [kept.manifest.digest]


def test_one_platform_of_an_index(store: ImageStore, tmp_path: Path) -> None:
    one = packed(store, tmp_path / "a", f"{HERE}:one", platform=HOST)
    two = packed(store, tmp_path / "b", f"{HERE}:two", platform=OTHER, file="two")
    index = put_index(store, index_of((one.manifest, HOST), (two.manifest, OTHER)), f"{HERE}:all")
    remove_images(store, [read("app:one"), read("app:two")])
    child = one.manifest.digest
    assert look_up(store, f"app@{child.short}", read).descriptor.digest == child
    with pytest.raises(NotFound, match="has no name of its own: it is a part of") as caught:
        removable(store, child.short, read)
    assert "digestry rmi h.example:5000/app:all" in caught.value.hint
    assert look_up(store, one.config.digest.short, read).descriptor.digest == index.digest
    remove_images(store, [removable(store, one.config.digest.short, read)])
    assert list_images(store) == []


def test_what_begins_two_images(store: ImageStore, tmp_path: Path) -> None:
    made = packed(store, tmp_path / "a", f"{HERE}:1")
    document = json.loads(store.blobs.read(made.manifest.digest))
    seen: dict[str, bytes] = {}
    for number in range(1_000_000):
        raw = encode({**document, "annotations": {"number": str(number)}})
        start = Digest.of(raw).encoded[:7]
        if start in seen and seen[start] != raw:
            break
        seen[start] = raw
    for tag, one in (("x", raw), ("y", seen[start])):
        with store.adding():
            descriptor = Descriptor(media_types.OCI_MANIFEST, store.blobs.put(one), len(one))
            store.point(read(f"app:{tag}"), descriptor)
    for look in (look_up, removable):
        with pytest.raises(Ambiguous) as caught:
            look(store, start, read)
        assert str(Digest.of(raw)) in caught.value.message
        assert str(Digest.of(seen[start])) in caught.value.message
    # One config that two manifests have is one image ID: to be removed by, and not to be pulled apart by.
    with pytest.raises(Ambiguous):
        look_up(store, made.config.digest.short, read)
    assert len(remove_images(store, [removable(store, made.config.digest.short, read)]).deleted) == 5
