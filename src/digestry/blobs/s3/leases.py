"""The leases by which one process alone writes an ingest, renewed while that is open."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Final

from digestry.blobs.s3.rows import ObjectRows
from digestry.errors import StorageError

log: Final = logging.getLogger("digestry.blobs")

_RENEWALS: Final = 3
"""How often a lease is renewed before it would end."""


class IngestLeases:
    """The ingests that this process has open. Thread-safe."""

    def __init__(self, rows: ObjectRows, seconds: float) -> None:
        self.seconds = seconds
        self._rows = rows
        self._holders: set[str] = set()
        self._changed = threading.Condition()
        self._keeper: threading.Thread | None = None

    @staticmethod
    def new_holder() -> str:
        """Return a name for one opening of an ingest, which no other has."""
        return os.urandom(16).hex()

    def keep(self, holder: str) -> None:
        """Renew the lease of an opening from now on."""
        with self._changed:
            self._holders.add(holder)
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._renew, name="s3 leases", daemon=True)
                self._keeper.start()
            self._changed.notify()

    def end(self, holder: str) -> None:
        """Renew the lease no more."""
        with self._changed:
            self._holders.discard(holder)

    def _renew(self) -> None:
        while True:
            with self._changed:
                while not self._holders:
                    self._changed.wait()
            time.sleep(self.seconds / _RENEWALS)
            with self._changed:
                held = list(self._holders)
            if held:
                try:
                    self._rows.renew(held, seconds=self.seconds)
                except StorageError as error:  # the next attempt may be in time
                    log.warning("the leases of uploads cannot be renewed: %s", error.message)
