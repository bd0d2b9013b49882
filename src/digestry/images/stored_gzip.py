"""Writing gzip streams that are the same bytes everywhere: stored blocks, which hold the bytes as they are.

Deflate does not prescribe the search for repeated bytes, and libraries, and versions of one library, differ
in it. A stored block has only one form (RFC 1951, 3.2.4).
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

BLOCK: Final = 0xFFFF
"""Bytes of one stored block, the most that there can be: its length has 16 bits."""

# RFC 1952, 2.3: deflate, no flags, no time, no statement of the compressor, an unknown system.
_HEADER: Final = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff"


class StoredGzip:
    """One gzip member; how its bytes come in makes no difference to it. The interface is zlib's."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._checksum = 0
        self._size = 0
        self._started = False

    def compress(self, data: bytes) -> bytes:
        """Add ``data``; return the bytes that can be written by now."""
        self._checksum = zlib.crc32(data, self._checksum)
        self._size += len(data)
        self._pending += data
        parts: list[bytes | memoryview] = [self._header()]
        # One block, or the part of one, is kept back: it may be the last, whose header says so.
        whole = max(0, len(self._pending) - 1) // BLOCK * BLOCK
        if whole:
            held = memoryview(bytes(self._pending))
            for at in range(0, whole, BLOCK):
                parts += (_block(BLOCK, last=False), held[at : at + BLOCK])
            del self._pending[:whole]
        return b"".join(parts)

    def flush(self) -> bytes:
        """Return the rest: the last block, the checksum, and the size modulo 2^32."""
        trailer = struct.pack("<II", self._checksum, self._size & 0xFFFFFFFF)
        return b"".join([self._header(), _block(len(self._pending), last=True), self._pending, trailer])

    def _header(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        return _HEADER


def _block(size: int, *, last: bool) -> bytes:
    # Three bits (last or not, and the kind 00), the rest of their byte, the length, its complement.
    return struct.pack("<BHH", last, size, size ^ 0xFFFF)
