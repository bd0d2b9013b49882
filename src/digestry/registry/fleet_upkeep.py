"""The upkeep of what agents reported: what the registry knows of their images, and what is too old."""

from __future__ import annotations

import logging
import threading
from typing import Final

from digestry.backend import Backend
from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.coordination.protocol import Job
from digestry.errors import Conflict, DigestryError
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from digestry.model.platform import Platform
from digestry.registry.config import RegistryConfig

log: Final = logging.getLogger("digestry.registry")

_LOOK_SECONDS: Final = 60.0
_PRUNE_SECONDS: Final = 3600.0
_STALE: Final = 300 * clock.SECOND
"""An image that is pushed after it was reported is known by its layers so soon."""
_DAYS_CHECKED: Final = 4
"""Days whose counts are checked in one turn."""
_IMAGES: Final = 200
_MOST_IMAGES: Final = 20_000
_LARGEST_INDEX: Final = 64 << 20


class FleetUpkeepJob:
    """A maintenance job that looks images up in the registry's graph again, keeps and checks the counts of
    runs, and removes what is older than the configuration keeps. Of several nodes one does it."""

    name = "fleet upkeep"

    def __init__(self, config: RegistryConfig, backend: Backend) -> None:
        self._backend = backend
        self._keep = kept_for(config)
        self._catalog: Catalog | None = None
        self._prune_at = 0
        self._checked: int | None = None

    def run(self, stop: threading.Event) -> float:
        """Do what is due; return after how many seconds to look again."""
        if self._catalog is None:
            self._catalog = self._backend.open_catalog()
        try:
            with self._backend.coordination.only_one(Job.FLEET):
                self._relate(self._catalog, stop)
                self._catalog.fleet_run_counts.add_changes(stopped=stop.is_set)
                self._check_counts(self._catalog, stop)
                now = self._backend.now()
                if now >= self._prune_at:
                    removed = self._catalog.fleet_retention.prune(
                        keep=self._keep, now=now, stopped=stop.is_set
                    )
                    if removed:
                        log.info("%d runs of containers are older than the registry keeps them", removed)
                    self._prune_at = now + int(_PRUNE_SECONDS * clock.SECOND)
        except Conflict:
            pass  # another node does it
        return _LOOK_SECONDS

    def _check_counts(self, catalog: Catalog, stop: threading.Event) -> None:
        """Check the counts of some days, from the earliest on, and then again."""
        for _ in range(_DAYS_CHECKED):
            if stop.is_set():
                return
            day = catalog.fleet_run_count_checks.next_day(self._checked)
            self._checked = day
            if day is None:
                return
            wrong = catalog.fleet_run_count_checks.check(day)
            if wrong:
                log.warning(
                    "%d counts of runs of containers on %s were not those of the runs, and were corrected",
                    wrong,
                    clock.to_datetime(day).date(),
                )

    def _relate(self, catalog: Catalog, stop: threading.Event) -> None:
        for _ in range(0, _MOST_IMAGES, _IMAGES):
            now = self._backend.now()
            numbers = catalog.fleet.stale_images(now - _STALE, limit=_IMAGES)
            if not numbers or stop.is_set():
                return
            catalog.fleet.relate(numbers, now=now, choose=self._child_of)

    def _child_of(self, index: str, platform: Platform) -> str | None:
        """Return the manifest of an index that is for ``platform``, if exactly one is."""
        try:
            content = self._backend.blobs.read(Digest.parse(index), limit=_LARGEST_INDEX)
            manifest = Manifest.parse(content)
        except DigestryError as error:
            log.debug("index %s cannot be read: %s", index, error.message)
            return None
        found = {
            str(child.digest)
            for child in manifest.manifests or ()
            if child.platform is not None and child.platform == platform
        }
        return found.pop() if len(found) == 1 else None


def kept_for(config: RegistryConfig) -> int | None:
    """Return for how many microseconds what agents reported is kept; None for ever.

    What ran keeps its image from garbage collection: it is not forgotten before that.
    """
    keep, sighted = config.fleet.keep, config.collection.retention.sighted
    if keep is None or sighted is None:
        return None
    return int(max(keep, sighted) * clock.SECOND)
