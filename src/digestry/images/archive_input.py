"""A tar archive that becomes a layer: passed on byte for byte, while each of its entries is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from digestry.errors import ContentError, TooLarge
from digestry.fsio import storage_errors
from digestry.images.layer_stream import decompressed
from digestry.images.limits import Budget, Limits
from digestry.images.merged_tree import MergedTree
from digestry.images.tar_reader import BLOCK, TarReader

_CHUNK: Final = 1 << 20
_BEGINNING: Final = 8
"""Bytes that tell how a file is compressed."""


def write_archive(
    file: BinaryIO, name: str, write: Callable[[bytes], None], limits: Limits | None = None
) -> int:
    """Write the tar archive ``file``, inflated if it is compressed, and return the number of its entries.

    ``name`` is for messages. Raises :class:`ContentError` for what is no archive, is cut off, has something
    after its end, or has an entry that no image may have, such as one that leads out of it;
    :class:`TooLarge`; and :class:`StorageError` if it cannot be read.
    """
    limits = limits or Limits()
    source = _Source(_plain(file, name), write, 2 * limits.size)
    budget = Budget(limits)
    tree = MergedTree()
    try:
        for entry in TarReader(source.read):
            budget.take(entry)
            tree.add(entry, (0, budget.entries))
        source.end()
    except TooLarge as error:
        raise TooLarge(f"{name}: {error.message}", limit=error.limit) from error
    except ContentError as error:
        raise ContentError(f"{name} cannot be a layer: {error.message}", hint=error.hint) from error
    return budget.entries


class _Source:
    """The bytes of an archive, each of which is written when it is read."""

    def __init__(self, chunks: Iterator[bytes], write: Callable[[bytes], None], limit: int) -> None:
        self._chunks = chunks
        self._write = write
        self._limit = limit
        self._rest = memoryview(b"")
        self._size = 0
        self._is_over = False

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes; none at the end."""
        if not self._rest:
            chunk = next(self._chunks, b"")
            self._is_over = not chunk
            self._size += len(chunk)
            if self._size > self._limit:
                raise TooLarge(f"the archive has more than {self._limit} bytes", limit=self._limit)
            self._write(chunk)
            self._rest = memoryview(chunk)
        part = bytes(self._rest[:count])
        self._rest = self._rest[count:]
        return part

    def end(self) -> None:
        """Read what is after the last entry. Raises :class:`ContentError` unless it is an archive's end."""
        if self._is_over:
            raise ContentError(
                "it has no end, and may have been cut off",
                hint="an archive ends with blocks of zeros, which tar writes last",
            )
        while part := self.read(_CHUNK):
            if part.strip(b"\0"):
                raise ContentError("it has something after its end")
        if self._size % BLOCK:
            raise ContentError("it ends in the middle of a block")


def _plain(file: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield the archive's bytes, inflated."""
    beginning = b""
    with storage_errors("read", Path(name)):
        while len(beginning) < _BEGINNING and (part := file.read(_BEGINNING - len(beginning))):
            beginning += part
    chunks = _chunks(beginning, file, name)
    return decompressed(chunks, beginning, "it") or chunks


def _chunks(beginning: bytes, file: BinaryIO, name: str) -> Iterator[bytes]:
    if beginning:
        yield beginning
    while True:
        with storage_errors("read", Path(name)):
            chunk = file.read(_CHUNK)
        if not chunk:
            return
        yield chunk
