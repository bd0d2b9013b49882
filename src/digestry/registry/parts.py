"""How large the parts are in which large blobs are sent."""

from __future__ import annotations

import contextlib
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


class Parts:
    """Of one worker process, on its event loop.

    Large parts cost less, since each is handed over once. But nobody else is answered while one is read and
    handed over, and up to half a dozen of them are kept for each client that is slow. So they are smaller
    while others are answered, and the smaller, the more blobs are being sent.
    """

    def __init__(self) -> None:
        self._sending = 0

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """Around the sending of one blob."""
        self._sending += 1
        try:
            yield
        finally:
            self._sending -= 1

    def size(self, *, alone: bool, taken: int = KNOWN, slow: bool = False) -> int:
        """Of the next part, in bytes; ``alone`` if nobody else was answered since the last one.

        ``taken`` is how many bytes the client has verifiably read by now: who reads nothing must not have
        large parts kept. ``slow``: it lets the server wait.
        """
        size = LARGEST if alone else AMONG_OTHERS
        while size > LEAST and size * self._sending > _TOGETHER:
            size //= 2
        if taken >= KNOWN and not slow:
            return size
        first = min(FIRST, max(SMALLEST, _UNKNOWN_TOGETHER // max(1, self._sending)))
        return min(size, first if slow else max(first, taken // 4))
