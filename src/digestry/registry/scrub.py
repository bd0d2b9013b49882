"""The scrub: read all stored content again, at a bounded rate, and quarantine what is damaged.

A pass reads content in the order of the digests. It can resume at any digest, even after pushes and
deletions, and the last digest alone says how far the pass is. The scrub skips content that no repository has:
it cannot be pulled.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from digestry.backend import Backend
from digestry.blobs.failures import Unreadable
from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.damage import HeldContent
from digestry.catalog.job_states import SCRUB, JobState
from digestry.coordination.protocol import FencedLock, Job
from digestry.errors import Conflict, NotFound, StorageError
from digestry.model.digest import ALGORITHMS, Digest
from digestry.registry import store_identity, toml
from digestry.registry.quarantine import Note, Quarantine
from digestry.registry.toml import Key, Where

log: Final = logging.getLogger("digestry.registry")

SLOWEST: Final = 64 << 10
"""Bytes a second; less is no speed at which a pass ever ends."""
_LEAST: Final = 64 << 10
"""The least bytes that a file counts for the rate: many small files are work for a disk as well."""
_PAGE: Final = 500
_NOTE_SECONDS: Final = 5.0
_HELD_SECONDS: Final = 5.0
"""Seconds between checks while another process scrubs: if that one dies, this one takes over."""
_LOOK_SECONDS: Final = 3600.0
_UNREAD: Final = 100
_POSITION: Final = 13  # hex digits: as many as a float holds


def _rate(value: object, where: Where) -> int:
    found = toml.size(value, where)
    if found < SLOWEST:
        raise ValueError(f"{SLOWEST >> 10} KiB or more are required")
    return found


KEYS: Final = (
    Key("every", toml.unless_off(toml.span(1, 366 * 86400)), 7 * 86400.0),
    Key("rate", _rate, 20 << 20),
)


@dataclass(frozen=True, slots=True)
class ScrubConfig:
    """The scrub's schedule: ``every`` is seconds from the start of one pass to the next (None: no scrub),
    ``rate`` is bytes a second."""

    every: float | None = 7 * 86400.0
    rate: int = 20 << 20


def parse(sections: Mapping[str, object], where: Where) -> ScrubConfig:
    """Read ``[scrub]``. Raises :class:`InvalidConfiguration`."""
    return ScrubConfig(**toml.read(sections.get("scrub", {}), KEYS, Where(where.file, "scrub")))


class Stopped(Exception):
    """The caller asked the scrub to stop."""


class RateThrottle:
    """A throttle of ``rate`` bytes a second over many files, until ``stop`` is set.

    Unused time is saved up for a quarter of a second at most: no burst follows a stall of the disk.
    """

    _SAVED: Final = 0.25

    def __init__(self, rate: int, stop: threading.Event) -> None:
        self.chunk = max(32 << 10, min(1 << 20, rate // 8))
        self._rate = rate
        self._stop = stop
        self._due = time.monotonic()

    def take(self, count: int) -> None:
        """Wait until ``count`` more bytes may be read. Raises :class:`Stopped`."""
        now = time.monotonic()
        self._due = max(self._due, now - self._SAVED)
        if self._stop.wait(max(0.0, self._due - now)):
            raise Stopped
        self._due += count / self._rate


@dataclass(slots=True)
class Pass:
    """The progress of one pass. ``damaged`` counts damaged content, known before or not; ``unread`` the
    content that could not be read."""

    started_at: int
    after: str = ""
    blobs: int = 0
    bytes: int = 0
    damaged: int = 0
    unread: int = 0
    passes: int = 0
    """The number of completed passes, this one included."""
    rate: int = 0
    finished_at: int | None = None
    problems: list[str] = field(default_factory=list)
    """Why content could not be judged: the first hundred of this run."""

    @property
    def done(self) -> float:
        """Return the part of the pass that is complete, from 0 to 1: digests are spread evenly."""
        if self.finished_at is not None:
            return 1.0
        algorithm, _, encoded = self.after.partition(":")
        if algorithm not in ALGORITHMS:
            return 0.0
        part = int(encoded[:_POSITION], 16) / 16**_POSITION
        return part if algorithm == "sha256" else 1.0  # there are hardly any of the others

    def state(self) -> dict[str, object]:
        """Return the progress as the catalog stores it."""
        names = ("after", "blobs", "bytes", "damaged", "unread", "passes", "rate")
        return {name: getattr(self, name) for name in names}


def last(catalog: Catalog) -> Pass | None:
    """Return the progress of the last pass."""
    kept = catalog.jobs.state(SCRUB)
    if kept is None:
        return None
    known = Pass(kept.started_at, finished_at=kept.finished_at)
    for name, value in kept.state.items():
        if type(getattr(known, name, None)) is type(value):
            setattr(known, name, value)
    return known


class Scrub:
    """The scrub of a registry."""

    def __init__(
        self,
        catalog: Catalog,
        backend: Backend,
        *,
        rate: int,
        note: Note = lambda *_: None,
    ) -> None:
        """``catalog`` is that of ``backend``. ``note`` is called for content that enters or leaves
        quarantine."""
        self._catalog = catalog
        self._location = backend.location
        self._rate = rate
        self._now = backend.now
        self._blobs = backend.blobs
        self._coordination = backend.coordination
        self._quarantine = Quarantine(
            self._blobs, self._coordination, catalog.damage, now=self._now, note=note
        )

    def run(
        self,
        stop: threading.Event,
        *,
        from_start: bool = False,
        watch: Callable[[Pass], None] = lambda _: None,
        due: Callable[[Pass], bool] = lambda _: True,
    ) -> Pass:
        """Resume the interrupted pass, or begin one, and finish it.

        Returns early, with ``finished_at`` None, once ``stop`` is set. ``watch`` is called with the progress
        from time to time. If none is ``due`` after the last pass, once no other process scrubs, that one is
        returned. Raises :class:`Conflict` while another scrub has this root, and :class:`StorageError` if
        more than one file cannot be read.
        """
        held = f"a scrub of {self._location} is under way in another process"
        with self._coordination.only_one(Job.SCRUB, held=held) as lock:
            store_identity.check(self._catalog, self._blobs, remove=False)
            before = last(self._catalog)
            if before is not None and not due(before):
                return before
            current = before
            if current is None or current.finished_at is not None or from_start:
                current = Pass(self._now(), passes=0 if before is None else before.passes)
            current.rate = self._rate
            self._note(current, lock)
            try:
                self._walk(current, lock, stop, watch)
            except Stopped:
                self._note(current, lock)
                return current
            except BaseException:
                with contextlib.suppress(StorageError, Conflict):  # the first error is the one to report
                    self._note(current, lock)
                raise
            self._catalog.damage.forget_unheld()
            current.finished_at = self._now()
            current.passes += 1
            self._note(current, lock)
            return current

    def look_at(self, digests: Sequence[Digest], stop: threading.Event) -> Pass:
        """Check only this content. A pass under way is not affected, and no progress is recorded.

        Returns early, with ``finished_at`` None, once ``stop`` is set. Raises :class:`NotFound` for
        content that no repository has, and :class:`StorageError`.
        """
        store_identity.check(self._catalog, self._blobs, remove=False)
        wanted = []
        for digest in digests:
            held = self._catalog.damage.find(digest)
            if held is None:
                raise NotFound(f"no repository of {self._location} has {digest}")
            wanted.append(held)
        current = Pass(self._now(), rate=self._rate)
        bucket = RateThrottle(self._rate, stop)
        with contextlib.suppress(Stopped):
            for held in wanted:
                self._look(current, held, bucket)
            current.finished_at = self._now()
        return current

    def _walk(
        self, current: Pass, lock: FencedLock, stop: threading.Event, watch: Callable[[Pass], None]
    ) -> None:
        bucket = RateThrottle(self._rate, stop)
        noted = time.monotonic()
        while page := self._catalog.damage.content(after=current.after, limit=_PAGE):
            for held in page:
                lock.check()
                self._look(current, held, bucket)
                current.after = str(held.digest)
                if time.monotonic() - noted >= _NOTE_SECONDS:
                    self._note(current, lock)
                    noted = time.monotonic()
                watch(current)

    def _look(self, current: Pass, held: HeldContent, bucket: RateThrottle) -> None:
        bucket.take(max(0, _LEAST - held.size))
        try:
            if self._quarantine.verify(held.digest, held.size, known=held.damaged, throttle=bucket):
                current.damaged += 1
        except Unreadable as error:
            # Only this file: the others are checked, and the failure is reported.
            current.unread += 1
            if len(current.problems) < _UNREAD:
                current.problems.append(error.message)
            log.error("the scrub could not look at %s: %s", held.digest, error.message)
        current.blobs += 1
        current.bytes += held.size

    def _note(self, current: Pass, lock: FencedLock) -> None:
        state = JobState(SCRUB, current.started_at, current.finished_at, current.state())
        self._catalog.jobs.store(state, lock)


class ScrubJob:
    """The maintenance job that scrubs a served registry, from ``first`` seconds after its start on."""

    name = "scrub"

    def __init__(
        self,
        backend: Backend,
        config: ScrubConfig,
        *,
        first: float = 0.0,
        note: Note = lambda *_: None,
    ) -> None:
        self._first = time.monotonic() + min(first, config.every or 0.0)
        self._catalog = backend.open_catalog()
        self._every = config.every
        self._now = backend.now
        self._scrub = Scrub(self._catalog, backend, rate=config.rate, note=note)

    def run(self, stop: threading.Event) -> float:
        """Run the pass that is due, and return after how many seconds to call again."""
        self._catalog.damage.forget_unheld()  # content that was deleted meanwhile is no problem
        if self._every is None:
            return _LOOK_SECONDS
        if (early := self._first - time.monotonic()) > 0:
            return early
        before = last(self._catalog)
        if before is not None and (left := self._seconds_left(before)) > 0:
            return min(left, _LOOK_SECONDS)
        try:
            found = self._scrub.run(stop, due=lambda last_pass: self._seconds_left(last_pass) <= 0)
        except Conflict:
            return _HELD_SECONDS  # somebody runs one by hand
        if found.finished_at is not None and (found.damaged or found.unread):
            log.error(
                "the scrub looked at %d blobs: %d are damaged, %d could not be read;"
                " digestry scrub --list has more",
                found.blobs,
                found.damaged,
                found.unread,
            )
        return 0.0

    def _seconds_left(self, before: Pass) -> float:
        """Return after how many seconds the next pass is due."""
        now = self._now()
        if self._every is None or before.finished_at is None or before.started_at > now:
            return 0.0  # it was broken off; or it began later than now, by a clock that was set back since
        return self._every - (now - before.started_at) / clock.SECOND
