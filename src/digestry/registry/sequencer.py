"""The sequencer: assigns the journal's entries their positions in the registry, soon after they were
committed.

It is a thread of the worker process that holds the job's lock. Where transactions write one at a time,
entries are written with their positions, and it has nothing to do.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from digestry.catalog.journal_sequencing import BATCH, JournalSequencing
from digestry.coordination.protocol import Coordination, Job, Lock
from digestry.errors import Conflict, DigestryError

log: Final = logging.getLogger("digestry.registry")

_LOOK_SECONDS: Final = 0.2
_TAKE_OVER_SECONDS: Final = 1.0
_TROUBLE_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 3.0


class Sequencer:
    """Runs the sequencing. ``start`` returns at once; ``stop`` waits for the batch under way."""

    def __init__(self, coordination: Coordination, sequencing: JournalSequencing) -> None:
        self._coordination = coordination
        self._sequencing = sequencing
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="sequencer", daemon=True)

    def start(self) -> None:
        """Start as soon as no other process does the same."""
        self._keeper.start()

    def stop(self) -> None:
        """Stop; another process takes over."""
        self._stop.set()
        self._sequencing.wake.set()
        if self._keeper.is_alive():
            self._keeper.join(_STOP_SECONDS)

    def _keep(self) -> None:
        while not self._stop.is_set():
            try:
                if not self._sequencing.is_needed():
                    return
                with self._coordination.only_one(Job.SEQUENCING) as lock:
                    self._sequence(lock)
            except Conflict:
                self._stop.wait(_TAKE_OVER_SECONDS)
            except DigestryError as error:
                log.error("journal entries get no positions: %s", error.message)
                self._stop.wait(_TROUBLE_SECONDS)
            except Exception:
                log.exception("journal entries get no positions")
                self._stop.wait(_TROUBLE_SECONDS)

    def _sequence(self, lock: Lock) -> None:
        while not self._stop.is_set():
            self._sequencing.wake.clear()
            lock.check()
            if self._sequencing.run() < BATCH:
                # A write of another process or node does not wake this one.
                self._sequencing.wake.wait(_LOOK_SECONDS)
