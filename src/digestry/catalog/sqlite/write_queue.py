"""The write queue: a fair lock among the processes that write to a catalog.

SQLite's lock has no queue: a waiting process sleeps and tries again after up to 100 ms, while a busy
process that has just released the lock takes it once more. With this queue at most one process waits for
SQLite's lock and polls it often, and the process that last had the lock queues behind it. Threads of one
process have a ``threading.Lock`` for the same purpose; this lock is among processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

_SLICE: Final = 0.02
"""Seconds for which a process may keep writing without queueing again: its cache of the catalog is valid
until another process writes, so that alternation costs all of them."""

_FIRST_PAUSE: Final = 0.0002
_LONGEST_PAUSE: Final = 0.002
_GROWTH: Final = 1.25


class WriteQueue:
    """A queue on the ``flock`` of the directory ``root``, which has no other use. For one thread at a time.

    Only order depends on this lock, never correctness: without it, :meth:`pass_through` asks for SQLite's
    lock regardless.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._descriptor: int | None = None
        self._slice_end = 0.0

    def pass_through(self, attempt: Callable[[], bool], *, seconds: float) -> bool:
        """Call ``attempt`` in this process's turn until it returns True. Return False on timeout."""
        now = time.monotonic()
        if now < self._slice_end and attempt():
            return True
        end = now + seconds
        with self._first_in_line(end):
            if not _poll(attempt, end):
                return False
            self._slice_end = time.monotonic() + _SLICE
            return True

    @contextlib.contextmanager
    def _first_in_line(self, end: float) -> Iterator[None]:
        # The file catalog.db itself must not be opened: closing it would drop SQLite's own locks (POSIX).
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            yield
            return
        descriptor = self._descriptor
        _poll(lambda: _flock(descriptor), end)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the directory."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _flock(descriptor: int) -> bool:
    """Return False while another process has the lock. A file system without locks has no order to keep."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _poll(attempt: Callable[[], bool], end: float) -> bool:
    pause = _FIRST_PAUSE
    while not attempt():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
        pause = min(pause * _GROWTH, _LONGEST_PAUSE)
    return True
