"""The registries that are observed: each with its own threads, pace and back-off."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from digestry.coordination.protocol import Coordination
from digestry.errors import Conflict
from digestry.model.tag_check import StatedRate
from digestry.registry.pull_through.config import MirrorConfig
from digestry.registry.pull_through.mirror import Mirror
from digestry.registry.pull_through.upstream import MakeUpstream

_T = TypeVar("_T")

_LITTLE: Final = 0.2
"""With less than this share of a stated limit left, requests are spread over the time until it is reset."""
_UNKNOWN_RESET: Final = 60.0
_LONGEST_PAUSE: Final = 3600.0
_POLL: Final = 0.2


class Stopped(Conflict):
    """The observer is being stopped."""

    def __init__(self) -> None:
        super().__init__("the observer is being stopped")


class Host:
    """A registry that is observed. Its requests wait for each other only, never for those to another one.

    ``mirror`` has the back-off, which it shares with the pull-through cache of all nodes.
    """

    def __init__(
        self,
        config: MirrorConfig,
        make_upstream: MakeUpstream,
        coordination: Coordination,
        scratch: Path,
        *,
        rate: float,
        parallel: int,
    ) -> None:
        self.mirror = Mirror(config, make_upstream(config), scratch, coordination)
        self.parallel = parallel
        self._threads = ThreadPoolExecutor(parallel, thread_name_prefix=f"observe-{config.host}")
        self._looking = ThreadPoolExecutor(1, thread_name_prefix=f"look-{config.host}")
        self._gap = 1 / rate
        self._lock = threading.Lock()
        self._next = 0.0
        self._spread = 0.0
        self._spread_until = 0.0

    def submit(self, work: Callable[[], _T]) -> Future[_T]:
        """Call ``work`` in one of the threads."""
        return self._threads.submit(work)

    def look(self, work: Callable[[], _T]) -> Future[_T]:
        """Call ``work``, which may fetch much, in a thread that no check waits for."""
        return self._looking.submit(work)

    def wait_turn(self, stop: threading.Event) -> bool:
        """Wait until the next request may be sent; return False if ``stop`` was set before. Who waits is not
        served in an order."""
        # No turn is given out ahead of time: who waits hears of a limit that was lifted, or came.
        while not stop.is_set():
            with self._lock:
                now = time.monotonic()
                spread = now < self._spread_until
                left = self._next - now
                if left <= 0:
                    gap = max(self._gap, self._spread) if spread else self._gap
                    gap *= random.uniform(0.8, 1.2)  # noqa: S311 - no secret
                    self._next = now + gap
                    if spread:  # after the reset there is a new limit
                        self._next = min(self._next, max(now + self._gap, self._spread_until))
                    return True
            stop.wait(min(left, _POLL))
        return False

    def require_turn(self, stop: threading.Event) -> None:
        """Wait as :meth:`wait_turn` does. Raises :class:`Stopped` if ``stop`` was set before."""
        if not self.wait_turn(stop):
            raise Stopped

    def obey(self, rate: StatedRate | None) -> None:
        """Slow down for a limit that the registry states: what is left of it is for other clients, too."""
        if rate is None:
            return
        little = rate.left <= 1 or (rate.limit is not None and rate.left < rate.limit * _LITTLE)
        with self._lock:
            if not little:
                self._spread_until = 0.0
                self._next = min(self._next, time.monotonic() + self._gap)
                return
            reset = min(_LONGEST_PAUSE, _UNKNOWN_RESET if rate.reset is None else rate.reset)
            self._spread = reset / max(1, rate.left)
            self._spread_until = time.monotonic() + reset
            if rate.left == 0:
                self._next = max(self._next, time.monotonic() + reset)

    def stop(self) -> None:
        """End the threads, after what they are doing."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._looking.shutdown(wait=True, cancel_futures=True)
        self.mirror.stop()
