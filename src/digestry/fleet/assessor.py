"""The assessor: the registry's job that judges the images that agents reported.

One node at a time does it, in the maintenance process. It judges an image soon after its first report, again
soon after an advisory or a tag that may matter has changed, and all images from time to time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Sequence
from typing import Final

from digestry.advisories.trust import TRUST_EVERYBODY
from digestry.audit.registry_queries import RegistryQueries
from digestry.backend import Backend
from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.delivery_queue import Subscription
from digestry.catalog.fleet.judgements import FleetJudgements, Referrer
from digestry.coordination.protocol import FencedLock, Job
from digestry.fleet.judging import judge_reports
from digestry.fleet.own_names import OwnNames
from digestry.fleet.own_registry import OwnRegistries
from digestry.fleet.statements import read_statements
from digestry.model.fleet_events import FLEET_EVENTS
from digestry.registry.config import RegistryConfig
from digestry.registry.exclusive_job import ExclusiveJob

log: Final = logging.getLogger("digestry.registry")

_LOOK_SECONDS: Final = 0.4
_CHANGES_SECONDS: Final = 1.0
_EVENTS_SECONDS: Final = 5.0
_EVERYTHING_SECONDS: Final = 600.0
_LOOKED_SHARE: Final = 20
_JUDGED_SHARE: Final = 2
"""Looking for changes takes one part of so many of the time at the most, judging what changed one of so many:
a registry whose tags move all the time is judged a little later."""
_OVERLAP: Final = 60 * clock.SECOND
"""A manifest's time is taken before its transaction commits."""
_BATCH: Final = 2000
_SUBJECTS: Final = 200
_QUESTION_SECONDS: Final = 60.0


class AssessorJob(ExclusiveJob):
    """Judges the fleet's images."""

    name = "assessment"
    lock = Job.ASSESSMENT

    def __init__(self, config: RegistryConfig, backend: Backend) -> None:
        super().__init__(backend)
        self._names = OwnNames(config)
        self._subscriptions = [
            webhook.subscription for webhook in config.webhooks if not webhook.events.isdisjoint(FLEET_EVENTS)
        ]

    def work(self, catalog: Catalog, lock: FencedLock, stop: threading.Event) -> None:
        """Judge until ``stop`` is set."""
        assessor = Assessor(catalog, self._backend, self._names, lock)
        herald = Herald(catalog, self._subscriptions, self._backend.now, lock)
        while not stop.is_set():
            lock.check()
            pause = assessor.step(stop)
            herald.step()
            stop.wait(pause)


class Herald:
    """Counts the fleet for the metrics, and queues what happens in it for webhooks."""

    def __init__(
        self, catalog: Catalog, subscriptions: Sequence[Subscription], now: clock.Clock, lock: FencedLock
    ) -> None:
        self._catalog = catalog
        self._subscriptions = subscriptions
        self._now = now
        self._lock = lock
        self._heard_since = now()
        self._next = 0.0

    def step(self) -> None:
        """Count, and queue what has happened, if it is time to look."""
        began = time.monotonic()
        if began < self._next:
            return
        now = self._now()
        counts = self._catalog.fleet_counts.count(now)
        if counts.agents or counts.images:  # else no agent has ever reported
            self._catalog.fleet_counts.store(counts, now, self._lock)
            if self._subscriptions:
                self._catalog.fleet_events.queue(
                    self._subscriptions, now=now, heard_since=self._heard_since, fence=self._lock
                )
        took = time.monotonic() - began
        self._next = time.monotonic() + max(_EVENTS_SECONDS, took * _LOOKED_SHARE)


class Assessor:
    """The judging of one holder of the lock. ``lock`` fences what it writes."""

    def __init__(self, catalog: Catalog, backend: Backend, names: OwnNames, lock: FencedLock) -> None:
        self._catalog = catalog
        self._store: FleetJudgements = catalog.fleet_judgements
        self._registries = OwnRegistries(catalog, backend.blobs, names.is_own, names.config.ages, backend.now)
        self._names = names
        self._trust = names.config.trust
        self._lock = lock
        self._now = backend.now
        self._last_move = self._store.last_move()
        self._since = self._now() - _OVERLAP
        self._seen: set[Referrer] = set()
        self._next_changes = 0.0
        self._next_everything = 0.0
        self._unread: list[tuple[str, str]] = []
        self._read_all = False

    def step(self, stop: threading.Event) -> float:
        """Judge what is to be judged now; return after how many seconds to look again."""
        new = self._store.unjudged(limit=_BATCH)
        if new:
            self._judge(self._store.of_same_code(new), stop)
            return 0.0
        now = time.monotonic()
        if now >= self._next_changes:
            touched = self._changes()
            looked = time.monotonic() - now
            if touched:
                self._judge(self._store.of_same_code(touched), stop)
            judged = time.monotonic() - now - looked
            pause = max(_CHANGES_SECONDS, looked * _LOOKED_SHARE, judged * _JUDGED_SHARE)
            self._next_changes = time.monotonic() + pause
        if self._unread:
            some, self._unread = self._unread[:_SUBJECTS], self._unread[_SUBJECTS:]
            self._state(some)
            return 0.0
        if time.monotonic() >= self._next_everything:
            began = time.monotonic()
            self._judge(self._store.every(), stop)
            took = time.monotonic() - began
            self._next_everything = time.monotonic() + max(_EVERYTHING_SECONDS, took * _LOOKED_SHARE)
        return _LOOK_SECONDS

    def _changes(self) -> set[int]:
        """Return the images about which something has changed since the last call."""
        moves = self._store.tag_moves(self._last_move)
        began = self._now()
        first = not self._read_all
        current = set(self._store.referrers(0 if first else self._since))
        changed = current - self._seen
        self._seen, self._since = current, began - _OVERLAP
        if first:
            self._read_all = True
            stated = self._store.stated_advisories()
            unread = {
                (one.repository, one.subject)
                for one in current
                # Another policy may have read the rest.
                if one.deleted == ((one.repository, one.digest) in stated) or self._trust != TRUST_EVERYBODY
            }
            self._unread = sorted(unread)
            changed = set()  # all images are judged after a start
        else:
            self._unread += sorted({(one.repository, one.subject) for one in changed})
        self._last_move = moves.last
        return self._store.touched(
            moves.repositories | {one.repository for one in changed},
            moves.digests | {one.subject for one in changed},
        )

    def _state(self, subjects: Sequence[tuple[str, str]]) -> None:
        rows = read_statements(self._queries(), self._names.primary, subjects)
        self._store.replace_statements(subjects, rows, fence=self._lock)

    def _judge(self, numbers: Collection[int], stop: threading.Event) -> None:
        """Judge images, the latest reported first."""
        ordered = sorted(numbers, reverse=True)
        for start in range(0, len(ordered), _BATCH):
            if stop.is_set():
                return
            self._lock.check()
            images = self._store.reports(ordered[start : start + _BATCH])
            at = self._now()
            judged = judge_reports(images, self._queries(), self._names.image_names(), self._store)
            self._store.record(judged, at=at, fence=self._lock)

    def _queries(self) -> RegistryQueries:
        return RegistryQueries(self._registries, timeout=_QUESTION_SECONDS, trust=self._trust)
