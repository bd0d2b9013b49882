"""The root file system of an image as one archive: what layers make together, byte for byte."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from digestry.errors import ContentError, DigestMismatch, TooLarge
from digestry.images.export import export
from digestry.images.limits import Limits
from digestry.images.store import ImageStore
from digestry.images.unpack import unpack
from digestry.model import media_types
from digestry.model.manifest import Image
from tests.images.making import Item, archive, image_of

DIR, SYM, HARD = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def exported(store: ImageStore, *layers: bytes, kind: str = media_types.OCI_LAYER) -> bytes:
    return b"".join(export(store, cast("Image", image_of(store, *layers, kind=kind))))


def result(raw: bytes) -> dict[str, object]:
    """What an archive unpacks to: by path the content of a file, ``dir``, or where a symlink leads."""
    found: dict[str, object] = {}
    with tarfile.open(fileobj=io.BytesIO(raw)) as file:
        for entry in file:
            path = "/".join(part for part in entry.name.split("/") if part not in {"", "."})
            if entry.isfile():
                content = file.extractfile(entry)
                assert content is not None
                found[path] = content.read()
            elif entry.islnk():
                found[path] = found[entry.linkname.removeprefix("./")]  # it must have come before
            elif entry.isdir():
                found[path] = "dir"
            else:
                found[path] = (entry.type, entry.linkname)
    return found


def test_later_layers_win(store: ImageStore) -> None:
    raw = exported(
        store,
        archive([Item("etc", kind=DIR), Item("etc/a", b"1"), Item("etc/b", b"1"), Item("gone/x", b"1")]),
        archive([Item("./etc/a", b"2"), Item("etc/.wh.b"), Item(".wh.gone"), Item("new", b"3")]),
        archive([Item("etc/c", kind=SYM, link="a"), Item("gone", b"a file now")]),
    )
    assert result(raw) == {
        "etc": "dir",
        "etc/a": b"2",
        "etc/c": (SYM, "a"),
        "new": b"3",
        "gone": b"a file now",
    }


def test_an_opaque_directory_hides_lower_layers_only(store: ImageStore) -> None:
    raw = exported(
        store,
        archive([Item("d/old", b"1"), Item("d/sub/old", b"1"), Item("e", b"1")]),
        archive([Item("d/sub/new", b"2"), Item("d/.wh..wh..opq"), Item("d/new", b"2"), Item(".wh.new")]),
    )
    assert result(raw) == {"d/sub/new": b"2", "d/new": b"2", "e": b"1"}


@pytest.mark.parametrize(
    "kind", [media_types.OCI_LAYER, media_types.OCI_LAYER_GZIP, media_types.OCI_LAYER_ZSTD]
)
def test_compressed_layers(store: ImageStore, kind: str) -> None:
    raw = exported(store, archive([Item("a", b"1")]), archive([Item("b", b"2" * 100_000)]), kind=kind)
    assert result(raw) == {"a": b"1", "b": b"2" * 100_000}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_entries_stay_as_they_are(store: ImageStore, form: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        info = tarfile.TarInfo("bin/" + "long/" * (1 if form == tarfile.USTAR_FORMAT else 60) + "sudo")
        info.mode, info.uid, info.gid, info.uname, info.mtime, info.size = (
            0o4755,
            1000,
            7,
            "somebody",
            12345,
            3,
        )
        if form == tarfile.PAX_FORMAT:
            info.pax_headers = {"SCHILY.xattr.security.capability": "\x01x", "mtime": "12345.5"}
        file.addfile(info, io.BytesIO(b"abc"))
        device = tarfile.TarInfo("null")
        device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 3
        file.addfile(device)
    with tarfile.open(fileobj=io.BytesIO(exported(store, buffer.getvalue()))) as found:
        entry = found.getmember(info.name)
        assert (entry.mode, entry.uid, entry.gid, entry.uname, int(entry.mtime)) == (
            0o4755, 1000, 7, "somebody", 12345,
        )  # fmt: skip
        if form == tarfile.PAX_FORMAT:
            assert entry.pax_headers["SCHILY.xattr.security.capability"] == "\x01x"
        null = found.getmember("null")
        assert (null.type, null.devmajor, null.devminor) == (tarfile.CHRTYPE, 1, 3)


LINKS: dict[str, tuple[Sequence[Sequence[Item]], dict[str, object]]] = {
    "whole": ([[Item("a", b"1"), Item("b", kind=HARD, link="a")]], {"a": b"1", "b": b"1"}),
    "replaced": (
        [[Item("a", b"1"), Item("b", kind=HARD, link="a")], [Item("a", b"2")]],
        {"a": b"2", "b": b"1"},
    ),
    "deleted": (
        [[Item("a", b"1")], [Item("b", kind=HARD, link="a")], [Item(".wh.a")]],
        {"b": b"1"},
    ),
    "a chain": (
        [
            [Item("a", b"1"), Item("b", kind=HARD, link="a"), Item("c", kind=HARD, link="./b")],
            [Item(".wh.b"), Item(".wh.a"), Item("d", kind=HARD, link="c")],
        ],
        {"c": b"1", "d": b"1"},
    ),
    "the middle": (
        [[Item("a", b"1"), Item("b", kind=HARD, link="a"), Item("c", kind=HARD, link="b")], [Item(".wh.b")]],
        {"a": b"1", "c": b"1"},
    ),
    "long names": (
        [[Item("x" * 150, b"1"), Item("y" * 160, kind=HARD, link="x" * 150)], [Item(".wh." + "x" * 150)]],
        {"y" * 160: b"1"},
    ),
}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("which", LINKS)
def test_hard_links(store: ImageStore, form: int, which: str) -> None:
    layers, expected = LINKS[which]
    assert result(exported(store, *(archive(items, form) for items in layers))) == expected


def test_symlinks_on_the_way_are_followed(store: ImageStore) -> None:
    raw = exported(
        store,
        archive(
            [
                Item("usr/lib/a", b"1"),
                Item("lib", kind=SYM, link="/usr/lib"),
                Item("up", kind=SYM, link="../.."),
            ]
        ),
        archive([Item("lib/.wh.a"), Item("lib/b", b"2"), Item("up/c", b"3")]),
    )
    assert "usr/lib/a" not in result(raw)
    assert result(raw)["lib/b"] == b"2"


@pytest.mark.parametrize(
    "items",
    [
        [Item("../x", b"1")],
        [Item("a/../../x", b"1")],
        [Item("a", kind=HARD, link="none")],
        [Item("a", kind=HARD, link="../../etc/passwd")],
        [Item("d", kind=DIR), Item("a", kind=HARD, link="d")],
        [Item("a", b"1"), Item("a/b", b"1")],
        [Item("a", kind=SYM, link="b"), Item("b", kind=SYM, link="a"), Item("a/c", b"1")],
        [Item(".wh...", b"")],
        [Item("a", kind=tarfile.GNUTYPE_SPARSE)],
        [Item("d/" * 2049 + "f", b"")],
    ],
)
def test_what_no_image_may_have(store: ImageStore, items: list[Item]) -> None:
    with pytest.raises(ContentError):
        exported(store, archive(items, tarfile.GNU_FORMAT))


def test_nothing_comes_of_a_damaged_image(store: ImageStore) -> None:
    image = cast("Image", image_of(store, archive([Item("a", b"1")]), archive([Item("b", b"2")])))
    path = store.blobs.local_path(image.layers[1].digest)
    assert path is not None
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DigestMismatch):
        next(export(store, image))


def test_limits(store: ImageStore) -> None:
    image = cast("Image", image_of(store, archive([Item(str(number), b"x") for number in range(20)])))
    with pytest.raises(TooLarge):
        next(export(store, image, Limits(entries=10)))
    with pytest.raises(TooLarge):
        next(export(store, image, Limits(size=10)))


@pytest.mark.parametrize("seed", range(15))
def test_as_unpacking_has_it(store: ImageStore, tmp_path: Path, seed: int) -> None:
    """Random layers of files, directories, links and whiteouts are unpacked, and exported."""
    chosen = random.Random(seed)
    names = ["a", "b", "c", "a/x", "a/y", "b/x/1", "b/x/2", "c/z"]
    layers = []
    for layer in range(4):
        items: dict[str, Item] = {}
        for _ in range(6):
            name = chosen.choice(names)
            taken = any(other.startswith(f"{name}/") or name.startswith(f"{other}/") for other in items)
            if name in items or taken:
                continue
            kind = chosen.random()
            if kind < 0.5:
                items[name] = Item(name, f"{layer} {name}".encode())
            elif kind < 0.7:
                items[name] = Item(name, kind=DIR, mode=0o755)
            elif layer:
                parent, _, last = name.rpartition("/")
                items[name] = Item(f"{parent}/.wh.{last}" if parent else f".wh.{last}")
        parents = {parent for name in items for parent in _parents(name)} - set(items)
        layers.append(
            archive([*(Item(name, kind=DIR, mode=0o755) for name in sorted(parents)), *items.values()])
        )
    image = cast("Image", image_of(store, *layers))
    try:
        unpack(store, image, tmp_path / "root")
    except ContentError:
        with pytest.raises(ContentError):
            next(export(store, image))
        return
    there = {
        str(path.relative_to(tmp_path / "root")): path.read_bytes() if path.is_file() else "dir"
        for path in (tmp_path / "root").rglob("*")
    }
    found = result(b"".join(export(store, image)))
    assert found == there


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]
