"""Unpacking: what layers may do, and what they must not."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import tarfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from digestry.errors import (
    Conflict,
    ContentError,
    DigestMismatch,
    DigestryError,
    InvalidConfiguration,
    TooLarge,
)
from digestry.images.export import export
from digestry.images.layer_stream import LayerStream
from digestry.images.limits import Limits
from digestry.images.store import ImageStore
from digestry.images.tar_reader import TarReader
from digestry.images.unpack import unpack
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.manifest import Image
from tests.images.making import Item, archive, image_of, of_blob, packed, tree
from tests.stores import blob_file

DIRECTORY, SYMLINK, HARD_LINK = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def listing(root: Path) -> dict[str, str]:
    """Every path, with its content, its link's target, or ``/``."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        found[name] = (
            f"-> {path.readlink()}" if path.is_symlink() else "/" if path.is_dir() else path.read_text()
        )
    return found


def unpacked(store: ImageStore, target: Path, *layers: list[Item]) -> dict[str, str]:
    unpack(store, image_of(store, *map(archive, layers)), target)
    return listing(target)


def test_what_was_packed_comes_back(store: ImageStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "link").symlink_to("bin/tool")
    long = "d" * 90 + "__" + "e" * 90
    tree(source, **{"bin__tool": "#!/bin/sh", long: "deep"})
    (source / "bin/tool").chmod(0o755)
    made = packed(store, source, "h.example/a:1")
    unpack(store, store.manifest(made.manifest), tmp_path / "out")
    assert listing(tmp_path / "out") == listing(source)
    assert os.access(tmp_path / "out/bin/tool", os.X_OK)
    assert (tmp_path / "out/bin/tool").stat().st_mtime == 0


@pytest.mark.parametrize(
    "kind",
    [
        media_types.OCI_LAYER,
        media_types.OCI_LAYER_GZIP,
        media_types.DOCKER_LAYER_GZIP,
        media_types.OCI_LAYER_ZSTD,
    ],
)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_formats(store: ImageStore, tmp_path: Path, kind: str, form: int) -> None:
    name = "p" * 90 + "/" + "q" * 90
    items = [Item(name, b"x" * 3_000_000), Item("s", kind=SYMLINK, link="p" * 90)]
    unpack(store, image_of(store, archive(items, form), kind=kind), tmp_path / "out")
    assert (tmp_path / "out" / name).read_bytes() == b"x" * 3_000_000


def test_an_artifact_is_told_as_one(store: ImageStore, tmp_path: Path) -> None:
    chart = json.loads(image_of(store, archive([])).raw)
    chart["config"] = {
        "mediaType": "application/vnd.cncf.helm.config.v1+json",
        "digest": str(store.blobs.put(b"{}")),
        "size": 2,
    }
    image = Image.parse(json.dumps(chart).encode())
    with pytest.raises(InvalidConfiguration, match="is an artifact, not a container's image"):
        unpack(store, image, tmp_path / "out")
    with pytest.raises(InvalidConfiguration, match="helm"):
        list(export(store, image))


def test_layers_over_layers(store: ImageStore, tmp_path: Path) -> None:
    found = unpacked(
        store,
        tmp_path / "out",
        [
            Item("keep", b"1"),
            Item("gone", b"1"),
            Item("changed", b"1"),
            Item("d/gone", b"1"),
            Item("d/keep", b"1"),
            Item("opaque/old", b"1"),
            Item("opaque/sub/old", b"1"),
            Item("becomes-file", kind=DIRECTORY),
            Item("becomes-file/x", b"1"),
            Item("becomes-directory", b"1"),
        ],
        [
            Item(".wh.gone"),
            Item("changed", b"2"),
            Item("d/.wh.gone"),
            Item("opaque/new", b"2"),
            Item("opaque/sub/new", b"2"),
            Item("opaque/.wh..wh..opq"),
            Item("becomes-file", b"2"),
            Item("becomes-directory", kind=DIRECTORY),
            Item("becomes-directory/y", b"2"),
            Item(".wh.never-there"),
        ],
    )
    assert found == {
        "keep": "1",
        "changed": "2",
        "d": "/",
        "d/keep": "1",
        "opaque": "/",
        "opaque/new": "2",
        "opaque/sub": "/",
        "opaque/sub/new": "2",
        "becomes-file": "2",
        "becomes-directory": "/",
        "becomes-directory/y": "2",
    }


def test_symlinks_are_followed_inside_the_root(store: ImageStore, tmp_path: Path) -> None:
    found = unpacked(
        store,
        tmp_path / "out",
        [
            Item("usr/bin", kind=DIRECTORY),
            Item("bin", kind=SYMLINK, link="usr/bin"),
            Item("absolute", kind=SYMLINK, link="/usr"),
            Item("usr/up", kind=SYMLINK, link="../usr/bin"),
        ],
        [Item("bin/sh", b"1"), Item("absolute/bin/ls", b"2"), Item("usr/up/cp", b"3"), Item("/usr/x", b"4")],
    )
    assert {k: v for k, v in found.items() if v in "1234"} == {
        "usr/bin/sh": "1",
        "usr/bin/ls": "2",
        "usr/bin/cp": "3",
        "usr/x": "4",
    }
    assert found["bin"] == "-> usr/bin"


def test_hard_links(store: ImageStore, tmp_path: Path) -> None:
    unpacked(
        store,
        tmp_path / "out",
        [Item("a", b"1"), Item("d/b", kind=HARD_LINK, link="/a"), Item("a", kind=HARD_LINK, link="d/b")],
    )
    assert (tmp_path / "out/a").stat().st_ino == (tmp_path / "out/d/b").stat().st_ino


def test_modes(store: ImageStore, tmp_path: Path) -> None:
    image = image_of(
        store,
        archive([Item("d", kind=DIRECTORY, mode=0o555), Item("d/f", b"1", mode=0o4755)]),
        archive([Item("d/g", b"2", mode=0o400)]),
    )
    unpack(store, image, tmp_path / "out")
    assert (tmp_path / "out/d").stat().st_mode & 0o7777 == 0o755  # its owner keeps it usable
    assert (tmp_path / "out/d/f").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "out/d/g").stat().st_mode & 0o7777 == 0o400


# -- attacks ------------------------------------------------------------------------------------------

OUTSIDE = "/tmp/digestry-must-not-exist"

ATTACKS = {
    "dots": [Item("../evil", b"x")],
    "dots inside": [Item("a/../../evil", b"x")],
    "symlink out": [Item("s", kind=SYMLINK, link="../.."), Item("s/evil", b"x")],
    "symlinks that add up": [
        Item("a/b", kind=DIRECTORY),
        Item("a/b/s", kind=SYMLINK, link="../.."),
        Item("a/b/s/t", kind=SYMLINK, link=".."),
        Item("t/evil", b"x"),
    ],
    "circle": [Item("a", kind=SYMLINK, link="b"), Item("b", kind=SYMLINK, link="a"), Item("a/x", b"x")],
    "hard link out": [Item("h", kind=HARD_LINK, link="../../../../etc/passwd")],
    "hard link to nothing": [Item("h", kind=HARD_LINK, link="nothing")],
    "hard link to the root": [Item("h", kind=HARD_LINK, link="/")],
    "hard link to a directory": [Item("d", kind=DIRECTORY), Item("h", kind=HARD_LINK, link="d")],
    "whiteout of the parent": [Item(".wh...", b"")],
    "whiteout of nothing": [Item(".wh.", b"")],
    "unknown type": [Item("odd", kind=b"Z")],
    "a file as a directory": [Item("f", b"x"), Item("f/x", b"x"), Item("f/x/y", b"x")],
    "an endless path": [Item("a/" * 3000 + "b", b"x")],
}


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "a file as a directory"])
def test_attacks_are_refused(store: ImageStore, tmp_path: Path, name: str) -> None:
    target = tmp_path / "deep" / "er" / "out"
    target.parent.mkdir(parents=True)
    with pytest.raises(ContentError):
        unpacked(store, target, ATTACKS[name])
    assert list(target.parent.iterdir()) == [], "neither it nor what was begun"
    assert list((tmp_path / "deep").iterdir()) == [target.parent]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "images"]


def test_a_path_through_a_file_of_the_same_layer(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(DigestryError):
        unpacked(store, tmp_path / "out", ATTACKS["a file as a directory"])
    assert not (tmp_path / "out").exists()


def test_writing_through_a_symlink_replaces_it(store: ImageStore, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    found = unpacked(
        store, tmp_path / "out", [Item("s", kind=SYMLINK, link=str(victim)), Item("s", b"overwritten")]
    )
    assert victim.read_text() == "safe"
    assert found == {"s": "overwritten"}


def test_an_absolute_symlink_stays_inside(store: ImageStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    found = unpacked(
        store,
        tmp_path / "out",
        [Item("s", kind=SYMLINK, link=str(outside)), Item("s/evil", b"x")],
    )
    assert list(outside.iterdir()) == []
    assert found[str(outside).lstrip("/") + "/evil"] == "x"


def test_opaque_whiteouts_do_not_follow_symlinks(store: ImageStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("safe")
    unpacked(
        store,
        tmp_path / "out",
        [Item("d/s", kind=SYMLINK, link=str(outside))],
        [Item("d/.wh..wh..opq"), Item(".wh.d")],
    )
    assert (outside / "precious").read_text() == "safe"
    assert listing(tmp_path / "out") == {}


def test_limits(store: ImageStore, tmp_path: Path) -> None:
    image = image_of(store, archive([Item("zeros", bytes(50_000_000))]), kind=media_types.OCI_LAYER_GZIP)
    with pytest.raises(TooLarge, match="unpacks to more"):
        unpack(store, image, tmp_path / "out", Limits(size=10_000_000))
    many = image_of(store, archive([Item(str(n)) for n in range(100)]))
    with pytest.raises(TooLarge, match="more than 50 files"):
        unpack(store, many, tmp_path / "out", Limits(entries=50))
    assert not (tmp_path / "out").exists()


def test_a_destination_that_is_in_use(store: ImageStore, tmp_path: Path) -> None:
    image = image_of(store, archive([Item("a", b"1")]))
    target = tmp_path / "out"
    target.mkdir()
    unpack(store, image, target)  # empty: fine
    with pytest.raises(Conflict, match="not empty"):
        unpack(store, image, target)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Conflict):
        unpack(store, image, tmp_path / "link")


def test_damage(store: ImageStore, tmp_path: Path) -> None:
    image = image_of(store, archive([Item("a", b"1" * 5000)]))
    path = blob_file(store.root, image.layers[0].digest)
    path.write_bytes(path.read_bytes().replace(b"1111", b"2222"))
    with pytest.raises(DigestMismatch):
        unpack(store, image, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_layer_that_is_not_what_the_config_says(store: ImageStore, tmp_path: Path) -> None:
    good = image_of(store, archive([Item("a", b"1")]))
    other = image_of(store, archive([Item("b", b"2")]))
    raw = good.raw.replace(str(good.layers[0].digest).encode(), str(other.layers[0].digest).encode())
    mixed = type(good).parse(raw)
    with pytest.raises(DigestMismatch):
        unpack(store, mixed, tmp_path / "out")


@pytest.mark.parametrize("kind", [media_types.OCI_LAYER_GZIP, media_types.OCI_LAYER_ZSTD])
@pytest.mark.parametrize("cut", [1, 10, 600, 5000])
def test_compression_that_ends_early(store: ImageStore, tmp_path: Path, cut: int, kind: str) -> None:
    whole = image_of(store, archive([Item("a", os.urandom(9000))]), kind=kind)
    layer = whole.layers[0]
    short = store.blobs.read(layer.digest)[:-cut]
    digest = store.blobs.put(short)
    raw = whole.raw.replace(str(layer.digest).encode(), str(digest).encode())
    raw = raw.replace(b'"size": %d' % layer.size, b'"size": %d' % len(short))
    image = type(whole).parse(raw)
    assert image.layers[0].digest == Digest.of(short)
    with pytest.raises(ContentError):
        unpack(store, image, tmp_path / "out")


@pytest.mark.parametrize(
    "kind",
    [
        media_types.OCI_LAYER,
        media_types.OCI_LAYER_GZIP,
        media_types.DOCKER_LAYER_GZIP,
        media_types.OCI_LAYER_ZSTD,
        media_types.DOCKER_LAYER_ZSTD,
    ],
)
def test_the_bytes_say_how_a_layer_is_compressed(store: ImageStore, tmp_path: Path, kind: str) -> None:
    plain = archive([Item("a", b"1")])
    half = len(plain) // 2
    members = gzip.compress(plain[:half]) + gzip.compress(plain[half:])
    for number, blob in enumerate(
        (plain, gzip.compress(plain), members, zstandard.ZstdCompressor().compress(plain))
    ):
        image = of_blob(store, blob, plain, kind)
        unpack(store, image, tmp_path / str(number))
        assert listing(tmp_path / str(number)) == {"a": "1"}
        LayerStream(io.BytesIO(blob), image.layers[0], Digest.of(plain)).finish()
    with pytest.raises(ContentError):
        unpack(store, of_blob(store, b"neither" * 100, plain, kind), tmp_path / "out")


def test_gzip_without_isal(store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a processor that isal is not made for.
    monkeypatch.setitem(sys.modules, "isal", None)
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    unpack(
        store, image_of(store, archive([Item("a", b"1")]), kind=media_types.OCI_LAYER_GZIP), tmp_path / "out"
    )
    assert listing(tmp_path / "out") == {"a": "1"}


@given(st.binary(max_size=3000))
def test_random_bytes_are_no_archive(content: bytes) -> None:
    position = 0

    def read(count: int) -> bytes:
        nonlocal position
        part = content[position : position + count]
        position += count
        return part

    try:
        for entry in TarReader(read):
            assert entry.size >= 0
    except ContentError:
        pass


@given(st.data())
def test_a_flipped_byte_never_escapes_as_another_error(data: st.DataObject) -> None:
    good = bytearray(archive([Item("n" * 150, b"x" * 700), Item("s", kind=SYMLINK, link="t" * 150)]))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    position = 0

    def read(count: int) -> bytes:
        nonlocal position
        part = bytes(good[position : position + count])
        position += count
        return part

    try:
        for entry in TarReader(read):
            assert entry.name is not None
    except ContentError:
        pass
