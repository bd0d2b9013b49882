"""How large the store is, counted every now and then by the maintenance process, for all workers."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from digestry.catalog.catalog import Catalog
from digestry.registry.observing import processes
from digestry.registry.observing.measures import Measures
from digestry.registry.observing.slots import Slot

if TYPE_CHECKING:
    from digestry.registry.config import RegistryConfig

log: Final = logging.getLogger("digestry.registry")

PREFIX: Final = "digestry_store_"
_SECONDS: Final = 10.0
_SHARE: Final = 50.0


class StoreCount:
    """A job of the maintenance process."""

    name = "store size"

    def __init__(self, config: RegistryConfig) -> None:
        self._root = config.root
        self._slot: Slot | None = None
        self._measures = Measures()
        self._processes = processes.Meter(self._measures, "maintenance")

    def run(self, _stop: threading.Event) -> float:
        """Counts, and takes no more than a fiftieth of the time for it."""
        began = time.monotonic()
        try:
            if self._slot is None:
                self._slot = Slot(self._root, "maintenance")
                self._measures = Measures(self._slot.inherited)
                self._processes = processes.Meter(self._measures, "maintenance")
            catalog = Catalog(self._root)
            try:
                size = catalog.figures.store()
            finally:
                catalog.close()
            for name, value in asdict(size).items():
                self._measures.gauge(PREFIX + name, value)
            self._processes.read()
            self._slot.write(self._measures.snapshot())
        except OSError as error:
            log.error("the store's size cannot be told: %s", error.strerror or error)
        return max(_SECONDS, _SHARE * (time.monotonic() - began))
