"""The heartbeat of the worker processes: each reports over a pipe, and the parent replaces a silent one.

The event loop reports, between the requests that it answers: a worker that is stopped, waits for ever or
computes without an end does not report, although its process exists.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

log: Final = logging.getLogger("digestry.registry")

_BEAT_SECONDS: Final = 0.5
_MESSAGE: Final = struct.Struct("=q")
_READ: Final = 512 * _MESSAGE.size


class Heartbeat:
    """One pipe for all workers. Created in the parent, before it forks them."""

    def __init__(self, patience: float) -> None:
        """``patience``: after so many seconds without a sign a worker is taken for dead."""
        self._patience = patience
        self._read, self._write = os.pipe()
        for end in (self._read, self._write):
            os.set_blocking(end, False)
        self._silent: dict[int, float] = {}

    async def beat(self) -> None:
        """Report for ever that this process is alive. Runs in a worker, on its event loop."""
        message = _MESSAGE.pack(os.getpid())
        while True:
            with contextlib.suppress(OSError):  # full: the parent itself has no time
                os.write(self._write, message)
            await asyncio.sleep(_BEAT_SECONDS)

    def watch(self, workers: Callable[[], Iterable[int]], kill: Callable[[int], None] | None = None) -> None:
        """Kill workers that have stopped reporting, from a thread in the parent.

        ``workers`` returns the present processes; one that has never reported is still starting. Their parent
        replaces a process that ends.
        """
        threading.Thread(
            target=self._watch, args=(workers, kill or _kill), name="heartbeat", daemon=True
        ).start()

    def _watch(self, workers: Callable[[], Iterable[int]], kill: Callable[[int], None]) -> None:
        while True:
            # It counts its own ticks, not the clock's: if the machine was suspended, no worker is at fault.
            time.sleep(_BEAT_SECONDS)
            self.tick(workers(), kill)

    def tick(self, workers: Iterable[int], kill: Callable[[int], None]) -> None:
        """Count half a second without a report."""
        for process in self._reporting():
            self._silent[process] = 0.0
        there = set(workers)
        for process, silent in list(self._silent.items()):
            if process not in there:
                del self._silent[process]
            elif silent >= self._patience:
                del self._silent[process]
                log.error("worker %d has not answered for %.0f s, and is replaced", process, silent)
                kill(process)
            else:
                self._silent[process] = silent + _BEAT_SECONDS

    def _reporting(self) -> set[int]:
        reporting: set[int] = set()
        with contextlib.suppress(BlockingIOError):
            while content := os.read(self._read, _READ):  # each message came whole: pipe(7), PIPE_BUF
                reporting.update(process for (process,) in _MESSAGE.iter_unpack(content))
        return reporting


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
