"""The agent: follows sources, and reports to a registry until it is told to end."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from digestry.agent.buffer import LARGEST, EntryBuffer
from digestry.agent.followed_source import FollowedSource
from digestry.agent.reporter import Outcome, Reporter
from digestry.agent.service_manager import ServiceManager
from digestry.client.fleet_reports import FleetIntake
from digestry.errors import StorageError
from digestry.inventory.runs import Follower

log: Final = logging.getLogger("digestry.agent")

INTERVAL: Final = 60
"""Seconds between two reports at the most, unless another interval is given."""

_TOGETHER: Final = 1.0
_BETWEEN_RESYNCHRONIZATIONS: Final = 60.0
_FIRST_LOOK: Final = 60.0
_FIRST_WAIT: Final = 2.0
_LAST_REPORT: Final = 10.0


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """Where an agent is, and how it reports. ``interval`` is in seconds, ``buffer_limit`` in bytes."""

    place: str
    token_file: Path
    state: Path
    interval: int = INTERVAL
    buffer_limit: int = LARGEST


class Agent:
    """Reports what the containers of ``followers`` do to ``intake``.

    Raises :class:`StorageError` if its buffer cannot be used.
    """

    def __init__(self, intake: FleetIntake, followers: Sequence[Follower], options: AgentOptions) -> None:
        self._options = options
        self._buffer = EntryBuffer(options.state, options.place, limit=options.buffer_limit)
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._watches = [FollowedSource(follower, self._buffer, self._wake.set) for follower in followers]
        self._manager = ServiceManager()
        self._resynchronized_at = -_BETWEEN_RESYNCHRONIZATIONS
        self._reporter = Reporter(
            intake,
            self._buffer,
            place=options.place,
            token_file=options.token_file,
            interval=options.interval,
            sources=lambda: [watch.report() for watch in self._watches],
        )

    def end(self) -> None:
        """Make :meth:`run` end soon. May be called by a signal's handler."""
        self._ended.set()
        self._wake.set()

    def run(self) -> None:
        """Follow and report until :meth:`end`; then report what is left, and that the agent stops."""
        self._start()
        try:
            self._loop()
        finally:
            self._stop(stopping=True)

    def run_once(self) -> bool:
        """Report all that runs now, and return whether all of it was seen and received."""
        self._start()
        try:
            complete = [watch.wait_for_first(_FIRST_LOOK) for watch in self._watches]
            sent = self._flush(stopping=False)
        finally:
            self._stop(stopping=False)
        return all(complete) and sent

    def _start(self) -> None:
        names = ", ".join(watch.name for watch in self._watches)
        log.info("place %s: it follows %s", self._options.place, names)
        for watch in self._watches:
            watch.start()
        self._manager.tell("READY=1")

    def _loop(self) -> None:
        for watch in self._watches:
            watch.wait_for_first(_FIRST_WAIT)
        self._wake.clear()
        while not self._ended.is_set():
            outcome = self._send()
            if outcome.resynchronize:
                self._resynchronize()
            if outcome.more and outcome.pause is None:
                continue
            # Under the promised interval, and not at the same time as all others that began together.
            pause = self._options.interval * random.uniform(0.8, 0.98)  # noqa: S311 - no secret
            failed = outcome.pause is not None
            self._wait_until(time.monotonic() + (outcome.pause or pause), woken=not failed)

    def _wait_until(self, moment: float, *, woken: bool) -> None:
        """Wait until a moment of the monotonic clock; ``woken``: or until just after entries were
        appended."""
        while not self._ended.is_set() and (left := moment - time.monotonic()) > 0:
            self._manager.tell("WATCHDOG=1")
            step = min(left, self._manager.watchdog_pause)
            if woken and self._wake.wait(step):
                self._ended.wait(min(left, _TOGETHER))  # others come with it, as a rule
                break
            if not woken:
                self._ended.wait(step)
        self._wake.clear()  # before the next batch is taken: nothing is appended unnoticed

    def _send(self, *, stopping: bool = False) -> Outcome:
        try:
            return self._reporter.send(stopping=stopping)
        except StorageError as error:
            log.error("%s%s", error.message, f"; {error.hint}" if error.hint else "")
            return Outcome(pause=float(self._options.interval))

    def _resynchronize(self) -> None:
        now = time.monotonic()
        if now - self._resynchronized_at < _BETWEEN_RESYNCHRONIZATIONS:
            return
        self._resynchronized_at = now
        log.info("all that runs is reported again")
        for watch in self._watches:
            watch.request_all_runs()

    def _flush(self, *, stopping: bool) -> bool:
        """Send what waits, for some seconds; return whether all of it was received."""
        end = time.monotonic() + _LAST_REPORT
        while True:
            outcome = self._send(stopping=stopping)
            if outcome.pause is not None or time.monotonic() >= end:
                return False
            if not outcome.more:
                return True

    def _stop(self, *, stopping: bool) -> None:
        self._manager.tell("STOPPING=1")
        for watch in self._watches:
            watch.end()
        for watch in self._watches:
            watch.join()
        if stopping:
            self._flush(stopping=True)
        try:
            self._buffer.close()
        except StorageError as error:
            log.error("%s", error.message)
