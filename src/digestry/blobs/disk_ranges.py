"""Ranges of a file of content, read by an event loop: from memory, or by a thread that waits for the disk."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

from digestry.blobs.failures import BytesLost
from digestry.blobs.file_errors import file_error
from digestry.blobs.protocols import InThread

_PROBED: Final = 512 << 10
_NOWAIT: Final[int] = getattr(os, "RWF_NOWAIT", 0)


class DiskRanges:
    """An open file of content. It closes ``descriptor``."""

    __slots__ = ("_descriptor", "_in_thread", "_path", "size")

    def __init__(self, path: Path, descriptor: int, in_thread: InThread) -> None:
        self._path = path
        self._descriptor = descriptor
        self._in_thread = in_thread
        self.size = os.fstat(descriptor).st_size

    async def read(self, position: int, count: int) -> bytes:
        """Return up to ``count`` bytes; see :meth:`BlobRanges.read`."""
        self._check_open()
        try:
            if self._is_in_memory(position, count):
                # Nothing else here waits once the client has left: others, and who watches for that, get
                # a turn.
                await asyncio.sleep(0)
                return os.pread(self._descriptor, count, position)
            return await self._in_thread(os.pread, self._descriptor, count, position)
        except OSError as error:
            raise file_error("read", self._path, error) from error

    async def file_with(self, position: int, count: int) -> int:
        """Return the descriptor, once these bytes are in memory; see :meth:`BlobRanges.file_with`."""
        self._check_open()
        if self._is_in_memory(position, count):
            await asyncio.sleep(0)  # as above
        else:
            try:
                found = len(await self._in_thread(os.pread, self._descriptor, count, position))
            except OSError as error:
                raise file_error("read", self._path, error) from error
            if found < count:
                raise BytesLost(f"{self._path} ended at byte {position + found}")
        return self._descriptor

    def _check_open(self) -> None:
        if self._descriptor < 0:
            raise BytesLost(f"{self._path} was closed while it was read")

    def _is_in_memory(self, position: int, count: int) -> bool:
        places = (*range(position, position + count, _PROBED), position + count - 1)
        return all(_in_memory(self._descriptor, place) for place in places)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _in_memory(descriptor: int, position: int) -> bool:
    # preadv2(2): RWF_NOWAIT fails where it would have to wait; some file systems do not have it.
    try:
        return bool(_NOWAIT) and os.preadv(descriptor, [bytearray(1)], position, _NOWAIT) == 1
    except OSError:
        return False
