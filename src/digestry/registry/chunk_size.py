"""The size of the chunks in which large blobs are sent."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import Final

LARGEST: Final = 2 << 20
AMONG_OTHERS: Final = 512 << 10
LEAST: Final = 128 << 10
FIRST: Final = 64 << 10
SMALLEST: Final = 8 << 10
KNOWN: Final = 8 << 20
"""Who has taken so many bytes is known to read."""
_TOGETHER: Final = 32 << 20
_UNKNOWN_TOGETHER: Final = 8 << 20
_UNDER_WAY: Final = 8 << 20
_FEW: Final = 16
_BEGUN_AT_ONCE: Final = 32
_LONGEST_PAUSE: Final = 0.25
_LOOKS: Final = 2000
"""How often in a second it is looked at most whether clients have taken what they were sent."""


class ChunkSize:
    """Chooses the chunk size in one worker process, on its event loop.

    Large parts cost less, since each is handed over once. But nobody else is answered while one is read and
    handed over, and up to half a dozen of them are kept for each client that is slow. So they are smaller
    while others are answered, and the smaller, the more blobs are being sent.
    """

    def __init__(self) -> None:
        self._sending = 0
        self.beginning = asyncio.Semaphore(_BEGUN_AT_ONCE)
        """Held around the start of sending a blob. Thousands of requests at once wait for each other here,
        and do not delay all others."""

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """Count the blob that is sent inside the block."""
        self._sending += 1
        try:
            yield
        finally:
            self._sending -= 1

    @property
    def under_way(self) -> int:
        """Bytes that may be under way to a client that has not shown yet that it reads; with few clients, as
        many as the kernel takes."""
        # With the square: together they have not much more, though the first of many were given more.
        others = max(1, self._sending // _FEW)
        return max(SMALLEST, _UNDER_WAY // (others * others)) if others > 1 else sys.maxsize

    @property
    def pause(self) -> float:
        """Seconds after which, at the latest, it is looked again whether a client has taken them."""
        return max(_LONGEST_PAUSE, self._sending / _LOOKS)

    def size(self, *, alone: bool, taken: int = KNOWN, slow: bool = False) -> int:
        """Return the size of the next chunk, in bytes; ``alone`` if no other client was answered since the
        last one.

        ``taken`` is how many bytes the client has verifiably read by now: no large chunks are kept for a
        client that reads nothing. ``slow``: the server waits for it.
        """
        size = LARGEST if alone else AMONG_OTHERS
        while size > LEAST and size * self._sending > _TOGETHER:
            size //= 2
        if taken >= KNOWN and not slow:
            return size
        first = min(FIRST, max(SMALLEST, _UNKNOWN_TOGETHER // max(1, self._sending)))
        return min(size, first if slow else max(first, taken // 4))
