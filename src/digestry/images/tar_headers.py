"""The headers of tar entries, kept as they came: given another name, or made to say that nothing follows."""

from __future__ import annotations

from typing import Final

from digestry.images.tar_reader import BLOCK
from digestry.images.tar_writer import long_name

_NAME: Final = slice(0, 100)
_SIZE: Final = slice(124, 136)
_CHECKSUM: Final = slice(148, 156)
_KIND: Final = slice(156, 157)
_MAGIC: Final = slice(257, 263)
_PREFIX: Final = slice(345, 500)
_LONG_NAME: Final = b"L"
_PAX: Final = b"x"


def renamed(blocks: bytes, name: bytes) -> bytes:
    """Return the headers of an entry with another name; everything else in them stays."""
    parts = _extensions(blocks, b"path=", drop=_LONG_NAME)
    last = bytearray(blocks[-BLOCK:])
    last[_NAME] = name[:100].ljust(100, b"\0")
    if last[_MAGIC] == b"ustar\0":
        last[_PREFIX] = bytes(155)
    if len(name) > 100:
        parts.append(long_name(name))
    return b"".join([*parts, _checked(last)])


def emptied(blocks: bytes) -> bytes:
    """Return the headers of an entry without content, whose size says so."""
    return b"".join([*_extensions(blocks, b"size="), _sized(blocks[-BLOCK:], 0)])


def _extensions(blocks: bytes, record: bytes, drop: bytes = b"") -> list[bytes]:
    """Return the extension headers without one PAX record, and without those of kind ``drop``."""
    parts: list[bytes] = []
    for header, content in _headers(blocks[:-BLOCK]):
        if header[_KIND] == drop:
            continue
        records = _without(content, record) if header[_KIND] == _PAX else content
        if records == content:
            parts += [header, content, bytes(-len(content) % BLOCK)]
        elif records:
            parts += [_sized(header, len(records)), records, bytes(-len(records) % BLOCK)]
    return parts


def _headers(blocks: bytes) -> list[tuple[bytes, bytes]]:
    """Return the extension headers in ``blocks``, each with its content. The reader has checked them."""
    found: list[tuple[bytes, bytes]] = []
    position = 0
    while position < len(blocks):
        header = blocks[position : position + BLOCK]
        size = int(header[_SIZE].strip(b" \0") or b"0", 8)
        start = position + BLOCK
        found.append((header, blocks[start : start + size]))
        position = start + size + -size % BLOCK
    return found


def _without(records: bytes, key: bytes) -> bytes:
    """Return the records of a PAX header except for the one that begins with ``key``."""
    kept: list[bytes] = []
    position = 0
    while position < len(records):
        space = records.index(b" ", position)
        end = position + int(records[position:space])
        if not records.startswith(key, space + 1):
            kept.append(records[position:end])
        position = end
    return b"".join(kept)


def _sized(header: bytes, size: int) -> bytes:
    changed = bytearray(header)
    changed[_SIZE] = b"%011o\0" % size
    return _checked(changed)


def _checked(header: bytearray) -> bytes:
    header[_CHECKSUM] = b" " * 8
    header[_CHECKSUM] = b"%06o\0 " % sum(header)
    return bytes(header)
