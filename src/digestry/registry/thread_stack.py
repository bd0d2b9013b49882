"""Threads for work that may wait for the disk; of those that are idle, the one that worked last is woken.

``concurrent.futures.ThreadPoolExecutor`` wakes one idle thread after the other for each piece of work, each
of which then competes for the interpreter's lock, and makes a future with a lock of its own. For a short
piece both take longer than the work.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

log: Final = logging.getLogger("digestry.registry")

Work: TypeAlias = Callable[[], object]


class _Thread:
    """A thread of the stack, with the work that it is given."""

    def __init__(self, name: str, run: Callable[[_Thread], None]) -> None:
        self.work: Work | None = None
        self.wake = threading.Lock()
        self.wake.acquire()
        # As a daemon it does not keep a process that ends in another way than by ``shutdown``.
        self.thread = threading.Thread(target=run, args=(self,), name=name, daemon=True)


class ThreadStack:
    """Up to ``most`` threads, each made when it is needed. Thread-safe."""

    def __init__(self, most: int, *, name: str) -> None:
        """``name`` is the beginning of the threads' names."""
        self._most = most
        self._name = name
        self._lock = threading.Lock()
        self._threads: list[_Thread] = []
        self._idle: list[_Thread] = []
        self._waiting: deque[Work] = deque()
        self._stopped = False

    @property
    def made(self) -> int:
        """Return how many threads there are."""
        return len(self._threads)

    @property
    def idle(self) -> int:
        """Return how many of them have no work."""
        return len(self._idle)

    def submit(self, work: Work, /) -> None:
        """Have a thread call ``work``. Raises :class:`RuntimeError` after :meth:`shutdown`."""
        with self._lock:
            if self._stopped:
                raise RuntimeError("these threads are being stopped")
            if self._idle:
                thread = self._idle.pop()
            elif len(self._threads) < self._most:
                thread = _Thread(f"{self._name}_{len(self._threads)}", self._run)
                thread.thread.start()
                self._threads.append(thread)
            else:
                self._waiting.append(work)
                return
            thread.work = work
        thread.wake.release()

    def _run(self, thread: _Thread) -> None:
        while True:
            thread.wake.acquire()
            # Taken before it is idle again: from then on others give it work.
            work, thread.work = thread.work, None
            while work is not None:
                try:
                    work()
                except Exception:
                    log.exception("work of the thread %s failed", thread.thread.name)
                work = self._next(thread)
            if self._stopped:
                return

    def _next(self, thread: _Thread) -> Work | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._idle.append(thread)
            return None

    def shutdown(self) -> None:
        """Take no more work, and wait until all of it is done. Blocks."""
        with self._lock:
            self._stopped = True
            threads, idle = list(self._threads), self._idle
            self._idle = []
        for thread in idle:
            thread.wake.release()
        for thread in threads:
            thread.thread.join()
