"""The observer as a job of the registry's maintenance process: one node at a time does it."""

from __future__ import annotations

import threading

from digestry.backend import Backend
from digestry.catalog.catalog import Catalog
from digestry.coordination.protocol import FencedLock, Job
from digestry.observer.observer import LOOK_SECONDS, Observer
from digestry.registry.config import RegistryConfig
from digestry.registry.exclusive_job import ExclusiveJob
from digestry.registry.pull_through.upstream import MakeUpstream


class ObserverJob(ExclusiveJob):
    """Observes other registries."""

    name = "observation"
    lock = Job.OBSERVATION

    def __init__(self, config: RegistryConfig, backend: Backend, make_upstream: MakeUpstream) -> None:
        super().__init__(backend)
        self._config = config
        self._make_upstream = make_upstream

    def is_needed(self, catalog: Catalog) -> bool:
        """Return whether anything is observed, or was until now."""
        plan = catalog.observation_plan
        return bool(self._config.observe.repositories or plan.rules() or plan.repositories())

    def work(self, catalog: Catalog, lock: FencedLock, stop: threading.Event) -> None:
        """Observe until ``stop`` is set."""
        observer = Observer(self._config, self._backend, catalog, self._make_upstream, lock)
        try:
            while not stop.is_set():
                observer.step()
                stop.wait(LOOK_SECONDS)
        finally:
            observer.stop()
