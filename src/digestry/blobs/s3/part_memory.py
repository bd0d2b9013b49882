"""The memory that the uploads of one process share: so many parts at once, and no more."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Final, Protocol

from digestry.errors import StorageBusy

_IDLE_SECONDS: Final = 0.3
"""How long a stream may keep a part that does not grow, while others wait."""
_LOOK_SECONDS: Final = 0.05


class PartHolder(Protocol):
    """A stream that collects a part in memory."""

    def idle_since(self) -> float:
        """Return when it was written to last, by the monotonic clock."""
        ...

    def put_aside(self) -> bool:
        """Write what it has to the store, and give its memory back; return False if it is in use now."""
        ...


class PartMemory:
    """Slots for ``slots`` parts. Thread-safe. Who waits longest gets the next."""

    def __init__(self, slots: int, patience: float) -> None:
        self._free = slots
        self._patience = patience
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._holders: set[PartHolder] = set()

    def has_room(self) -> bool:
        """Return whether a slot is free, and nobody waits for it."""
        return self._free > 0 and not self._waiting

    def take(self, holder: PartHolder) -> None:
        """Wait for a slot. A stream that keeps one without writing gives it up.

        Raises :class:`StorageBusy` if none is free for too long.
        """
        deadline = time.monotonic() + self._patience
        turn = object()
        with self._changed:
            self._waiting.append(turn)
        try:
            while not self._taken(turn, holder):
                if time.monotonic() >= deadline:
                    raise StorageBusy(
                        "too many uploads are under way for the memory that they have", hint="try again"
                    )
                self._make_room()
        finally:
            with self._changed:
                self._waiting.remove(turn)
                self._changed.notify_all()

    def _taken(self, turn: object, holder: PartHolder) -> bool:
        with self._changed:
            if not self._free or self._waiting[0] is not turn:
                self._changed.wait(_LOOK_SECONDS)
            if not self._free or self._waiting[0] is not turn:
                return False
            self._free -= 1
            self._holders.add(holder)
            return True

    def _make_room(self) -> None:
        """Let the stream that has been idle longest put its part aside."""
        now = time.monotonic()
        with self._changed:
            idle = [one for one in self._holders if now - one.idle_since() > _IDLE_SECONDS]
        for holder in sorted(idle, key=lambda one: one.idle_since()):
            if holder.put_aside():
                return

    def sending(self, holder: PartHolder) -> None:
        """Note that the part of ``holder`` is complete: its slot is free when it was sent."""
        with self._changed:
            self._holders.discard(holder)

    def give_back(self, holder: PartHolder | None = None) -> None:
        """Free a slot: of a part that was sent, or of what ``holder`` collects."""
        with self._changed:
            if holder is not None:
                self._holders.discard(holder)
            self._free += 1
            self._changed.notify_all()
