"""Deadlines for whole answers of an upstream. A socket timeout alone begins anew with every byte."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Final

from digestry.errors import Unreachable

LARGE: Final = 512 << 10
"""Bytes of an answer that waits for its turn."""
_APART: Final = threading.Semaphore()


class Deadline:
    """The time limits of one question to an upstream, in seconds: ``patience`` for each answer, including the
    connection, and ``total`` for all of them. Used by one thread.

    A blob's bytes take their own time: each buys some more, by ``rate`` in a second, but never more than
    ``patience`` in advance. Only the time counts in which they are waited for.

    An answer that is read as a whole, and is large, waits for ``turn``: one of an upstream's is held at a
    time. And one of all upstreams' is taken apart at a time: that costs far more than to send it.
    """

    def __init__(self, patience: float, total: float, rate: float, turn: threading.Semaphore) -> None:
        self.patience = patience
        self._turn = turn
        self._size = 0
        self._turns = contextlib.ExitStack()
        self._rate = rate
        self._end = time.monotonic() + total
        self._until = min(self._end, time.monotonic() + patience)
        self._credit: float | None = None
        self._waiting_since = 0.0

    def next_answer(self, host: str) -> None:
        """Start the time of the next answer, from ``host``. Raises :class:`Unreachable` if it is too late."""
        self._credit = None
        self.let_go()
        if time.monotonic() >= self._end:
            raise Unreachable(f"cannot reach {host}: it does not answer in time")
        self._until = min(self._end, time.monotonic() + self.patience)

    def begin_stream(self) -> None:
        """Switch from the answer's deadline to the least rate of a blob's body."""
        self._credit = self.patience
        self._waiting_since = time.monotonic()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time spent in the block as waiting for a blob's bytes."""
        self._waiting_since = time.monotonic()
        try:
            yield
        finally:
            if self._credit is not None:
                self._credit -= time.monotonic() - self._waiting_since

    def received(self, count: int) -> None:
        """Count ``count`` received bytes of the body."""
        if self._credit is not None:
            self._credit = min(self.patience, self._credit + count / self._rate)
            return
        before, self._size = self._size, self._size + count
        if before < LARGE <= self._size:
            self._take(self._turn)

    def ended(self) -> None:
        """Note that the whole body has arrived."""
        if self._size >= LARGE:
            self._size = 0
            self._take(_APART)

    def let_go(self) -> None:
        """Note that the answer is no longer needed."""
        self._size = 0
        self._turns.close()

    def _take(self, turn: threading.Semaphore) -> None:
        if not turn.acquire(timeout=self.left()):
            raise TimeoutError("timed out")
        self._turns.callback(turn.release)

    def left(self) -> float:
        """Return the seconds until the deadline, 0 or more."""
        now = time.monotonic()
        if self._credit is None:
            return max(0.0, self._until - now)
        return max(0.0, self._credit - (now - self._waiting_since))


class _Current(threading.local):
    deadline: Deadline | None = None


_current: Final = _Current()


def current() -> Deadline | None:
    """Return the deadline that applies to this thread's requests."""
    return _current.deadline


@contextlib.contextmanager
def limited(patience: float, total: float, rate: float, turn: threading.Semaphore) -> Iterator[Deadline]:
    """Limit this thread's requests in the block to so many seconds, and a blob's bytes to a least rate."""
    before, _current.deadline = _current.deadline, Deadline(patience, total, rate, turn)
    deadline = _current.deadline
    try:
        yield deadline
    finally:
        deadline.let_go()
        _current.deadline = before


def begin_stream() -> None:
    """Switch the current deadline to a stream of a blob's bytes."""
    if _current.deadline is not None:
        _current.deadline.begin_stream()
