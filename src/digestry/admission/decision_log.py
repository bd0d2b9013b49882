"""The log of decisions: a line of JSON for each, which a stuck or full output never holds up."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Final

log: Final = logging.getLogger("digestry.admission")

_PATIENCE: Final = 0.1
"""Seconds that an answer waits for its line to be written: usually it is, before the answer is sent."""
_MOST_WAITING: Final = 16 << 20
"""Bytes that wait for an output that takes none."""


class DecisionLog:
    """Lines to a file descriptor, written by a thread of its own. ``lost`` is called for each line that could
    not be written."""

    def __init__(self, descriptor: int, lost: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._lost = lost
        self._lines: queue.SimpleQueue[tuple[bytes, Callable[[], None]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self._failing = False
        self._stuck = False
        # A daemon: a write that never ends must not keep the process from ending.
        threading.Thread(target=self._write_for_ever, name="decisions", daemon=True).start()

    async def write(self, line: str) -> None:
        """Have ``line``, which ends with a newline, written. Wait for that, but not for long."""
        await self._write_within(line, 0.0 if self._stuck else _PATIENCE)

    async def close(self, seconds: float) -> None:
        """Wait until all lines are written, for ``seconds`` at the most."""
        await self._write_within("", seconds)

    async def _write_within(self, line: str, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        written = asyncio.Event()

        def tell() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(written.set)

        content = line.encode()
        with self._lock:
            full = self._waiting + len(content) > _MOST_WAITING
            self._waiting += 0 if full else len(content)
        if full:
            self._fail("its reader takes nothing")
            return
        self._lines.put((content, tell))
        try:
            async with asyncio.timeout(seconds):
                await written.wait()
        except TimeoutError:
            self._stuck = True  # those after it do not wait

    def _write_for_ever(self) -> None:
        while True:
            line, tell = self._lines.get()
            try:
                self._write(line)
            except OSError as error:
                self._fail((error.strerror or str(error)).lower())
            else:
                if self._failing:
                    self._failing = False
                    log.warning("the log of decisions is written again")
            finally:
                self._stuck = False
                with self._lock:
                    self._waiting -= len(line)
                tell()

    def _write(self, line: bytes) -> None:
        left = memoryview(line)
        while left:
            left = left[os.write(self._descriptor, left) :]

    def _fail(self, reason: str) -> None:
        self._lost()
        if not self._failing:
            self._failing = True
            log.error("decisions are made, but their log cannot be written: %s", reason)
