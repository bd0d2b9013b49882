"""Segments of the buffer: files of records, to which is only appended.

A record is its length and a checksum (four bytes each, big-endian), a byte for its kind, and its content. A
file is valid until its first record that is cut short or damaged: a kill while one is written loses that one.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from digestry.fsio import storage_errors

Kind: TypeAlias = Literal["entry", "image", "position", "clock", "dropped"]
"""An entry of a report; an image that the entries after it name; the position of a source after the entries
before it; the clock that the entries after it were told by; and the gaps of dropped entries that are not
entries yet, by the clock before it."""

_KINDS: Final[tuple[Kind, ...]] = ("entry", "image", "position", "clock", "dropped")
_HEADER: Final = 9
_LONGEST: Final = 16 << 20
_PATTERN: Final = "entries-*.log"


@dataclass(frozen=True, slots=True)
class Record:
    """One record, and where it ends in its file."""

    kind: Kind
    content: bytes
    end: int


def encode(kind: Kind, content: bytes) -> bytes:
    """Return the bytes of a record."""
    body = bytes((_KINDS.index(kind),)) + content
    return len(content).to_bytes(4, "big") + zlib.crc32(body).to_bytes(4, "big") + body


def read(path: Path, start: int = 0) -> Iterator[Record]:
    """Yield the records of a segment from the offset ``start`` on, until its end or the first damaged one.

    Raises :class:`~digestry.errors.StorageError`.
    """
    with storage_errors("read", path), path.open("rb") as file:
        file.seek(start)
        position = start
        while len(header := file.read(_HEADER)) == _HEADER:
            size = int.from_bytes(header[:4], "big")
            if size > _LONGEST or header[8] >= len(_KINDS):
                return
            content = file.read(size)
            checksum = int.from_bytes(header[4:8], "big")
            if len(content) < size or zlib.crc32(content, zlib.crc32(header[8:])) != checksum:
                return
            position += _HEADER + size
            yield Record(_KINDS[header[8]], content, position)


def segment_path(directory: Path, first: int) -> Path:
    """Return the path of the segment whose first entry has the number ``first``."""
    return directory / f"entries-{first:020d}.log"


def segments(directory: Path) -> list[tuple[int, Path]]:
    """Return the segments of a directory with the number of the first entry of each, in their order."""
    found = []
    with storage_errors("list", directory):
        for path in directory.glob(_PATTERN):
            number = path.name[len("entries-") : -len(".log")]
            if number.isascii() and number.isdigit():
                found.append((int(number), path))
    return sorted(found)


def cut(path: Path, end: int) -> None:
    """Cut a segment after ``end`` bytes. Raises :class:`~digestry.errors.StorageError`."""
    with storage_errors("cut", path):
        os.truncate(path, end)
