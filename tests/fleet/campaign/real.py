"""Real engines that run short containers, and the ledger of what they did.

A container's start and end are between the times at which a command began and ended: no engine is believed
about itself.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable

from tests.e2e.engines import Engine
from tests.e2e.reality.runtimes import Containerd, Docker, Podman, Runtime
from tests.fleet.campaign.ledger import Ledger, Life

LIMITS = ("--ulimit=nofile=256:256", "--ulimit=nproc=512:512")


class RealCrowd:
    """``workers`` that each start a container, wait, kill it, and remove it."""

    def __init__(self, runtime: Runtime, image: str, *, workers: int = 3, seed: int = 3) -> None:
        self.ledger = Ledger()
        self.failures: list[str] = []
        self._runtime = runtime
        self._image = image
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._random = random.Random(seed)
        self._threads = [threading.Thread(target=self._work) for _ in range(workers)]
        self._idle = threading.Condition()
        self._busy = 0
        self._paused = False

    def __enter__(self) -> RealCrowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.go_on()
        for thread in self._threads:
            thread.join()

    def pause(self) -> None:
        """Wait until no command is under way, and start none before :meth:`go_on`."""
        with self._idle:
            self._paused = True
            self._idle.wait_for(lambda: not self._busy)

    def go_on(self) -> None:
        with self._idle:
            self._paused = False
            self._idle.notify_all()

    def _do(self, act: Callable[[], str]) -> tuple[tuple[float, float], str]:
        with self._idle:
            self._idle.wait_for(lambda: not self._paused)
            self._busy += 1
        low = time.time()
        try:
            said = act()
        finally:
            high = time.time()
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()
        return (low, high), said

    def _work(self) -> None:
        while not self._ended.is_set():
            try:
                self._one()
            except BaseException as error:  # noqa: BLE001 - shown by the test
                self.failures.append(f"{error}"[:500])

    def _one(self) -> None:
        with self._lock:
            name = f"camp-{next(self._numbers):05}"
            length, again, stays = self._random.random() * 1.5, self._random.random(), self._random.random()
        started, identity = self._do(lambda: self._start(name))
        life = self._live(identity, started)
        if stays < 0.02:
            return
        if isinstance(self._runtime, Docker | Podman) and again < 0.1:
            time.sleep(0.3)
            killed, _ = self._do(lambda: self._cli("kill", name))
            life.ended = killed
            started, _ = self._do(lambda: self._cli("start", name))
            life = self._live(identity, started)
        time.sleep(length)
        ended, _ = self._do(lambda: self._remove(name))
        life.ended = ended

    def _live(self, identity: str, started: tuple[float, float]) -> Life:
        life = Life(identity, started)
        with self._lock:
            self.ledger.lives.append(life)
        return life

    @property
    def _engine(self) -> Engine:
        if isinstance(self._runtime, Docker):
            return self._runtime.docker
        if isinstance(self._runtime, Podman):
            return self._runtime.podman
        assert isinstance(self._runtime, Containerd)
        return self._runtime.ctr

    def _cli(self, *words: str) -> str:
        return self._engine(*words)

    def _start(self, name: str) -> str:
        if isinstance(self._runtime, Docker):
            return self._cli("run", "--detach", "--network=none", f"--name={name}", self._image)
        if isinstance(self._runtime, Podman):
            options = ("--detach", "--pull=never", "--network=none", "--log-driver=k8s-file", *LIMITS)
            return self._cli("run", *options, f"--name={name}", self._image)
        assert isinstance(self._runtime, Containerd)
        self._cli("run", "--detach", "--snapshotter=native", self._image, name)
        return f"{self._runtime.namespace}/{name}"

    def _remove(self, name: str) -> str:
        if isinstance(self._runtime, Docker):
            return self._cli("rm", "--force", name)
        if isinstance(self._runtime, Podman):
            return self._cli("rm", "--force", "--time=0", name)
        self._cli("tasks", "rm", "--force", name)
        return self._cli("containers", "rm", name)
