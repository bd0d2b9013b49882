"""A throttle: it keeps long work beside the requests to a share of one processor."""

from __future__ import annotations

import time
from typing import Final

_LONGEST: Final = 1.0
_WORTH: Final = 0.001


class Throttle:
    """Keeps one thread to a ``share`` (0 to 1) of one processor while it looks, and to ``working`` while
    it finds something to do, by pauses. For that thread alone.

    Niceness is not enough for that: a processor that would be idle is given away whole, and its
    sibling, which shares a core with it, becomes slower.
    """

    def __init__(self, share: float, working: float) -> None:
        self._pauses = (1 / share - 1, 1 / working - 1)
        self._used = time.thread_time()

    def pause(self, *, working: bool = False) -> None:
        """Pause in proportion to the processor time used since the last pause."""
        pause = (time.thread_time() - self._used) * self._pauses[working]
        if pause >= _WORTH:
            time.sleep(min(pause, _LONGEST))
            self._used = time.thread_time()
