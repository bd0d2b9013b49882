"""The body of an HTTP/1 request, found in the bytes of a connection (RFC 9112, sections 6 and 7)."""

from __future__ import annotations

import enum
import re
from typing import Final

from digestry.registry.http1.head import MalformedRequest

_LONGEST_LINE: Final = 4096
"""Of a chunk's size with its extensions, and of all trailers together."""
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")


class LengthBody:
    """A body of ``left`` bytes."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    @property
    def ended(self) -> bool:
        """Whether all of it came."""
        return self.left == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the part of ``data`` that is body, and the part that follows the body."""
        if len(data) <= self.left:
            self.left -= len(data)
            return data, b""
        part, rest = data[: self.left], data[self.left :]
        self.left = 0
        return part, rest


class _Next(enum.Enum):
    """The next part of a body in chunks."""

    SIZE = enum.auto()
    DATA = enum.auto()
    END_OF_DATA = enum.auto()
    TRAILERS = enum.auto()
    NOTHING = enum.auto()


class ChunkedBody:
    """A body in chunks. Chunk extensions and trailers are ignored."""

    __slots__ = ("_left", "_line", "_next", "_trailers")

    def __init__(self) -> None:
        self._next = _Next.SIZE
        self._left = 0
        """Bytes of the chunk that are to come."""
        self._line = b""
        """The beginning of a line."""
        self._trailers = 0
        """Bytes of trailers that came."""

    @property
    def ended(self) -> bool:
        """Whether all of it came."""
        return self._next is _Next.NOTHING

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the part of ``data`` that is body, and the part that follows the body.

        Raises :class:`MalformedRequest`.
        """
        parts: list[bytes] = []
        position = 0
        while position < len(data) and self._next is not _Next.NOTHING:
            if self._next is _Next.DATA:
                end = position + self._left
                parts.append(data[position:end])
                self._left -= len(parts[-1])
                position += len(parts[-1])
                if not self._left:
                    self._next = _Next.END_OF_DATA
            else:
                position = self._take_line(data, position)
        return parts[0] if len(parts) == 1 else b"".join(parts), data[position:]

    def _take_line(self, data: bytes, position: int) -> int:
        end = data.find(b"\n", position) + 1
        line = self._line + data[position : end or len(data)]
        if len(line) + self._trailers > _LONGEST_LINE:
            raise MalformedRequest("a long line between chunks")
        if not end:
            self._line = line
            return len(data)
        self._line = b""
        if not line.endswith(b"\r\n"):
            raise MalformedRequest("a line between chunks that does not end in CRLF")
        self._read_line(line[:-2])
        return end

    def _read_line(self, line: bytes) -> None:
        if self._next is _Next.END_OF_DATA:
            if line:
                raise MalformedRequest("a chunk that is longer than it says")
            self._next = _Next.SIZE
        elif self._next is _Next.TRAILERS:
            self._trailers += len(line) + 2
            if not line:
                self._next = _Next.NOTHING
        else:
            size = _SIZE.fullmatch(line)
            if size is None:
                raise MalformedRequest("a chunk without its size")
            self._left = int(size[1], 16)
            self._next = _Next.DATA if self._left else _Next.TRAILERS
