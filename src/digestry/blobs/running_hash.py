"""A hash that is computed while content is written, in a thread of its own for long content.

Hashing takes longer than writing, and both let other threads run. One after the other, they would take
an upload the sum of both times.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import Final

from digestry.model.digest import new_hasher

_WORTH: Final = 512 << 10
"""The number of bytes at once from which a thread is worth its start."""
_AHEAD: Final = 2
"""The most batches that wait in memory to be hashed."""


class RunningHash:
    """The hash of bytes that come in order. Not for several threads at once."""

    def __init__(self, algorithm: str) -> None:
        self._hasher = new_hasher(algorithm)
        self._batches: queue.Queue[Sequence[memoryview] | None] | None = None
        self._thread: threading.Thread | None = None

    def update(self, views: Sequence[memoryview], *, lasting: bool) -> None:
        """Add ``views`` to the hash.

        Without ``lasting`` the caller may change their bytes afterwards: they are hashed when this returns.
        """
        if lasting and (self._thread is not None or sum(map(len, views)) >= _WORTH):
            self._waiting().put(views)
            return
        self._drain()
        self._hash(views)

    def hexdigest(self) -> str:
        """Return the hash of all bytes so far, in hex."""
        self._drain()
        return self._hasher.hexdigest()

    def close(self) -> None:
        """End the thread, if there is one. The hash cannot be asked for afterwards."""
        if self._batches is not None and self._thread is not None:
            self._batches.put(None)
            self._thread = self._batches = None

    def _waiting(self) -> queue.Queue[Sequence[memoryview] | None]:
        if self._batches is None:
            self._batches = queue.Queue(_AHEAD)
            self._thread = threading.Thread(target=self._run, args=(self._batches,), name="hash", daemon=True)
            self._thread.start()
        return self._batches

    def _run(self, batches: queue.Queue[Sequence[memoryview] | None]) -> None:
        while (views := batches.get()) is not None:
            self._hash(views)
            batches.task_done()

    def _hash(self, views: Sequence[memoryview]) -> None:
        for view in views:
            self._hasher.update(view)

    def _drain(self) -> None:
        if self._batches is not None:
            self._batches.join()
