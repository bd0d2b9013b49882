"""The memory that the uploads of one process share: so many parts at once, and no more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from digestry.errors import StorageBusy

_IDLE_SECONDS: Final = 2.0
"""How long a stream may keep a part that does not grow, while others wait."""
_LOOK_SECONDS: Final = 0.05
_ASKING_SECONDS: Final = 1.0
"""After how long a stream that has not asked again loses its turn, until it asks."""


class PartHolder(Protocol):
    """A stream that collects a part in memory."""

    def idle_since(self) -> float:
        """Return when it was written to last, by the monotonic clock."""
        ...

    def put_aside(self) -> None:
        """Write what it has to the store, and give its memory back, unless it is in use now. Blocks."""
        ...


class PartMemory:
    """Slots for ``slots`` parts. Thread-safe. Who waits longest gets the next.

    A stream that keeps a slot and does not go on, while others wait, is called to put its part aside, by
    ``in_background``.
    """

    def __init__(
        self, slots: int, patience: float, in_background: Callable[[Callable[[], None]], object]
    ) -> None:
        self._free = slots
        self._patience = patience
        self._in_background = in_background
        self._changed = threading.Condition()
        self._waiting: dict[PartHolder, float] = {}  # since when, in the order in which they came
        self._asked: dict[PartHolder, float] = {}
        self._holders: dict[PartHolder, float] = {}
        self._called: set[PartHolder] = set()

    def has_slot(self, holder: PartHolder) -> bool:
        """Return whether ``holder`` has a slot."""
        return holder in self._holders

    def is_whole(self) -> bool:
        """Return whether nobody has a slot, or waits for one."""
        with self._changed:
            return not self._waiting and not self._holders

    def try_take(self, holder: PartHolder) -> bool:
        """Return whether ``holder`` has a slot. One is taken if it is its turn, else it waits.

        Raises :class:`StorageBusy` once it has waited for too long.
        """
        if holder in self._holders:
            return True
        with self._changed:
            if holder in self._holders:  # it has two threads that ask
                return True
            now = time.monotonic()
            since = self._waiting.setdefault(holder, now)
            self._asked[holder] = now
            if self._free and holder in self._next(now):
                self._stop_waiting(holder)
                self._free -= 1
                self._holders[holder] = now
                return True
            if now - since > self._patience:
                self._stop_waiting(holder)
                raise StorageBusy(
                    "too many uploads are under way for the memory that they share", hint="try again later"
                )
            self._call_idle(now)
            return False

    def _next(self, now: float) -> list[PartHolder]:
        """Return those whose turn it is, passing over who has not asked for a while."""
        asking = [one for one in self._waiting if now - self._asked[one] < _ASKING_SECONDS]
        return asking[: self._free]

    def _stop_waiting(self, holder: PartHolder) -> None:
        self._waiting.pop(holder, None)
        self._asked.pop(holder, None)

    def take(self, holder: PartHolder) -> None:
        """Wait for a slot. Raises :class:`StorageBusy` after the patience."""
        while not self.try_take(holder):
            with self._changed:
                self._changed.wait(_LOOK_SECONDS)

    def _call_idle(self, now: float) -> None:
        """Call the stream that has been idle longest."""
        others = [item for item in self._holders.items() if item[0] not in self._called]
        since = {holder: max(taken, holder.idle_since()) for holder, taken in others}
        holder = min(since, key=since.__getitem__, default=None)
        if holder is not None and now - since[holder] > _IDLE_SECONDS:
            self._called.add(holder)
            self._in_background(lambda: self._put_aside(holder))

    def _put_aside(self, holder: PartHolder) -> None:
        try:
            holder.put_aside()
        finally:
            with self._changed:
                self._called.discard(holder)

    def sending(self, holder: PartHolder) -> None:
        """Note that the part of ``holder`` is complete: :meth:`sent` frees its slot."""
        with self._changed:
            self._holders.pop(holder, None)

    def sent(self) -> None:
        """Free the slot of a part that was sent."""
        with self._changed:
            self._free += 1
            self._changed.notify_all()

    def leave(self, holder: PartHolder) -> None:
        """Free the slot of ``holder``, if it has one, and its turn, if it waits."""
        with self._changed:
            self._stop_waiting(holder)
            if self._holders.pop(holder, None) is not None:
                self._free += 1
            self._changed.notify_all()
