"""The observer as a job of the registry's maintenance process: one node at a time does it."""

from __future__ import annotations

import threading
from typing import Final

from digestry.backend import Backend
from digestry.catalog.catalog import Catalog
from digestry.coordination.protocol import Job
from digestry.errors import Conflict
from digestry.observe.observer import LOOK_SECONDS, Observer
from digestry.registry.config import RegistryConfig
from digestry.registry.pull_through.upstream import MakeUpstream

_TAKE_OVER_SECONDS: Final = 2.0


class ObserverJob:
    """Observes as long as it holds the lock."""

    name = "observation"

    def __init__(self, config: RegistryConfig, backend: Backend, make_upstream: MakeUpstream) -> None:
        self._config = config
        self._backend = backend
        self._make_upstream = make_upstream
        self._catalog: Catalog | None = None

    def run(self, stop: threading.Event) -> float:
        """Observe until ``stop`` is set; return at once with nothing to do, or if another node does it."""
        if self._catalog is None:
            self._catalog = self._backend.open_catalog()
        plan = self._catalog.observation_plan
        if not self._config.observe.repositories and not plan.rules() and not plan.repositories():
            return _TAKE_OVER_SECONDS
        try:
            with self._backend.coordination.only_one(Job.OBSERVATION) as lock:
                observer = Observer(self._config, self._backend, self._catalog, self._make_upstream, lock)
                try:
                    while not stop.is_set():
                        observer.step()
                        stop.wait(LOOK_SECONDS)
                finally:
                    observer.stop()
        except Conflict:
            pass
        return _TAKE_OVER_SECONDS
