"""The memory that the uploads of one process share: so many parts at once, and no more."""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from digestry.errors import StorageBusy

_IDLE_SECONDS: Final = 2.0
"""How long a stream may keep a part that does not grow, while others wait."""
_LOOK_SECONDS: Final = 0.05
_ASKING_SECONDS: Final = 1.0
"""Seconds after which a stream that has not asked again loses its turn, until it asks."""


class PartHolder(Protocol):
    """A stream that collects a part in memory."""

    def idle_since(self) -> float:
        """Return when it was written to last, by the monotonic clock."""
        ...

    def put_aside(self) -> None:
        """Write the buffered bytes to the store, and release the memory, unless it is in use now. Blocks."""
        ...


class PartBuffer:
    """The memory of one part, filled by one thread at a time. It is used again for the parts after it."""

    def __init__(self, size: int) -> None:
        # Not from the allocator, which would keep a hole of this size in each thread's memory.
        self._memory = memoryview(mmap.mmap(-1, size))
        self.filled = 0
        """How many bytes are in it."""
        self.users = 0
        """How many users must release it before it is used again."""

    def keep(self, view: memoryview) -> memoryview:
        """Copy some bytes after those that are there, and return the copy."""
        end = self.filled + len(view)
        copy = self._memory[self.filled : end]
        copy[:] = view
        self.filled = end
        return copy


class PartMemory:
    """Buffers for ``slots`` parts of ``size`` bytes. Thread-safe. The holder that waits longest gets the
    next.

    While others wait, ``in_background`` makes an idle stream with a buffer write its part to the store.
    """

    def __init__(
        self, slots: int, size: int, patience: float, in_background: Callable[[Callable[[], None]], object]
    ) -> None:
        self._size = size
        self._unmade = slots
        self._free: list[PartBuffer] = []
        self._patience = patience
        self._in_background = in_background
        self._changed = threading.Condition()
        self._waiting: dict[PartHolder, float] = {}  # since when, in the order in which they came
        self._asked: dict[PartHolder, float] = {}
        self._holders: dict[PartHolder, tuple[float, PartBuffer]] = {}  # since when
        self._called: set[PartHolder] = set()

    def buffer_of(self, holder: PartHolder) -> PartBuffer | None:
        """Return the buffer that ``holder`` has."""
        held = self._holders.get(holder)
        return None if held is None else held[1]

    def is_whole(self) -> bool:
        """Return whether all buffers are free, and no holder waits for one."""
        with self._changed:
            return not self._waiting and not self._holders

    def try_take(self, holder: PartHolder) -> bool:
        """Return whether ``holder`` has a buffer. One is taken if it is its turn, else it waits.

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
            if holder in self._next(now):
                self._stop_waiting(holder)
                self._holders[holder] = now, self._new_buffer()
                return True
            if now - since > self._patience:
                self._stop_waiting(holder)
                raise StorageBusy(
                    "too many uploads are under way for the memory that they share", hint="try again later"
                )
            self._call_idle(now)
            return False

    def _next(self, now: float) -> list[PartHolder]:
        """Return the holders whose turn it is, except for those that have not asked for a while."""
        asking = [holder for holder in self._waiting if now - self._asked[holder] < _ASKING_SECONDS]
        return asking[: len(self._free) + self._unmade]

    def _new_buffer(self) -> PartBuffer:
        if self._free:
            return self._free.pop()
        self._unmade -= 1
        return PartBuffer(self._size)

    def _stop_waiting(self, holder: PartHolder) -> None:
        self._waiting.pop(holder, None)
        self._asked.pop(holder, None)

    def take(self, holder: PartHolder) -> None:
        """Wait for a buffer. Raises :class:`StorageBusy` after the patience."""
        while not self.try_take(holder):
            with self._changed:
                self._changed.wait(_LOOK_SECONDS)

    def _call_idle(self, now: float) -> None:
        """Call the stream that has been idle longest."""
        others = [item for item in self._holders.items() if item[0] not in self._called]
        since = {holder: max(taken, holder.idle_since()) for holder, (taken, _) in others}
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

    def give_up(self, holder: PartHolder, *, users: int) -> PartBuffer | None:
        """Take the buffer of ``holder`` away from it, and its turn, if it waits; return the buffer.

        The next gets it when each of its ``users`` has called :meth:`free`.
        """
        with self._changed:
            self._stop_waiting(holder)
            _, buffer = self._holders.pop(holder, (0.0, None))
            if buffer is not None:
                buffer.users = users
            return buffer

    def free(self, buffer: PartBuffer) -> None:
        """Let go of a buffer that was given up."""
        with self._changed:
            buffer.users -= 1
            if buffer.users == 0:
                buffer.filled = 0
                self._free.append(buffer)
                self._changed.notify_all()
