"""Jobs of the maintenance process that one node at a time does, for as long as it holds their lock."""

from __future__ import annotations

import abc
import contextlib
import threading

from digestry.backend import Backend
from digestry.catalog.catalog import Catalog
from digestry.coordination.protocol import FencedLock, Job
from digestry.errors import Conflict


class ExclusiveJob(abc.ABC):
    """A job of the maintenance process (:class:`.maintenance.Job`).

    ``lock`` is the one that it holds while it works; the other nodes try to take it every
    ``take_over_seconds``.
    """

    name: str
    lock: Job
    take_over_seconds: float = 2.0

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._catalog: Catalog | None = None

    def run(self, stop: threading.Event) -> float:
        """Work until ``stop`` is set or the lock is lost; return at once if there is nothing to do, or if
        another node does it."""
        if self._catalog is None:
            self._catalog = self._backend.open_catalog()
        if self.is_needed(self._catalog):
            with contextlib.suppress(Conflict), self._backend.coordination.only_one(self.lock) as lock:
                self.work(self._catalog, lock, stop)
        return self.take_over_seconds

    def is_needed(self, catalog: Catalog) -> bool:
        """Return whether there is anything to do; always, unless a job knows better."""
        del catalog
        return True

    @abc.abstractmethod
    def work(self, catalog: Catalog, lock: FencedLock, stop: threading.Event) -> None:
        """Work as the holder of the ``lock`` until ``stop`` is set. Raises :class:`Conflict` once the lock is
        lost."""
