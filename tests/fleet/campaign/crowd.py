"""A crowd of short containers in an engine of :mod:`tests.agent.engine`, and the ledger of their lives."""

from __future__ import annotations

import datetime
import heapq
import itertools
import random
import threading
import time
from collections.abc import Callable

from tests.agent.engine import Engine
from tests.fleet.campaign.ledger import Ledger, Life

PER_MINUTE = 2000


class Crowd:
    """Starts ``per_minute`` containers a minute, from 0.05 to 3 seconds long; one of twenty is started again
    before it is removed, and one of a hundred runs to the end. Half of them are removed as soon as they have
    ended."""

    def __init__(self, engine: Engine, *, per_minute: float = PER_MINUTE, seed: int = 1) -> None:
        self.ledger = Ledger()
        self._engine = engine
        self._pause = 60 / per_minute
        self._random = random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._ended = threading.Event()
        self._alive: dict[str, Life] = {}
        self.slowest = 0.0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Crowd:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        names = itertools.count()
        next_start = time.monotonic()
        while not self._ended.is_set() or self._due:
            now = time.monotonic()
            if not self._ended.is_set() and now >= next_start:
                self._begin(f"c{next(names):06}")
                next_start += self._pause
                self.slowest = max(self.slowest, now - next_start)
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2]()
            waits = [self._due[0][0]] if self._due else []
            waits += [] if self._ended.is_set() else [next_start]
            time.sleep(max(0.0, min(waits, default=0.0) - time.monotonic()))

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), act))

    def _begin(self, name: str) -> None:
        self._engine.create(name)
        self._start(name)
        if self._random.random() < 0.01:
            return
        starts = 2 if self._random.random() < 0.05 else 1
        self._later(self._length(), lambda: self._end(name, starts - 1))

    def _length(self) -> float:
        return float(0.05 * 60 ** self._random.random())

    def _start(self, name: str) -> None:
        self._engine.start(name)
        life = Life(name, self._between(name, "StartedAt"))
        self.ledger.lives.append(life)
        self._alive[name] = life

    def _end(self, name: str, more: int) -> None:
        self._engine.die(name)
        self._alive.pop(name).ended = self._between(name, "FinishedAt")
        if more:
            self._later(0.5, lambda: self._again(name))
        elif self._random.random() < 0.5:
            self._engine.destroy(name)
        else:
            self._later(self._length(), lambda: self._engine.destroy(name))

    def _again(self, name: str) -> None:
        self._start(name)
        self._later(0.5 + self._length(), lambda: self._end(name, 0))

    def _between(self, name: str, what: str) -> tuple[float, float]:
        """Return the time of a container, and of its event just now: a while later on a busy machine."""
        event = max(one["timeNano"] for one in self._engine.history[-4:] if one["Actor"]["ID"] == name)
        return self._at(name, what), event / 1e9 - self._engine.ahead

    def _at(self, name: str, what: str) -> float:
        """Return a time of a container by this machine's clock."""
        state: dict[str, str] = self._engine.containers[name]["State"]
        at = datetime.datetime.fromisoformat(f"{state[what][:26]}+00:00")
        return float(at.timestamp()) - self._engine.ahead
