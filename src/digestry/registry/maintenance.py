"""The maintenance process, which runs the registry's own jobs beside the workers.

A process of its own, because a worker's event loop shares its interpreter lock with every thread of
that worker: a thread that walks a million rows would be felt by each pull.
"""

from __future__ import annotations

import logging
import logging.config
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Final, Protocol

from digestry.errors import DigestryError, StorageBusy

log: Final = logging.getLogger("digestry.registry")

_NICENESS: Final = 15
_TROUBLE_SECONDS: Final = 60.0
"""Seconds until a job that failed is tried again, and after which one that still fails is an error."""
_BUSY_SECONDS: Final = 5.0
"""The first such time for a job that did not reach the database or the store; it doubles."""
_RESPAWN_SECONDS: Final = 5.0
_PARENT_SECONDS: Final = 0.5
_STOP_SECONDS: Final = 5.0
_BEGIN_SECONDS: Final = 5.0


class Job(Protocol):
    """A job that the registry runs periodically."""

    name: str

    def run(self, stop: threading.Event) -> float:
        """Run the jobs that are due, and return after how many seconds at most to call it again.

        Returns early once ``stop`` is set, with consistent stores and the rest of the work left.
        """
        ...


MakeJobs = Callable[[], Sequence[Job]]


class Maintenance:
    """The process, kept running until :meth:`stop`. It calls ``make_jobs``, which must be picklable."""

    def __init__(self, make_jobs: MakeJobs, logging_config: dict[str, object]) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._runs = self._context.Event()
        self._arguments = (make_jobs, logging_config, os.getpid(), self._runs)
        self._stop = threading.Event()
        self._again = False
        self._keeper = threading.Thread(target=self._keep, name="maintenance", daemon=True)

    def start(self) -> None:
        """Start the process; return at once."""
        self._keeper.start()

    def wait(self) -> None:
        """Wait until the process runs, for some seconds at most."""
        self._runs.wait(_BEGIN_SECONDS)

    def change(self, make_jobs: MakeJobs) -> None:
        """End the process and start another one, which does other jobs; unfinished work resumes there."""
        self._arguments = (make_jobs, *self._arguments[1:])
        self._again = True

    def stop(self) -> None:
        """Stop the process; unfinished work resumes at the next start."""
        self._stop.set()
        self._keeper.join(2 * _STOP_SECONDS)

    def _keep(self) -> None:
        while not self._stop.is_set():
            self._again = False
            process = self._context.Process(
                target=_main, args=self._arguments, name="digestry-maintenance", daemon=True
            )
            process.start()
            while process.is_alive() and not self._stop.is_set() and not self._again:
                self._stop.wait(_PARENT_SECONDS)
            if self._stop.is_set() or self._again:
                _end(process)
            else:
                log.error("the process for collection and scrub ended; it is started again")
                self._stop.wait(_RESPAWN_SECONDS)


def _end(process: BaseProcess) -> None:
    if process.is_alive():
        process.terminate()
        process.join(_STOP_SECONDS)
        if process.is_alive():
            process.kill()


def _main(make_jobs: MakeJobs, logging_config: dict[str, object], parent: int, runs: Event) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent says when
    logging.config.dictConfig(logging_config)
    os.nice(_NICENESS)
    threads = [
        threading.Thread(target=_repeat, args=(job, stop), name=job.name, daemon=True) for job in make_jobs()
    ]
    for thread in threads:
        thread.start()
    runs.set()
    while not stop.wait(_PARENT_SECONDS):
        if os.getppid() != parent:
            stop.set()
    for thread in threads:
        thread.join(_STOP_SECONDS / 2)


def _repeat(job: Job, stop: threading.Event) -> None:
    trouble = _Trouble(job.name)
    while not stop.is_set():
        began = time.monotonic()
        try:
            pause = job.run(stop)
        except DigestryError as error:
            pause = trouble.failed(error)
        except Exception:
            log.exception("%s failed, and is tried again", job.name)
            pause = _TROUBLE_SECONDS
        else:
            trouble.ended()
        stop.wait(max(0.0, pause - (time.monotonic() - began)))


class _Trouble:
    """What the log says of a job that fails, and when it is tried again.

    A database or a store that is away for a moment is a warning, since the job goes on by itself; it is an
    error once that has lasted for a minute, and then each minute.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._since: float | None = None
        self._told = 0.0
        self._pause = _BUSY_SECONDS

    def failed(self, error: DigestryError) -> float:
        """Log the error; return after how many seconds the job is tried again."""
        advice = f" ({error.hint})" if error.hint else ""
        if not isinstance(error, StorageBusy):
            log.error("%s failed, and is tried again: %s%s", self._name, error.message, advice)
            return _TROUBLE_SECONDS
        now = time.monotonic()
        if self._since is None:
            self._since = self._told = now
            log.warning("%s stopped, and is tried again: %s%s", self._name, error.message, advice)
        elif now - self._told >= _TROUBLE_SECONDS:
            self._told = now
            text = "%s has failed for %.0f s, and is tried again: %s%s"
            log.error(text, self._name, now - self._since, error.message, advice)
        pause, self._pause = self._pause, min(2 * self._pause, _TROUBLE_SECONDS)
        return pause

    def ended(self) -> None:
        """Note that the job did not fail."""
        if self._since is not None:
            log.warning("%s goes on, after %.0f s", self._name, time.monotonic() - self._since)
        self._since = None
        self._pause = _BUSY_SECONDS
