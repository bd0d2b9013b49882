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
from digestry.images.read_through import ReadThrough
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
    most = 2 * limits.size
    refusal = TooLarge(f"the archive has more than {most} bytes", limit=most)
    source = ReadThrough(_plain(file, name), write, refusal)
    budget = Budget(limits)
    tree = MergedTree()
    try:
        for entry in TarReader(source.read):
            budget.take(entry)
            tree.add(entry, (0, budget.entries))
        _check_end(source)
    except TooLarge as error:
        raise TooLarge(f"{name}: {error.message}", limit=error.limit) from error
    except ContentError as error:
        raise ContentError(f"{name} cannot be a layer: {error.message}", hint=error.hint) from error
    return budget.entries


def _check_end(source: ReadThrough) -> None:
    """Read what is after the last entry. Raises :class:`ContentError` unless it is an archive's end."""
    if source.is_over:
        raise ContentError(
            "it has no end, and may have been cut off",
            hint="an archive ends with blocks of zeros, which tar writes last",
        )
    while part := source.read(_CHUNK):
        if part.strip(b"\0"):
            raise ContentError("it has something after its end")
    if source.size % BLOCK:
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
