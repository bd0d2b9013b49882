"""The size of the store, counted by the maintenance process for all workers."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import asdict, dataclass
from typing import Final

import msgspec

from digestry.backend import Backend
from digestry.catalog import clock
from digestry.catalog.statistics import StoreSize
from digestry.model.json_types import prepared
from digestry.registry.config import RegistryConfig
from digestry.registry.observability import process_metrics
from digestry.registry.observability.audit_log import AuditLog, AuditMeter
from digestry.registry.observability.counters import ProcessMetrics
from digestry.registry.observability.metrics_files import Slot

log: Final = logging.getLogger("digestry.registry")

PREFIX: Final = "digestry_store_"
_SECONDS: Final = 10.0
_SHARE: Final = 50.0
_NOTE: Final = "store-size"
_CLAIM_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class _Counted:
    """A node's counts, and when to count again (microseconds since 1970)."""

    due_at: int
    size: StoreSize


def _decoded(content: bytes | None) -> _Counted | None:
    """Return a node's counts; None if they are of a version that counts something else."""
    try:
        return None if content is None else msgspec.json.decode(content, type=prepared(_Counted))
    except msgspec.MsgspecError:
        return None


class StoreSizeJob:
    """A maintenance job that counts the store's size, and watches the ``audit`` log's losses.

    Of several nodes one counts for all.
    """

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
            size = self._count() if self._backend.disk is not None else self._count_for_all()
            for name, value in asdict(size).items():
                self._measures.gauge(PREFIX + name, value)
            for meter in self._meters:
                meter.read()
            self._slot.write(self._measures.snapshot())
        except OSError as error:
            log.error("the size of the store is not known: %s", error.strerror or error)
        return max(_SECONDS, _SHARE * (time.monotonic() - began))

    def _count(self) -> StoreSize:
        catalog = self._backend.open_catalog()
        try:
            return catalog.statistics.store()
        finally:
            catalog.close()

    def _count_for_all(self) -> StoreSize:
        """Return the recent counts of any node; if there are none, count for all."""
        notes, now = self._backend.coordination.notes, self._backend.now
        counted = _decoded(notes.read(_NOTE))
        if counted is not None and now() < counted.due_at:
            return counted.size
        if counted is not None:
            # No other node begins meanwhile; if this node dies, another one begins a minute later.
            claimed = _Counted(now() + _CLAIM_SECONDS * clock.SECOND, counted.size)
            notes.write(_NOTE, msgspec.json.encode(claimed))
        began = time.monotonic()
        size = self._count()
        pause = max(_SECONDS, _SHARE * (time.monotonic() - began))
        notes.write(_NOTE, msgspec.json.encode(_Counted(now() + int(pause * clock.SECOND), size)))
        return size
