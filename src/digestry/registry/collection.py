"""Collection: removes what nothing holds any more, while clients push and pull (docs/collection.md).

Tags that no rule keeps, then manifests, then links: each in transactions that ask again whether it is
held. Bytes go last, each under its guard, and only if the catalog has neither a link to them nor a
lease on them by then (rule 7 of docs/design.md).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from digestry import fsio
from digestry.blobs.disk import DiskBlobs
from digestry.catalog import clock, snapshot
from digestry.catalog.catalog import Catalog
from digestry.catalog.collection import Batch, Collection, Removed, Stayed
from digestry.catalog.database import FILE
from digestry.catalog.jobs import COLLECTION, COLLECTION_LOCK, JobState
from digestry.catalog.pace import Pace
from digestry.errors import Conflict, NotFound, StorageError, StorageFull
from digestry.model.digest import Digest
from digestry.registry.config import RegistryConfig
from digestry.registry.observing.audit import AuditLog
from digestry.registry.observing.deeds import By, Removals
from digestry.registry.reserve import Reserve
from digestry.registry.root import check_user

log: Final = logging.getLogger("digestry.registry")

_BATCH: Final = 5000
_ASKED: Final = 500
_UNDER_ONE_GUARD: Final = 50
"""Files that are removed at a time: who pushes what is guarded alike waits for no longer."""
_FIRST_SECONDS: Final = 60.0
_LEAST_SECONDS: Final = 0.05
_SHARE: Final = 0.05
"""Of one processor, that a served registry's own collection takes while it finds nothing to remove."""
_SHARE_REMOVING: Final = 0.5
_SHARE_BY_HAND: Final = 0.5
_NOTED_SECONDS: Final = 5.0
"""A run that found nothing is noted no more often than this."""
_HELD_SECONDS: Final = 60.0
_LONGEST_TROUBLE: Final = 3600.0
_LONG_AGO: Final = 30 * 86400.0
_DOUBT_SECONDS: Final = 3600.0
"""After a start so long after the last run: the clock of a machine that was off may be wrong at first."""
_DRY_MARGIN: Final = 0.01  # the times of files are coarser than the clock's
_DRY: Final = ".gc-dry-run-"

Tell = Callable[[Removed | Stayed], None]


@dataclass(slots=True)
class Tally:
    """What a run removed, and how much stayed that should have gone. ``bytes`` are those of files."""

    tags: int = 0
    manifests: int = 0
    links: int = 0
    blobs: int = 0
    bytes: int = 0
    stayed: int = 0

    def add(self, item: Removed | Stayed) -> None:
        if isinstance(item, Stayed):
            self.stayed += 1
            return
        match item.kind:
            case "tag":
                self.tags += 1
            case "manifest":
                self.manifests += 1
            case "link":
                self.links += 1
            case _:
                self.blobs += 1
                self.bytes += item.size


class _Stopped(Exception):
    """The run was asked to end. What it did until then is whole."""


def open_catalog(
    config: RegistryConfig, root: Path | None = None, *, now: clock.Clock = clock.now
) -> Catalog:
    """The catalog with all that a removal of tags goes by: policy, webhooks."""
    return Catalog(
        root or config.root,
        now=now,
        lease=int(config.collection.lease * clock.SECOND),
        policy=config.tags,
        quotas=config.quotas,
        subscriptions=[webhook.subscription for webhook in config.webhooks],
    )


def collect(
    config: RegistryConfig,
    *,
    tell: Tell = lambda _: None,
    stop: threading.Event | None = None,
    now: clock.Clock = clock.now,
    pace: Pace | None = None,
    audit: AuditLog | None = None,
    by: By | None = None,
) -> Tally:
    """Runs one collection of the root, whether or not it is being served; ``tell`` hears of each thing,
    and so does the audit log, with ``by`` for who asked for it.

    Returns early, with what it did so far, once ``stop`` is set. Raises :class:`Conflict` while
    another collection, or a backup, is under way, :class:`NotFound` if there is no registry,
    :class:`StorageError`. On a disk that is full it works with the room that is kept for it.
    """
    _check_there(config.root)
    held = f"{config.root} is being collected, or backed up, already"
    with fsio.locked(config.root / COLLECTION_LOCK, wait=False, held=held):
        _sweep_dry_runs(config.root)
        reserve = Reserve(config.root)
        catalog = open_catalog(config, now=now)
        audit = audit or AuditLog(config.log, config.root)
        note = Removals(audit, by)

        def removed(item: Removed | Stayed) -> None:
            note(item)
            tell(item)

        run = _Run(
            catalog,
            DiskBlobs(config.root),
            config,
            removed,
            stop,
            pace=pace or Pace(_SHARE_BY_HAND, _SHARE_REMOVING),
        )
        try:
            return _noted(catalog, run, now)
        except StorageFull:
            if not reserve.release():
                raise
            return _noted(catalog, run, now)
        finally:
            with contextlib.suppress(StorageError):  # there may be no room yet
                reserve.fill()
            audit.close()
            catalog.close()


def _noted(catalog: Catalog, run: _Run, now: clock.Clock) -> Tally:
    """Runs, and adds what it came to to what all runs before it came to, for metrics."""
    started, began = now(), time.monotonic()
    last = catalog.jobs.state(COLLECTION)
    totals: dict[str, Any] = dict(last.state) if last else {}
    try:
        tally = run.run()
    except Exception:
        totals["failures"] = totals.get("failures", 0) + 1
        with contextlib.suppress(StorageError):  # what failed first is what is to be heard of
            catalog.jobs.note(JobState(COLLECTION, started, None, totals))
        raise
    if tally == Tally() and not run.stopped and last is not None and last.finished_at is not None:
        since = (started - last.finished_at) / clock.SECOND
        if 0 <= since < _NOTED_SECONDS:
            return tally  # each commit makes every worker ask the catalog anew for what it had in memory
    for name, count in asdict(tally).items():
        totals[name] = totals.get(name, 0) + count
    totals["runs"] = totals.get("runs", 0) + 1
    totals["seconds"] = round(time.monotonic() - began, 3)
    catalog.jobs.note(JobState(COLLECTION, started, None if run.stopped else now(), totals))
    return tally


def dry_run(config: RegistryConfig, *, tell: Tell, now: clock.Clock = clock.now) -> Tally:
    """As :func:`collect`, on a copy of the catalog, which goes afterwards: nothing else is touched."""
    _check_there(config.root)
    _sweep_dry_runs(config.root)
    with contextlib.ExitStack() as held:
        with fsio.storage_errors("write to", config.root):
            folder = tempfile.TemporaryDirectory(prefix=_DRY, dir=config.root)
            copy = Path(held.enter_context(folder))
        held.enter_context(fsio.locked(copy / "lock"))
        # What came after this moment the copy may not know.
        began = time.time() - _DRY_MARGIN
        _copy_catalog(config.root, copy)
        catalog = open_catalog(config, copy, now=now)
        try:
            return _Run(catalog, DiskBlobs(config.root), config, tell, dry=began).run()
        finally:
            catalog.close()


def _check_there(root: Path) -> None:
    if not (root / FILE).is_file():
        raise NotFound(f"there is no registry under {root}: it has no {FILE}")
    check_user(root)


def _copy_catalog(root: Path, directory: Path) -> None:
    try:
        snapshot.copy(root, directory)
    except StorageError as error:
        hint = "a dry run works on a copy of the catalog, beside it, and needs room for that"
        raise StorageError(error.message, hint=hint) from error


def _sweep_dry_runs(root: Path) -> None:
    """Removes the copies that dry runs left behind which were killed."""
    for folder in root.glob(f"{_DRY}*"):
        try:
            with fsio.locked(folder / "lock", wait=False):
                for file in folder.iterdir():
                    file.unlink(missing_ok=True)
                folder.rmdir()
        except (Conflict, OSError, StorageError):
            continue  # another dry run has it


class _Run:
    """One collection. The same on the catalog and on a copy, but for the bytes."""

    def __init__(
        self,
        catalog: Catalog,
        blobs: DiskBlobs,
        config: RegistryConfig,
        tell: Tell,
        stop: threading.Event | None = None,
        *,
        pace: Pace | None = None,
        dry: float | None = None,
    ) -> None:
        """``dry``: only tell, on a copy of the catalog that was begun at that time (seconds since 1970)."""
        self._collection: Collection = catalog.collection(config.collection.retention, pace=pace)
        self._pace = pace
        self._blobs = blobs
        self._tell = tell
        self._stop = stop
        self._tally = Tally()
        self._dry = dry
        self.stopped = False

    def run(self) -> Tally:
        try:
            for place in self._collection.repositories():
                self._count(self._collection.drop_tags(place))
                self._count(self._collection.delete_manifests(place))
                self._count(self._collection.unlink(place))
            digests = self._blobs.digests()
            while batch := list(itertools.islice(digests, _BATCH)):
                self._count(self._sweep_bytes(batch))
            self._count(self._sweep_aside())
            self._collection.forget()
        except _Stopped:
            self.stopped = True
        return self._tally

    def _count(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            for item in batch:
                self._tally.add(item)
            for item in batch:
                self._tell(item)
            self._check(working=True)
        self._check()

    def _check(self, *, working: bool = False) -> None:
        if self._pace is not None:
            self._pace.breathe(working=working)
        if self._stop is not None and self._stop.is_set():
            raise _Stopped

    def _sweep_bytes(self, batch: list[Digest]) -> Iterable[Batch]:
        dead = set(batch) - self._held(batch)
        if dead:
            self._collection.prove()
        if self._dry is not None:
            began = self._dry
            yield from ([self._gone(digest)] for digest in sorted(dead) if not self._since(digest, began))
            return
        together = sorted(dead, key=self._blobs.guarded_by)
        for _, alike in itertools.groupby(together, key=self._blobs.guarded_by):
            while some := list(itertools.islice(alike, _UNDER_ONE_GUARD)):
                removed: list[Removed | Stayed] = []
                try:
                    with self._blobs.guard(some[0], exclusive=True, wait=False):
                        pushed_since = self._collection.held(some)
                        for digest in some:
                            if digest not in pushed_since:
                                removed.append(self._gone(digest))  # noqa: PERF401 - one may fail
                except Conflict:
                    why = "it, or what shares its guard, is being pushed"
                    removed = [Stayed("blob", "", str(digest), why) for digest in some]
                except StorageError:
                    yield removed  # these went
                    raise
                yield removed

    def _held(self, batch: list[Digest]) -> set[Digest]:
        parts = (batch[start : start + _ASKED] for start in range(0, len(batch), _ASKED))
        return {digest for part in parts for digest in self._collection.held(part)}

    def _gone(self, digest: Digest) -> Removed:
        size = self._blobs.stat(digest) or 0
        if self._dry is None:
            self._blobs.delete(digest, durable=False)
        return Removed("blob", "", str(digest), "no repository holds it", size)

    def _sweep_aside(self) -> Iterable[Batch]:
        """Removes what was set aside as damaged content that nobody can miss any more."""
        for digest, path in self._blobs.all_aside():
            if self._collection.held([digest]):
                continue
            self._collection.prove()
            size = path.lstat().st_size
            if self._dry is None:
                fsio.remove_file(path)
            yield [Removed("blob", "", str(digest), "it was damaged, and no repository holds it", size)]

    def _since(self, digest: Digest, began: float) -> bool:
        """Whether the copy of the catalog is too old to know this content."""
        try:
            return self._blobs.path(digest).stat().st_ctime >= began
        except OSError:
            return True


class CollectionJob:
    """Collection on the server's schedule."""

    name = COLLECTION

    def __init__(
        self, config: RegistryConfig, *, now: clock.Clock = clock.now, audit: AuditLog | None = None
    ) -> None:
        self._config = config
        self._audit = audit
        self._now = now
        self._began = time.monotonic()
        self._clocks = clock.Clocks(now)
        self._held_until = 0.0
        self._starting = True
        self._failures = 0
        self._pace: Pace | None = None

    def run(self, stop: threading.Event) -> float:
        """Collects if it is time; returns after how many seconds to ask again."""
        every = self._config.collection.every
        if every is None:
            return 3600.0
        lease = self._config.collection.lease
        if (jump := self._clocks.jump()) > lease / 4:
            # By the new time the leases of what is just being pushed may be over.
            log.warning(
                "the clock went forward by %.0f s: nothing is collected for the next %.0f s", jump, lease
            )
            self._held_until = time.monotonic() + lease
        due = self._due(every)
        wait = max(self._held_until - time.monotonic(), due)
        if wait > 0:
            return min(wait, _FIRST_SECONDS)
        try:
            done = self._collect(stop)
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
        catalog = open_catalog(self._config)
        try:
            last = catalog.jobs.state(COLLECTION)
        finally:
            catalog.close()
        early = min(every, _FIRST_SECONDS) - (time.monotonic() - self._began)
        if self._starting and last is not None:
            self._doubt((self._now() - last.started_at) / clock.SECOND - every)
        self._starting = False
        if last is None or last.finished_at is None:
            return early  # what was broken off is begun again, as after each start
        since = (self._now() - last.started_at) / clock.SECOND
        # A start in the future is a clock that was set back since: it says nothing.
        return max(early, every - since) if since >= 0 else early

    def _doubt(self, late: float) -> None:
        """Waits after a start if by the clock a run is so many seconds late."""
        if late > _LONG_AGO:
            days, pause = late / 86400, _DOUBT_SECONDS
            log.warning(
                "collection is %.0f days late, if the clock is right: it waits for %.0f s", days, pause
            )
            self._held_until = time.monotonic() + pause

    def _collect(self, stop: threading.Event) -> bool:
        """False if another collection, or a backup, is under way."""
        if self._pace is None:
            self._pace = Pace(_SHARE, _SHARE_REMOVING)  # of the thread that calls this
        try:
            tally = collect(self._config, stop=stop, now=self._now, pace=self._pace, audit=self._audit)
            self._pace.breathe()
        except Conflict as error:
            log.info("collection waits: %s", error.message)
            return False
        if tally != Tally():
            log.info(
                "collection: %d tags, %d manifests, %d links; %d blobs of %d bytes; %d stayed",
                *(tally.tags, tally.manifests, tally.links, tally.blobs, tally.bytes, tally.stayed),
            )
        return True
