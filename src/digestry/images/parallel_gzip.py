"""Writing gzip streams on all cores: the same bytes for any number of threads.

The input is cut every :data:`BLOCK` bytes, and each piece is deflated by itself, with the end of the one
before it as its dictionary. The pieces make one gzip member (RFC 1952), which every reader takes.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

BLOCK: Final = 1 << 20
"""Bytes that are deflated at once."""

_WINDOW: Final = 32 << 10  # deflate's: how far back a match may be
_RAW: Final = -15  # zlib's window bits for deflate without a header
_MEMORY: Final = 8
_FASTEST: Final = 1
_SMALLEST: Final = 9


class ParallelGzip:
    """One gzip member; how its bytes come in makes no difference to it. The interface is zlib's.

    ``threads`` pieces are deflated at once. :meth:`close` ends the threads.
    """

    def __init__(self, level: int, threads: int) -> None:
        self._level = level
        self._pool = ThreadPoolExecutor(threads, "digestry-gzip")
        self._most = 2 * threads
        self._waiting: deque[Future[bytes]] = deque()
        self._pending = bytearray()
        self._dictionary = b""
        self._checksum = 0
        self._size = 0
        self._header = _header(level)

    def compress(self, data: bytes) -> bytes:
        """Take ``data``; return what can be written by now."""
        self._checksum = zlib.crc32(data, self._checksum)
        self._size += len(data)
        self._pending += data
        parts = [self._begin()]
        while len(self._pending) >= BLOCK:
            block = bytes(self._pending[:BLOCK])
            del self._pending[:BLOCK]
            parts += self._deflate(block, last=False)
        return b"".join(parts)

    def flush(self) -> bytes:
        """Return the rest: the last pieces, the checksum, and the size modulo 2^32."""
        parts = [self._begin(), *self._deflate(bytes(self._pending), last=True)]
        parts += [piece.result() for piece in self._waiting]
        self._waiting.clear()
        parts.append(struct.pack("<II", self._checksum, self._size & 0xFFFFFFFF))
        return b"".join(parts)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _begin(self) -> bytes:
        header, self._header = self._header, b""
        return header

    def _deflate(self, block: bytes, *, last: bool) -> list[bytes]:
        """Begin to deflate a piece; return the oldest ones if enough are under way."""
        self._waiting.append(
            self._pool.submit(_deflated, block, self._dictionary, level=self._level, last=last)
        )
        self._dictionary = block[-_WINDOW:]
        done: list[bytes] = []
        while len(self._waiting) > self._most:
            done.append(self._waiting.popleft().result())
        return done


def _header(level: int) -> bytes:
    # RFC 1952, 2.3: deflate, no flags, no time, how much was searched, an unknown system.
    searched = 4 if level == _FASTEST else 2 if level == _SMALLEST else 0
    return b"\x1f\x8b\x08\x00" + bytes(4) + bytes([searched, 0xFF])


def _deflated(block: bytes, dictionary: bytes, *, level: int, last: bool) -> bytes:
    deflater = zlib.compressobj(level, zlib.DEFLATED, _RAW, _MEMORY, zlib.Z_DEFAULT_STRATEGY, dictionary)
    return deflater.compress(block) + deflater.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)
