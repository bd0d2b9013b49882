"""Hashes of incoming content: one that is computed while it is written, and the digest that is known so far.

Hashing takes longer than writing, and both let other threads run. In one thread, an upload would take the sum
of both times: so long content is hashed in a thread of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from digestry.model.digest import Digest, new_hasher

if TYPE_CHECKING:
    import queue

_WORTH: Final = 512 << 10
"""The number of bytes at once from which a thread is worth its start."""
_AHEAD: Final = 2
"""The most batches that wait in memory to be hashed."""

_Batch = Sequence[memoryview] | Callable[[], None]


class RunningHash:
    """The hash of bytes that come in order. Not for several threads at once."""

    def __init__(self, algorithm: str) -> None:
        self._hasher = new_hasher(algorithm)
        self._batches: queue.Queue[_Batch | None] | None = None
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

    def call_after(self, function: Callable[[], None]) -> None:
        """Call ``function`` once all bytes so far are hashed, perhaps in another thread."""
        if self._batches is None:
            function()
        else:
            self._batches.put(function)

    def hexdigest(self) -> str:
        """Return the hash of all bytes so far, in hex."""
        self._drain()
        return self._hasher.hexdigest()

    def close(self) -> None:
        """End the thread, if there is one. The hash is not available afterwards."""
        if self._batches is not None and self._thread is not None:
            self._batches.put(None)
            self._thread = self._batches = None

    def _waiting(self) -> queue.Queue[_Batch | None]:
        if self._batches is None:
            import queue  # noqa: PLC0415 - small contents need none

            self._batches = queue.Queue(_AHEAD)
            self._thread = threading.Thread(target=self._run, args=(self._batches,), name="hash", daemon=True)
            self._thread.start()
        return self._batches

    def _run(self, batches: queue.Queue[_Batch | None]) -> None:
        while (batch := batches.get()) is not None:
            if callable(batch):
                batch()
            else:
                self._hash(batch)
            del batch  # it may be long before the next one comes
            batches.task_done()

    def _hash(self, views: Sequence[memoryview]) -> None:
        for view in views:
            self._hasher.update(view)

    def _drain(self) -> None:
        if self._batches is not None:
            self._batches.join()


class IngestHash:
    """The digest of incoming content, if it need not be read again. Not for several threads at once."""

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._known: Digest | None = None
        self._running: RunningHash | None = None

    def begin(self, offset: int, known: Digest | None = None) -> None:
        """Go on after ``offset`` bytes, whose digest is ``known``. A hash runs along from the first on."""
        self.close()
        self._known = known
        self._running = RunningHash(self._algorithm) if offset == 0 else None

    def update(self, views: Sequence[memoryview], *, lasting: bool) -> None:
        """Add ``views``; see :meth:`RunningHash.update`."""
        self._known = None
        if self._running is not None:
            self._running.update(views, lasting=lasting)

    def call_after(self, function: Callable[[], None]) -> None:
        """Call ``function`` once the hash no longer reads the bytes so far; see
        :meth:`RunningHash.call_after`."""
        if self._running is None:
            function()
        else:
            self._running.call_after(function)

    def digest(self, algorithm: str) -> Digest | None:
        """Return the digest of all bytes so far; None if that requires reading them."""
        if self._known is not None and self._known.algorithm == algorithm:
            return self._known
        if self._running is not None and algorithm == self._algorithm:
            return Digest(algorithm, self._running.hexdigest())
        return None

    def close(self) -> None:
        """Forget the digest, and end the hash's thread."""
        self._known = None
        if self._running is not None:
            self._running.close()
            self._running = None
