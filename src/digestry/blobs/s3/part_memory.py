"""The memory that the uploads of one process share: so many parts at once, and no more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
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
        self._waiting: dict[PartHolder, float] = {}
        self._holders: set[PartHolder] = set()
        self._called: set[PartHolder] = set()

    def is_whole(self) -> bool:
        """Return whether nobody has a slot, or waits for one."""
        with self._changed:
            return not self._waiting and not self._holders

    def try_take(self, holder: PartHolder) -> bool:
        """Take a slot if it is the holder's turn; else it waits from now on, and may ask again.

        Raises :class:`StorageBusy` once it has waited for too long.
        """
        with self._changed:
            now = time.monotonic()
            since = self._waiting.setdefault(holder, now)
            # A dict keeps the order in which they came.
            if self._free and holder in list(self._waiting)[: self._free]:
                del self._waiting[holder]
                self._free -= 1
                self._holders.add(holder)
                return True
            if now - since > self._patience:
                del self._waiting[holder]
                raise StorageBusy(
                    "too many uploads are under way for the memory that they share", hint="try again later"
                )
            self._call_idle(now)
            return False

    def take(self, holder: PartHolder) -> None:
        """Wait for a slot. Raises :class:`StorageBusy` after the patience."""
        while not self.try_take(holder):
            with self._changed:
                self._changed.wait(_LOOK_SECONDS)

    def _call_idle(self, now: float) -> None:
        """Call the stream that has been idle longest."""
        idle = [one for one in self._holders - self._called if now - one.idle_since() > _IDLE_SECONDS]
        if idle:
            holder = min(idle, key=lambda one: one.idle_since())
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
            self._holders.discard(holder)

    def sent(self) -> None:
        """Free the slot of a part that was sent."""
        with self._changed:
            self._free += 1
            self._changed.notify_all()

    def leave(self, holder: PartHolder) -> None:
        """Free the slot of ``holder``, if it has one, and its turn, if it waits."""
        with self._changed:
            self._waiting.pop(holder, None)
            if holder in self._holders:
                self._holders.discard(holder)
                self._free += 1
            self._changed.notify_all()
