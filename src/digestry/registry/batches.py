"""Batches: items that wait are processed together, as soon as a thread is free.

While the disk makes one batch durable, the next one gathers. So the more clients wait, the more of them share
one wait for the disk, and a single client never waits for others.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

T = TypeVar("T")

Then: TypeAlias = Callable[[], None]
"""The work that a batch does at its end, when the next batch may begin."""

_MOST: Final = 32


class Threads(Protocol):
    """Threads that take work, such as a :class:`~digestry.registry.thread_stack.ThreadStack`."""

    def submit(self, work: Callable[[], object], /) -> object:
        """Have a thread call ``work``. Raises :class:`RuntimeError` if they are being stopped."""
        ...


class Batches(Generic[T]):
    """A queue whose items ``do`` takes, all that wait at once, up to ``most``. Thread-safe.

    ``at_once`` batches are done at a time, in ``threads``.
    """

    def __init__(
        self,
        do: Callable[[list[T]], Then | None],
        threads: Threads,
        *,
        most: int = _MOST,
        at_once: int = 1,
    ) -> None:
        self._do = do
        self._threads = threads
        self._most = most
        self._waiting: deque[T] = deque()
        self._at_once = at_once
        self._busy = 0
        self._lock = threading.Lock()

    def add(self, items: Iterable[T], *, here: bool = False) -> None:
        """Queue ``items``. With ``here``, and unless others do that, do them in this thread."""
        with self._lock:
            self._waiting.extend(items)
            if self._busy == self._at_once or not self._waiting:
                return
            self._busy += 1
        if here or not self._submitted():
            self._work()

    def _submitted(self) -> bool:
        """Have another thread do the batches; return False if the threads are being stopped."""
        try:
            self._threads.submit(self._work)
        except RuntimeError:
            return False
        return True

    def _work(self) -> None:
        while batch := self._next():
            then = self._do(batch)
            if then is not None:
                with self._lock:
                    waiting = bool(self._waiting)
                    self._busy -= not waiting
                handed_on = not waiting or self._submitted()
                then()
                if handed_on:
                    return

    def _next(self) -> list[T]:
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            self._busy -= not batch
            another = bool(self._waiting) and 0 < self._busy < self._at_once
            self._busy += another
        if another and not self._submitted():
            with self._lock:
                self._busy -= 1  # this thread does it all
        return batch
