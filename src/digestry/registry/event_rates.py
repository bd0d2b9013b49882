"""Limits on how often something happens: some at once, and then so many a second."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable


class EventRates:
    """Admits, for each key, ``burst`` events at once, and ``rate`` a second after these. Thread-safe.

    At most ``most`` keys are remembered, those that came last; a forgotten one begins anew.
    """

    def __init__(
        self,
        rate: float,
        burst: int,
        *,
        most: int = 1000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, key: str) -> float:
        """Return 0, and count an event of ``key``; or, without counting it, after how many seconds it may
        happen."""
        with self._lock:
            now = self._clock()
            left, at = self._left.get(key, (float(self._burst), now))
            left = min(float(self._burst), left + (now - at) * self._rate)
            admitted = left >= 1.0
            self._left[key] = (left - 1.0 if admitted else left), now
            self._left.move_to_end(key)
            while len(self._left) > self._most:
                self._left.popitem(last=False)
            return 0.0 if admitted else (1.0 - left) / self._rate
