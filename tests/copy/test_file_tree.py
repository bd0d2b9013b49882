"""Files in compressed tar archives: what is too large, or no archive, is refused before it is inflated."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from digestry.copy import file_tree
from digestry.copy.file_tree import ArchiveTree
from digestry.errors import ContentError, TooLarge

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def opened(path: Path, content: bytes) -> ArchiveTree:
    path.write_bytes(content)
    return ArchiveTree(path, scratch=path.parent)


@pytest.fixture(params=COMPRESSIONS)
def compress(request: pytest.FixtureRequest) -> Callable[[bytes], bytes]:
    return COMPRESSIONS[request.param]


def test_files_are_read(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    files = {"a": b"1" * 5_000, "b/c": b"", "d": bytes(3 << 20), "e": b"2" * 700}
    tree = opened(tmp_path / "x.tar", compress(archive(files) + bytes(1 << 20)))
    assert {name: tree.size(name) for name in (*files, "absent")} == {
        **{name: len(content) for name, content in files.items()},
        "absent": None,
    }
    for name, content in files.items():
        with tree.open(name) as file:
            assert file.read() == content
    tree.close()


def test_an_entry_that_is_too_large_is_refused_at_its_header(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    """What follows is not looked at: it is cut off."""
    content = archive({"a": b"1"})[:1024] + header("bomb", 1 << 30) + bytes(8 << 20)
    with pytest.raises(TooLarge, match=r"x\.tar inflates to more than 1073741824 bytes"):
        opened(tmp_path / "x.tar", compress(content)[:-8])


def test_many_entries_that_are_too_large_together(
    tmp_path: Path, compress: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_tree, "_LEAST_LIMIT", 1 << 20)
    monkeypatch.setattr(file_tree, "_RATIO", 1)
    files = {str(number): bytes(100_000) for number in range(11)}
    with pytest.raises(TooLarge, match="inflates to more than 1048576 bytes"):
        opened(tmp_path / "x.tar", compress(archive(files)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no archive" * (1 << 18), "no tar archive, or is damaged"),
        (bytes(32 << 20), "goes on after its end"),
        (archive({"a": b"1"}) + bytes(32 << 20), "goes on after its end"),
    ],
    ids=["text", "zeros", "zeros after the end"],
)
def test_no_archive(tmp_path: Path, compress: Callable[[bytes], bytes], content: bytes, reason: str) -> None:
    """It is not inflated to its end, which is cut off."""
    with pytest.raises(ContentError, match=reason):
        opened(tmp_path / "x.tar", compress(content)[:-8])


def test_what_is_cut_off_or_damaged(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    whole = compress(archive({"a": os.urandom(200_000)}))
    for content in (whole[:-2000], whole[:99_999], whole[:99_999] + b"\xff" * 20 + whole[100_019:]):
        with pytest.raises(ContentError, match=r"x\.tar"):
            opened(tmp_path / "x.tar", content)


def test_xz_that_takes_gigabytes_of_memory_to_inflate(tmp_path: Path) -> None:
    """The size of its dictionary is a byte in its header (xz-file-format, 3.1 and 5.3.1)."""
    content = bytearray(lzma.compress(archive({"a": b"1"})))
    length = (content[12] + 1) * 4
    assert content[14] == 0x21  # LZMA2
    content[16] = 39  # 3 GiB
    content[12 + length - 4 : 12 + length] = zlib.crc32(content[12 : 12 + length - 4]).to_bytes(4, "little")
    with pytest.raises(ContentError, match="Memory usage limit"):
        opened(tmp_path / "x.tar", bytes(content))


@pytest.mark.parametrize(
    ("kind", "target", "content"),
    [
        (tarfile.LNKTYPE, "l/layer.tar", b"x"), (tarfile.LNKTYPE, "./l/layer.tar", b"x"),
        (tarfile.SYMTYPE, "../l/layer.tar", b"x"), (tarfile.SYMTYPE, "/l/layer.tar", b"x"),
        (tarfile.SYMTYPE, "/etc/passwd", None), (tarfile.LNKTYPE, "../../etc/passwd", None),
        (tarfile.LNKTYPE, "m/layer.tar", None),
    ],
)  # fmt: skip
def test_links_inside_an_archive_are_followed(
    tmp_path: Path, kind: bytes, target: str, content: bytes | None
) -> None:
    link = tarfile.TarInfo("m/layer.tar")
    link.type, link.linkname = kind, target
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        info = tarfile.TarInfo("l/layer.tar")
        info.size = 1
        file.addfile(info, io.BytesIO(b"x"))
        file.addfile(link)
    tree = opened(tmp_path / "x.tar", buffer.getvalue())
    if content is None:
        assert tree.size("m/layer.tar") is None
    else:
        with tree.open("m/layer.tar") as linked:
            assert linked.read() == content
    tree.close()
