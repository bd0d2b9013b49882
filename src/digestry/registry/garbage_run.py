"""One run of garbage collection: it removes rows of the catalog first, then the bytes."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from digestry.blobs.protocols import BlobStore
from digestry.catalog.catalog import Catalog
from digestry.catalog.garbage import Garbage
from digestry.catalog.removals import Batch, Removed, Stayed
from digestry.catalog.throttle import Throttle
from digestry.coordination.protocol import Coordination, Lock
from digestry.errors import Conflict, StorageError
from digestry.model.digest import Digest
from digestry.registry.config import RegistryConfig
from digestry.registry.removal_limit import LITTLE, RemovalShare
from digestry.registry.store_identity import SameStore

_BATCH: Final = 5000
_ASKED: Final = 500
_UNDER_ONE_GUARD: Final = 50
"""Files that are removed at a time: a push that needs the same guard waits no longer than that."""

_NOTED_SECONDS: Final = 2.0
"""A run notes where it is no more often than this, and a shorter one never."""

Tell = Callable[[Removed | Stayed], None]


@dataclass(slots=True)
class CollectionCounts:
    """The counts of a run: what it removed, and what it failed to remove. ``bytes`` are those of files."""

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


Note = Callable[[CollectionCounts, int], None]
"""Is given what a run removed so far, and the row of the repository that it is at."""
BEGINNING: Final = -1
"""Before the row of every repository."""


class _Stopped(Exception):
    """The caller asked the run to stop. What the run did until then is complete."""


def refuse(share: RemovalShare) -> None:
    """Refuse to remove most of the store. Raises :class:`RemovalRefused`."""
    raise share.error()


class Run:
    """One run of garbage collection, on the catalog or on a copy of it."""

    def __init__(
        self,
        catalog: Catalog,
        blobs: BlobStore,
        config: RegistryConfig,
        tell: Tell,
        *,
        coordination: Coordination,
        stop: threading.Event | None = None,
        lock: Lock | None = None,
        ask: Callable[[RemovalShare], None] = refuse,
        throttle: Throttle | None = None,
        dry: float | None = None,
        after: int = BEGINNING,
        note: Note = lambda *_: None,
    ) -> None:
        """Prepare a run. ``lock`` is the content's lock, which the caller holds until the end. ``ask`` is
        called before the run removes most of the store, and raises to prevent that. ``dry`` makes the run
        report only, on a copy of the catalog that was begun at that time (seconds since 1970).

        The run begins with the repositories after the row ``after``, and ends with those up to it. ``note``
        is called now and then, with the row at which another run should begin if this one is killed.
        """
        self._lock = lock
        self._ask = ask
        self._garbage: Garbage = catalog.garbage(config.collection.retention, throttle=throttle)
        self._throttle = throttle
        self.blobs = blobs
        self._coordination = coordination
        self._store = SameStore(blobs)
        self._tell = tell
        self._stop = stop
        self.tally = CollectionCounts()
        self._dry = dry
        self._after = after
        self._note = note
        self._noted = (after, time.monotonic())
        self.place = after
        self.stopped = False

    def run(self) -> CollectionCounts:
        try:
            self._look_at_manifests()
            self._collect(after=self._after)
            if self._after > BEGINNING:
                self._collect(until=self._after)
            self._garbage.forget()
        except _Stopped:
            self.stopped = True
        return self.tally

    def _collect(self, *, after: int = BEGINNING, until: int | None = None) -> None:
        """Remove what some repositories need no longer, and then bytes.

        Bytes go after each part of the repositories: runs that are killed again and again get there too.
        """
        for key in self._garbage.repositories(after=after, until=until):
            self.place = key.row
            self._count(self._garbage.drop_tags(key))
            self._count(self._garbage.delete_manifests(key))
            self._count(self._garbage.unlink(key))
        self.place = BEGINNING
        if self._look_at_blobs():
            for batch in self._batches():
                self._count(self._sweep_bytes(batch))
        self._count(self._sweep_quarantine())

    def _look_at_manifests(self) -> None:
        share = RemovalShare("manifest")
        for key in self._garbage.repositories():
            for total, dead in self._garbage.measure(key):
                share.total += total
                share.dead += dead
                self._check()
        self._ask_about(share)

    def _look_at_blobs(self) -> bool:
        """Return whether there are blobs to remove."""
        share = RemovalShare("blob")
        for batch in self._batches():
            dead = set(batch) - self._held(batch)
            share.total += len(batch)
            share.dead += len(dead)
            share.dead_bytes += sum(self.blobs.stat(digest) or 0 for digest in dead)
            self._check()
        if share.dead_bytes > LITTLE and not share.most:
            # By number it is not most of them; but it may be the large ones.
            size = 0
            for batch in self._batches():
                size += sum(self.blobs.stat(digest) or 0 for digest in batch)
                self._check()
            share.live_bytes = size - share.dead_bytes
        self._ask_about(share)
        return share.dead > 0

    def _ask_about(self, share: RemovalShare) -> None:
        if share.most:
            self._ask(share)

    def _batches(self) -> Iterator[list[Digest]]:
        digests = self.blobs.digests()
        while batch := list(itertools.islice(digests, _BATCH)):
            yield batch

    def _count(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            for item in batch:
                self.tally.add(item)
            for item in batch:
                self._tell(item)
            self._check(working=True)
        self._check()

    def _check(self, *, working: bool = False) -> None:
        if self._throttle is not None:
            self._throttle.pause(working=working)
        if self._lock is not None:
            self._lock.check()
        self._store.check()
        if self._stop is not None and self._stop.is_set():
            raise _Stopped
        place, at = self._noted
        if place != self.place and time.monotonic() - at >= _NOTED_SECONDS:
            self._note(self.tally, self.place)
            self._noted = self.place, time.monotonic()

    def _sweep_bytes(self, batch: list[Digest]) -> Iterable[Batch]:
        dead = set(batch) - self._held(batch)
        if dead:
            self._garbage.check_consistency()
        if self._dry is not None:
            began = self._dry
            yield from (
                [self._removed_blob(digest)]
                for digest in sorted(dead)
                if not self._is_newer_than_copy(digest, began)
            )
            return
        together = sorted(dead, key=self._coordination.guard_group)
        for _, alike in itertools.groupby(together, key=self._coordination.guard_group):
            while some := list(itertools.islice(alike, _UNDER_ONE_GUARD)):
                removed: list[Removed | Stayed] = []
                try:
                    with self._coordination.guard(some[0], exclusive=True, wait=False) as guard:
                        guard.check()
                        self._store.check()
                        pushed_since = self._garbage.held(some)
                        for digest in some:
                            if digest not in pushed_since:
                                removed.append(self._removed_blob(digest))  # noqa: PERF401 - one may fail
                except Conflict:
                    why = "it, or what shares its guard, is being pushed"
                    removed = [Stayed("blob", "", str(digest), why) for digest in some]
                except StorageError:
                    yield removed  # these went
                    raise
                yield removed

    def _held(self, batch: list[Digest]) -> set[Digest]:
        parts = (batch[start : start + _ASKED] for start in range(0, len(batch), _ASKED))
        return {digest for part in parts for digest in self._garbage.held(part)}

    def _removed_blob(self, digest: Digest) -> Removed | Stayed:
        size = self.blobs.stat(digest)
        if self._dry is None and not self.blobs.delete(digest, durable=False) and size is not None:
            return Stayed("blob", "", str(digest), "it was stored just now")
        size = size or 0
        return Removed("blob", "", str(digest), "no repository holds it", size)

    def _sweep_quarantine(self) -> Iterable[Batch]:
        """Remove quarantined files that are no longer needed."""
        for blob in self.blobs.quarantined():
            if self._garbage.held([blob.digest]):
                continue
            self._garbage.check_consistency()
            if self._dry is None:
                self.blobs.delete_quarantined(blob)
            why = "it was damaged, and no repository holds it"
            yield [Removed("blob", "", str(blob.digest), why, blob.size)]

    def _is_newer_than_copy(self, digest: Digest, began: float) -> bool:
        """Return whether the copy of the catalog is too old to know this content."""
        stored_at = self.blobs.stored_at(digest)
        return stored_at is None or stored_at >= began
