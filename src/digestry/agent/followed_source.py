"""A source that is followed by a thread of its own, which appends what it sees to the buffer."""

from __future__ import annotations

import contextlib
import datetime
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final

from digestry.agent.buffer import EntryBuffer
from digestry.agent.entries import EntryMaker, text_of
from digestry.errors import DigestryError
from digestry.inventory.runs import LATE, Follower, FollowingEnded, Step, Wakeup
from digestry.model.fleet import SourceReport

log: Final = logging.getLogger("digestry.agent")

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
_POSITION_EVERY: Final = 60.0
_LAST_STEPS: Final = 10.0
_LISTED_AGAIN: Final = 3.0
"""Seconds after a source is followed again until all that runs is reported once more. A list ends no run that
began in the two seconds before it, and what ended while nobody followed has no event."""


class FollowedSource:
    """One source with its thread. ``changed`` is called when entries were appended to the buffer."""

    def __init__(self, follower: Follower, buffer: EntryBuffer, changed: Callable[[], None]) -> None:
        self._follower = follower
        self._buffer = buffer
        self._changed = changed
        self._wakeup = Wakeup()
        self._lock = threading.Lock()
        self._confirmed: datetime.datetime | None = None
        self._is_idle = False
        self._problem = "it was not looked at yet"
        self._reported = ""
        self._position_at = 0.0
        self._first = threading.Event()
        self._was_away = False
        self._lists_again: threading.Timer | None = None
        self._thread = threading.Thread(target=self._run, name=f"source {follower.name}", daemon=True)

    @property
    def name(self) -> str:
        """The source as the command line names it."""
        return self._follower.name

    def start(self) -> None:
        """Begin to follow the source."""
        self._thread.start()

    def end(self) -> None:
        """Tell the follower to end; :meth:`join` waits for it."""
        self._wakeup.end()

    def join(self) -> None:
        """Wait until the follower has ended, for some seconds."""
        self._thread.join(_LAST_STEPS)
        if not self._thread.is_alive():
            self._cancel_list()
            self._wakeup.close()

    def wait_for_first(self, seconds: float) -> bool:
        """Wait until all that runs was reported once, or could not be; return whether it was."""
        self._first.wait(seconds)
        return not self.report().problem

    def request_all_runs(self) -> None:
        """Have all that runs reported again."""
        self._wakeup.request_all_runs()

    def report(self) -> SourceReport:
        """Return until when all that runs is known, and what prevents it now."""
        with self._lock:
            if self._is_idle:
                self._confirmed = self._known_until()
            return SourceReport(text_of(self.name, 256), self._confirmed, text_of(self._problem))

    def _list_soon(self) -> None:
        self._lists_again = threading.Timer(_LISTED_AGAIN, self._wakeup.request_all_runs)
        self._lists_again.daemon = True
        self._lists_again.start()

    def _cancel_list(self) -> None:
        if self._lists_again is not None:
            self._lists_again.cancel()
            self._lists_again.join()
            self._lists_again = None

    def _known_until(self) -> datetime.datetime:
        return self._wakeup.known_until() - LATE

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            began = time.monotonic()
            try:
                for step in self._follower.follow(self._buffer.position(self.name), self._wakeup):
                    self._take(step)
                return
            except FollowingEnded:
                return
            except DigestryError as error:
                self._fail(error.message, error.hint)
            except Exception as error:  # a defect in reading one source must not end the others
                problem = f"the agent failed on it: {type(error).__name__}"
                if problem != self._reported:
                    log.exception("source %s", self.name)
                self._fail(problem, "")
            pause = _FIRST_PAUSE if time.monotonic() - began > _LONGEST_PAUSE else pause
            with contextlib.suppress(FollowingEnded):
                self._wait(pause * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            return

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._wakeup.wait(left)

    def _take(self, step: Step) -> None:
        with self._lock:
            if self._is_idle and not step.idle:
                self._confirmed = self._known_until()
                self._is_idle = False
        if step.changes:
            maker = EntryMaker(self.name)
            entries = tuple(maker.entries(step.changes))
            self._buffer.append(entries, maker.images, source=self.name, position=step.position)
            self._position_at = time.monotonic()
            self._changed()
        elif step.idle and time.monotonic() - self._position_at > _POSITION_EVERY:
            self._buffer.append((), {}, source=self.name, position=step.position)
            self._position_at = time.monotonic()
        with self._lock:
            self._is_idle = step.idle
            self._problem = step.problem
        if step.idle and self._was_away:
            self._was_away = False
            self._cancel_list()
            self._list_soon()
        self._say(step.problem, "")
        if step.idle or step.problem:
            self._first.set()

    def _fail(self, problem: str, hint: str) -> None:
        self._was_away = True
        with self._lock:
            if self._is_idle:
                self._confirmed = self._known_until()
            self._is_idle = False
            self._problem = problem
        self._say(problem, hint)
        self._first.set()

    def _say(self, problem: str, hint: str) -> None:
        """Log a change of the source's state, once."""
        if problem == self._reported:
            return
        if problem:
            log.warning("source %s: %s%s", self.name, problem, f"; {hint}" if hint else "")
        elif self._reported:
            log.info("source %s: it is followed again", self.name)
        self._reported = problem
