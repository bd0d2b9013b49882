"""The size of the store, counted by the maintenance process for all workers."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import asdict
from typing import Final

from digestry.backend import Backend
from digestry.registry.config import RegistryConfig
from digestry.registry.observability import process_metrics
from digestry.registry.observability.audit_log import AuditLog, AuditMeter
from digestry.registry.observability.counters import ProcessMetrics
from digestry.registry.observability.metrics_files import Slot

log: Final = logging.getLogger("digestry.registry")

PREFIX: Final = "digestry_store_"
_SECONDS: Final = 10.0
_SHARE: Final = 50.0


class StoreSizeJob:
    """A maintenance job that counts the store's size, and watches the ``audit`` log's losses."""

    name = "store size"

    def __init__(self, config: RegistryConfig, backend: Backend, audit: AuditLog) -> None:
        self._scratch = config.scratch
        self._backend = backend
        self._audit = audit
        self._slot: Slot | None = None
        self._measure(ProcessMetrics())

    def _measure(self, metrics: ProcessMetrics) -> None:
        self._measures = metrics
        self._meters = (
            process_metrics.ProcessMeter(metrics, "maintenance"),
            AuditMeter(metrics, self._audit),
        )

    def run(self, _stop: threading.Event) -> float:
        """Count, using at most a fiftieth of the time."""
        began = time.monotonic()
        try:
            if self._slot is None:
                self._slot = Slot(self._scratch, "maintenance")
                self._measure(ProcessMetrics(self._slot.inherited))
            catalog = self._backend.open_catalog()
            try:
                size = catalog.statistics.store()
            finally:
                catalog.close()
            for name, value in asdict(size).items():
                self._measures.gauge(PREFIX + name, value)
            for meter in self._meters:
                meter.read()
            self._slot.write(self._measures.snapshot())
        except OSError as error:
            log.error("the store's size cannot be told: %s", error.strerror or error)
        return max(_SECONDS, _SHARE * (time.monotonic() - began))
