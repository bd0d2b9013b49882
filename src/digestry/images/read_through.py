"""Chunks of bytes that are read like a file, and written somewhere on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from digestry.errors import TooLarge


class ReadThrough:
    """A file made of ``chunks``, each of which is given to ``write`` before any of it is read.

    Raises ``refusal`` while reading, once more bytes than its limit have come.
    """

    def __init__(self, chunks: Iterator[bytes], write: Callable[[bytes], object], refusal: TooLarge) -> None:
        self._chunks = chunks
        self._write = write
        self._refusal = refusal
        self._rest = memoryview(b"")
        self.size = 0
        """The bytes that have come."""
        self.is_over = False
        """Whether all of them have."""

    def tell(self) -> int:
        """Return the number of bytes that were read."""
        return self.size - len(self._rest)

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes; none at the end."""
        if not self._rest:
            chunk = next(self._chunks, b"")
            self.is_over = not chunk
            self.size += len(chunk)
            if self.size > self._refusal.limit:
                raise self._refusal
            self._write(chunk)
            self._rest = memoryview(chunk)
        part = bytes(self._rest[:count])
        self._rest = self._rest[count:]
        return part
