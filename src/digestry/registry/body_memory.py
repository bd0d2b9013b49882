"""The memory that request bodies may take in one worker, divided among their senders.

A body that comes slowly is held until its end: from many connections together, that would be all memory.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from digestry.registry.error_responses import ErrorResponse

SMALL: Final = 256 << 10
"""Bytes of a body that are not counted."""
MOST: Final = 256 << 20
"""Bytes of all bodies of a worker that are."""


class BodyMemory:
    """The memory that bodies take in one worker, by their senders. For the event loop."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._held: Counter[str] = Counter()
        self._total = 0

    def take(self, owner: str, size: int) -> None:
        """Count ``size`` bytes more for ``owner``. Raises :class:`ErrorResponse` 429.

        Nobody has more than what is left for all others: of two who want everything, the second has half of
        what the first has, and who comes later always finds some.
        """
        if self._held[owner] + size > self._most - self._total - size:
            if not self._held[owner]:
                del self._held[owner]
            raise ErrorResponse(
                429,
                "TOOMANYREQUESTS",
                "too many large bodies are on their way in at once; try again",
                headers={"Retry-After": "5"},
                reason="memory",
            )
        self._held[owner] += size
        self._total += size

    def give_back(self, owner: str, size: int) -> None:
        """Count ``size`` bytes less."""
        self._total -= size
        self._held[owner] -= size
        if self._held[owner] <= 0:
            del self._held[owner]


BODIES: Final = BodyMemory()
"""Of this process."""
