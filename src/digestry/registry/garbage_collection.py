"""Garbage collection: remove what nothing refers to, while clients push and pull (docs/collection.md).

A run removes tags that no rule keeps, then manifests, then links. Each transaction checks again whether they
are held. A run removes bytes last, each blob under its guard, and only if the catalog has neither a link to
it nor a lease on it by then (rule 7 of docs/design.md).
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from digestry import fsio
from digestry.backend import Backend
from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.job_states import COLLECTION, JobState
from digestry.catalog.removals import Removed, Stayed
from digestry.catalog.throttle import Throttle
from digestry.coordination.protocol import FencedLock, Job
from digestry.errors import Conflict, StorageError, StorageFull
from digestry.file_locks import locked
from digestry.registry import store_identity
from digestry.registry.config import RegistryConfig
from digestry.registry.disk_reserve import reserve_of
from digestry.registry.garbage_run import BEGINNING, CollectionCounts, Run, Tell, refuse
from digestry.registry.observability.audit_events import By, RemovalEvents
from digestry.registry.observability.audit_log import AuditLog
from digestry.registry.removal_limit import RemovalRefused, RemovalShare
from digestry.registry.root import check_user

log: Final = logging.getLogger("digestry.registry")

_FIRST_SECONDS: Final = 60.0
_LEAST_SECONDS: Final = 0.05
_SHARE: Final = 0.05
"""Of one processor, that a served registry's own collection takes while it finds nothing to remove."""
_SHARE_REMOVING: Final = 0.5
_SHARE_BY_HAND: Final = 0.5
_NOTED_SECONDS: Final = 5.0
"""A run that found nothing is noted no more often than this."""
_HELD_SECONDS: Final = 5.0
"""Seconds between checks while another process collects: if that one dies, this one takes over."""
_LONGEST_TROUBLE: Final = 3600.0
_AFTER: Final = "after"
"""In the state of a run that has not ended: the row of the repository that it was at. A text, since numbers
are metrics."""
_LONG_AGO: Final = 30 * 86400.0
_DOUBT_SECONDS: Final = 3600.0
"""After a start so long after the last run: the clock of a machine that was off may be wrong at first."""
_DRY_MARGIN: Final = 0.01  # the times of files are coarser than the clock's
_DRY: Final = ".gc-dry-run-"


def collect(
    config: RegistryConfig,
    backend: Backend,
    *,
    tell: Tell = lambda _: None,
    stop: threading.Event | None = None,
    throttle: Throttle | None = None,
    audit: AuditLog | None = None,
    by: By | None = None,
    really: bool = False,
    due: Callable[[Catalog], bool] = lambda _: True,
) -> CollectionCounts:
    """Run garbage collection once on the registry of ``backend``, whether or not it is being served. ``tell``
    and the audit log receive each removal; ``by`` is the user who requested the run. Nothing is done if it is
    no longer ``due`` once no other process collects.

    Returns early, with what it did so far, once ``stop`` is set. Raises :class:`RemovalRefused` before it
    removes most of the store, unless ``really``; :class:`Conflict` for a catalog that is another registry's,
    and while another collection, or a backup, is under way; :class:`NotFound` if there is no registry;
    :class:`StorageError`. On a full disk it uses the disk reserve.
    """
    _check_there(backend)
    held = f"{backend.location} is being collected, or backed up, already"
    coordination = backend.coordination
    with coordination.only_one(Job.COLLECTION, held=held) as lock:
        coordination.check()
        _sweep_dry_runs(config.scratch)
        reserve = reserve_of(backend)
        blobs = backend.blobs
        catalog = backend.open_catalog()
        try:
            if not due(catalog):
                catalog.close()
                return CollectionCounts()
            catalog.relocation.require_here()
            store_identity.ensure(catalog, blobs)
        except BaseException:
            catalog.close()
            raise
        audit = audit or AuditLog(config.log, config.scratch)
        events = RemovalEvents(audit, by)

        def removed(item: Removed | Stayed) -> None:
            events(item)
            tell(item)

        def run_once() -> CollectionCounts:
            record = _RunRecord(catalog, lock, backend.now)
            run = Run(
                catalog,
                blobs,
                config,
                removed,
                coordination=coordination,
                stop=stop,
                lock=lock,
                ask=(lambda _: None) if really else refuse,
                throttle=throttle or Throttle(_SHARE_BY_HAND, _SHARE_REMOVING),
                after=record.after,
                note=record.note,
            )
            tally = record.run(run)
            if tally != CollectionCounts():
                store_identity.advance(catalog, blobs)
            return tally

        try:
            return run_once()
        except StorageFull:
            if not reserve.release():
                raise
            return run_once()
        finally:
            with contextlib.suppress(StorageError):  # there may be no room yet
                reserve.fill()
            audit.close()
            catalog.close()


class _RunRecord:
    """The stored state of a run: the totals of all runs, for metrics, and how far an unfinished one got."""

    def __init__(self, catalog: Catalog, lock: FencedLock, now: clock.Clock) -> None:
        self._catalog = catalog
        self._lock = lock
        self._now = now
        self._started, self._began = now(), time.monotonic()
        self._last = catalog.jobs.state(COLLECTION)
        self._noted = False
        # Any: a stored document, of which an older version may have written other fields.
        self._totals: dict[str, Any] = dict(self._last.state) if self._last else {}

    @property
    def after(self) -> int:
        """The row of the repository at which the run before was broken off."""
        after = self._totals.get(_AFTER)
        return int(after) if isinstance(after, str) and after.isdecimal() else BEGINNING

    def note(self, tally: CollectionCounts, place: int) -> None:
        """Note what the run did so far, and the row of the repository that it is at: if it is killed, the
        next run begins with the others."""
        self._store({**self._added(tally), _AFTER: str(place)}, None)
        self._noted = True

    def run(self, run: Run) -> CollectionCounts:
        """Run, and add the counts to the totals."""
        try:
            tally = run.run()
        except RemovalRefused:
            self._totals["refused"] = self._totals.get("refused", 0) + 1
            self._totals["refuses"] = 1
            self._store(self._totals, None)
            raise
        except Exception:
            state = {**self._added(run.tally), _AFTER: str(run.place)}
            state["failures"] = state.get("failures", 0) + 1
            with contextlib.suppress(StorageError, Conflict):  # the first error is the one to report
                self._store(state, None)
            raise
        if tally == CollectionCounts() and not run.stopped and self._is_known():
            return tally  # each commit makes every worker drop its cache of the catalog
        totals = self._added(tally)
        totals["runs"] = totals.get("runs", 0) + 1
        totals["refuses"] = 0
        totals["seconds"] = round(time.monotonic() - self._began, 3)
        if run.stopped:
            totals[_AFTER] = str(run.place)
        else:
            totals.pop(_AFTER, None)
        self._store(totals, None if run.stopped else self._now())
        return tally

    def _is_known(self) -> bool:
        """Return whether a run that found nothing just before is noted as the last one."""
        if self._noted or self._last is None or self._last.finished_at is None:
            return False
        return 0 <= (self._started - self._last.finished_at) / clock.SECOND < _NOTED_SECONDS

    def _added(self, tally: CollectionCounts) -> dict[str, Any]:
        counts = {name: self._totals.get(name, 0) + count for name, count in asdict(tally).items()}
        return {**self._totals, **counts}

    def _store(self, state: dict[str, Any], finished_at: int | None) -> None:
        self._catalog.jobs.store(JobState(COLLECTION, self._started, finished_at, state), self._lock)


def dry_run(
    config: RegistryConfig,
    backend: Backend,
    *,
    tell: Tell,
    ask: Callable[[RemovalShare], None] = lambda _: None,
) -> CollectionCounts:
    """Run as :func:`collect` does on a temporary copy of the catalog. Nothing else changes.

    ``ask`` is called if a run would stop before removing most of the store.
    """
    _check_there(backend)
    catalog = backend.open_catalog()
    try:
        store_identity.check(catalog, backend.blobs)
    finally:
        catalog.close()
    _sweep_dry_runs(config.scratch)
    with contextlib.ExitStack() as held:
        with fsio.storage_errors("write to", config.scratch):
            folder = tempfile.TemporaryDirectory(prefix=_DRY, dir=config.scratch)
            copy = Path(held.enter_context(folder))
        held.enter_context(locked(copy / "lock"))
        # The copy may not have content that was pushed after this moment.
        began = time.time() - _DRY_MARGIN
        catalog = held.enter_context(_copied(backend, copy))
        run = Run(
            catalog,
            backend.blobs,
            config,
            tell,
            coordination=backend.coordination,
            ask=ask,
            dry=began,
        )
        return run.run()


def _check_there(backend: Backend) -> None:
    backend.catalog_store.require()
    check_user(backend)


@contextlib.contextmanager
def _copied(backend: Backend, directory: Path) -> Iterator[Catalog]:
    with contextlib.ExitStack() as opened:
        try:
            catalog = opened.enter_context(backend.open_copy(directory))
        except StorageError as error:
            hint = "a dry run works on a copy of the catalog, beside it, and needs room for that"
            raise StorageError(error.message, hint=hint) from error
        yield catalog


def _sweep_dry_runs(scratch: Path) -> None:
    """Remove the copies that killed dry runs left behind."""
    for folder in scratch.glob(f"{_DRY}*"):
        try:
            with locked(folder / "lock", wait=False):
                for file in folder.iterdir():
                    file.unlink(missing_ok=True)
                folder.rmdir()
        except (Conflict, OSError, StorageError):
            continue  # another dry run has it


class CollectionJob:
    """The maintenance job that runs garbage collection on the server's schedule."""

    name = COLLECTION

    def __init__(self, config: RegistryConfig, backend: Backend, *, audit: AuditLog | None = None) -> None:
        self._config = config
        self._backend = backend
        self._audit = audit
        self._now = backend.now
        self._began = time.monotonic()
        self._clocks = clock.Clocks(backend.now)
        self._held_until = 0.0
        self._starting = True
        self._failures = 0
        self._waiting = False
        self._throttle: Throttle | None = None

    def run(self, stop: threading.Event) -> float:
        """Collect if it is time, and return after how many seconds to call again."""
        every = self._config.collection.every
        if every is None:
            return 3600.0
        lease = self._config.collection.lease
        if (jump := self._clocks.jump()) > lease / 4:
            # By the new time the leases of content that is being pushed may be over.
            log.warning(
                "the clock went forward by %.0f s: nothing is collected for the next %.0f s", jump, lease
            )
            self._held_until = time.monotonic() + lease
        due = self._due(every)
        wait = max(self._held_until - time.monotonic(), due)
        if wait > 0:
            return min(wait, _FIRST_SECONDS)
        try:
            done = self._collect(stop, every)
        except Exception:
            # It may go through most of the store before it fails again: not every minute.
            self._failures = min(self._failures + 1, 10)
            pause = min(every, _FIRST_SECONDS * 2**self._failures, _LONGEST_TROUBLE)
            self._held_until = max(self._held_until, time.monotonic() + pause)
            raise
        self._failures = 0
        if not done:
            return min(_HELD_SECONDS, max(every, 1.0))
        return max(every, _LEAST_SECONDS) if every < _FIRST_SECONDS else _LEAST_SECONDS

    def _due(self, every: float) -> float:
        catalog = self._backend.open_catalog()
        try:
            return self._seconds_left(catalog, every)
        finally:
            catalog.close()

    def _seconds_left(self, catalog: Catalog, every: float) -> float:
        last = catalog.jobs.state(COLLECTION)
        early = min(every, _FIRST_SECONDS) - (time.monotonic() - self._began)
        if self._starting and last is not None:
            self._postpone_if_late((self._now() - last.started_at) / clock.SECOND - every)
        self._starting = False
        if last is None or last.finished_at is None:
            return early  # an interrupted run starts again, as after each start
        since = (self._now() - last.started_at) / clock.SECOND
        # A start in the future is a clock that was set back since: it says nothing.
        return max(early, every - since) if since >= 0 else early

    def _postpone_if_late(self, late: float) -> None:
        """Postpone the first run after a start if it seems to be ``late`` by very many seconds."""
        if late > _LONG_AGO:
            days, pause = late / 86400, _DOUBT_SECONDS
            log.warning(
                "collection is %.0f days late, if the clock is right: it waits for %.0f s", days, pause
            )
            self._held_until = time.monotonic() + pause

    def _collect(self, stop: threading.Event, every: float) -> bool:
        """Collect; return False if another collection, or a backup, is under way."""
        if self._throttle is None:
            self._throttle = Throttle(_SHARE, _SHARE_REMOVING)  # of the thread that calls this
        try:
            tally = collect(
                self._config,
                self._backend,
                stop=stop,
                throttle=self._throttle,
                audit=self._audit,
                due=lambda catalog: self._seconds_left(catalog, every) <= 0,
            )
            self._throttle.pause()
        except RemovalRefused:
            raise  # only a person who runs the command waits
        except Conflict as error:
            if not self._waiting:
                log.info("collection waits: %s", error.message)
            self._waiting = True
            return False
        self._waiting = False
        if tally != CollectionCounts():
            log.info(
                "collection: %d tags, %d manifests, %d links; %d blobs of %d bytes; %d stayed",
                *(tally.tags, tally.manifests, tally.links, tally.blobs, tally.bytes, tally.stayed),
            )
        return True
