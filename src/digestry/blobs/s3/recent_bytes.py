"""The latest bytes of incoming content, for readers in the process that writes it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from digestry.blobs.s3.rows import ObjectRows
from digestry.model.digest import Digest

_MOST: Final = 2 << 20
"""The number of bytes that are kept: a reader that is further behind waits for the commit."""


class RecentBytes:
    """The last 2 MiB of content that comes in; a :class:`GrowingContent`. Thread-safe."""

    def __init__(self, rows: ObjectRows) -> None:
        self._rows = rows
        self._lock = threading.Lock()
        self._pieces: deque[memoryview] = deque()
        self._start = self._end = 0
        self._arriving = True
        self._key = ""

    # -- for the writer ------------------------------------------------------------------------

    def append(self, position: int, views: Sequence[memoryview]) -> None:
        """Add bytes, which do not change afterwards. Drop earlier bytes if these do not follow."""
        with self._lock:
            if position != self._end:
                self._pieces.clear()
                self._start = self._end = position
            for view in views:
                self._pieces.append(view)
                self._end += len(view)
            while self._end - self._start - len(self._pieces[0]) >= _MOST:
                self._start += len(self._pieces.popleft())

    def end(self, key: str = "") -> None:
        """End the stream; ``key`` is the object that the content became."""
        self._arriving, self._key = False, key

    # -- for readers ---------------------------------------------------------------------------

    def size(self) -> int:
        """Return how many bytes have arrived."""
        return self._end

    def read(self, position: int, count: int) -> bytes:
        """Return up to ``count`` of the bytes from ``position`` on; none of those that are not kept."""
        with self._lock:
            if not self._start <= position < self._end:
                return b""
            skipped, found = position - self._start, bytearray()
            for piece in self._pieces:
                if len(found) == count:
                    break
                found += piece[skipped : skipped + count - len(found)]
                skipped = max(0, skipped - len(piece))
        return bytes(found)

    def is_arriving(self) -> bool:
        """Return whether more may come."""
        return self._arriving

    def is_stored_as(self, digest: Digest) -> bool:
        """Return whether the store's content of ``digest`` is this one, committed."""
        found = self._rows.find(digest) if self._key else None
        return found is not None and found.key == self._key

    def close(self) -> None:
        """Do nothing: the memory is freed with the last reader and writer."""
