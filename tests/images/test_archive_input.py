"""Tar archives that become layers: passed on as they are, or refused with the reason."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable

import pytest
import zstandard

from digestry.errors import ContentError, TooLarge
from digestry.images.archive_input import write_archive
from digestry.images.limits import Limits
from tests.images.making import Item, archive

DIRECTORY, SYMLINK, HARD_LINK, DEVICE = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE
FILES = [
    Item("./", kind=DIRECTORY, mode=0o755),
    Item("./bin", kind=DIRECTORY, mode=0o755),
    Item("./bin/tool", b"#!/bin/sh\n", mode=0o4755),
    Item("./bin/same", kind=HARD_LINK, link="./bin/tool"),
    Item("lib", kind=SYMLINK, link="/usr/lib"),
    Item("lib/inside", b"through a symlink that stays inside"),
    Item("../".replace("..", "n" * 120) + "long", b"x" * 2000),
    Item(".wh.gone"),
    Item("dev/null", kind=DEVICE),
]


def passed(content: bytes, limits: Limits | None = None) -> tuple[bytes, int]:
    """What is written for an archive, and the number of its entries."""
    output = io.BytesIO()
    count = write_archive(io.BytesIO(content), "x.tar", output.write, limits)  # type: ignore[arg-type]
    return output.getvalue(), count


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_it_is_passed_on_byte_for_byte(kind: int) -> None:
    items = FILES if kind != tarfile.USTAR_FORMAT else [item for item in FILES if len(item.name) < 100]
    content = archive(items, kind)
    assert passed(content) == (content, len(items))


@pytest.mark.parametrize(
    "compress", [gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress]
)
def test_it_is_inflated(compress: Callable[[bytes], bytes]) -> None:
    content = archive(FILES)
    assert passed(compress(content)) == (content, len(FILES))


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([Item("../etc/passwd", b"x")], "leads out of the image"),
        ([Item("a/../../b", b"x")], "leads out of the image"),
        ([Item("x", kind=HARD_LINK, link="/etc/passwd")], "which is not a file"),
        ([Item("x", kind=HARD_LINK, link="../x")], "leads out of the image"),
        ([Item("a", b"x"), Item("a/b", b"y")], "cannot be a directory"),
        ([Item("l", kind=SYMLINK, link="l"), Item("l/x", b"y")], "too many symlinks"),
        ([Item("a/.wh...", b"")], "a whiteout of"),
        ([Item("x", kind=b"Z")], "not supported"),
        ([Item("/".join("d" * 2100), b"x")], "more than 4096 bytes"),
    ],
)
def test_what_no_image_may_have(items: list[Item], reason: str) -> None:
    with pytest.raises(ContentError, match=rf"x\.tar cannot be a layer: .*{reason}"):
        passed(archive(items))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has no end"),
        (b"hello", "middle of a header"),
        (b"x" * 4096, "checksum|no number|number"),
        (archive(FILES)[:2048], "has no end|ends too early|middle"),
        (archive([Item("a", b"x" * 512)])[:1024], "has no end"),
        (archive([Item("a", b"x")]) + archive([Item("b", b"x")]), "after its end"),
        (archive([Item("a", b"x")]) + b"\0" * 100, "middle of a block"),
        (gzip.compress(archive(FILES))[:-20], "gzip"),
        (gzip.compress(archive(FILES)) + b"rubbish", "gzip"),
    ],
)
def test_what_is_no_archive(content: bytes, reason: str) -> None:
    with pytest.raises(ContentError, match=reason):
        passed(content)


def test_limits() -> None:
    many = archive([Item(f"f{number}") for number in range(20)])
    assert passed(many, Limits(entries=20))[1] == 20
    with pytest.raises(TooLarge, match=r"x\.tar: .*more than 19 files"):
        passed(many, Limits(entries=19))
    large = archive([Item("f", b"x" * 100_000)])
    with pytest.raises(TooLarge, match="more than 99999 bytes"):
        passed(large, Limits(size=99_999))


def test_a_bomb_is_not_inflated_to_its_end() -> None:
    """Zeros after the end of an archive: 100 MB of 100 kB."""
    bomb = gzip.compress(archive([Item("f", b"x")]) + bytes(100 << 20), 9)
    with pytest.raises(TooLarge, match="more than 2000000 bytes"):
        passed(bomb, Limits(size=1_000_000))


def test_a_sparse_file_of_gigabytes_is_refused() -> None:
    info = tarfile.TarInfo("f")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9" * 12}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as file:
        file.addfile(info)
    with pytest.raises(ContentError, match="sparse"):
        passed(buffer.getvalue())
