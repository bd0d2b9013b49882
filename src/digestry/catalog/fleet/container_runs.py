"""The rules by which reports make, end and reopen runs: values, without a database.

The order in which two agents of one place report the same does not matter, and neither does a report that
comes late (docs/adr/0028).
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from digestry.catalog import clock
from digestry.catalog.fleet.report_times import TOLERANCE
from digestry.model.fleet import event_of_start, written_time_of_start

RunKey: TypeAlias = tuple[str, str]
"""A container's ID and the engine's words for one of its starts."""

_SAME_EVENT: Final = clock.SECOND // 20
_SAME_TIME: Final = clock.SECOND // 1000
_WRITTEN_BEFORE: Final = 10 * clock.SECOND
"""A busy engine may write the time of a start down so long before its event."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a report says about a container beside its times; ``image`` is a row's number."""

    image: int
    name: str = ""
    namespace: str = ""
    node: str = ""
    workload: str = ""


@dataclass(slots=True, eq=False)
class Run:
    """A container from one start to its end. ``number`` is its row's; None until it has one."""

    container: str
    instance: str
    started_at: int
    described: Described | None
    """None for a run that was read from the database, whose description does not change."""
    number: int | None = None
    image: int = 0
    """That of a run that was read from the database; ``stored_end`` is its end there."""
    stored_end: int | None = None
    ended_at: int | None = None
    ended_after: int | None = None
    changed: bool = False
    renamed: bool = False
    """Whether its ``instance`` is another one than in the database."""

    @property
    def key(self) -> RunKey:
        return self.container, self.instance

    @property
    def end_seen(self) -> bool:
        """Return whether it has ended, and somebody saw when."""
        return self.ended_at is not None and self.ended_at == self.ended_after

    def end(self, at: int, after: int) -> None:
        """Record that it ended after ``after`` and at ``at`` or before.

        Of several ends that were seen, the earliest counts; of several that were not, what they agree on.
        """
        at = max(at, self.started_at)
        after = min(max(after, self.started_at), at)
        old_at, old_after = self.ended_at, self.ended_after
        if old_at is None or old_after is None:
            new = at, after
        elif (at == after) != (old_at == old_after):
            new = (at, after) if at == after else (old_at, old_after)
        elif at == after:
            new = min((at, after), (old_at, old_after))
        else:
            new = min(at, old_at), max(after, old_after)
            if new[1] > new[0]:
                new = min((at, after), (old_at, old_after))
        if new != (old_at, old_after):
            self.ended_at, self.ended_after = new
            self.changed = True

    def seen_alive(self, at: int) -> None:
        """Record that it ran at ``at``: an end before that, which nobody saw, was none."""
        if self.ended_at is None or self.ended_after is None or self.end_seen:
            return
        if at >= self.ended_at:
            self.ended_at = self.ended_after = None
            self.changed = True
        elif at > self.ended_after:
            self.ended_after = at
            self.changed = True


@dataclass(frozen=True, slots=True)
class EarlyEnd:
    """An end that was reported before its start."""

    ended_at: int
    ended_after: int


@dataclass(slots=True)
class ContainerRuns:
    """The runs of one source that a report is about.

    ``confirmed_at`` is until when all that ran is known; ``snapshot_at`` when the last whole snapshot was
    taken. ``early_ends`` are of runs that are not there yet.
    """

    confirmed_at: int
    snapshot_at: int | None = None
    early_ends: dict[RunKey, EarlyEnd] = field(default_factory=dict)
    used_ends: set[RunKey] = field(default_factory=set)
    """Those of ``early_ends`` whose runs came."""
    new_ends: set[RunKey] = field(default_factory=set)
    """Those of ``early_ends`` that were reported now."""
    runs: dict[RunKey, Run] = field(default_factory=dict)
    _of_container: dict[str, list[Run]] = field(default_factory=dict)
    _other_names: dict[RunKey, Run] = field(default_factory=dict)
    """Runs whose start has another name too."""
    _open: dict[str, list[Run]] = field(default_factory=dict)
    _were_open: int = 0

    def add(self, run: Run) -> None:
        """Add a run that was read from the database."""
        if run.key not in self.runs:
            self._keep(run)
            if run.ended_at is None:
                self._open.setdefault(run.container, []).append(run)
                self._were_open += 1

    @property
    def opened(self) -> int:
        """Return how many runs more have no end than when they were read; less than 0 if fewer have."""
        return sum(run.ended_at is None for run in self.runs.values()) - self._were_open

    def has(self, container: str, instance: str) -> bool:
        """Return whether there is a run of that start."""
        return self._named(container, instance, None) is not None

    def started(self, container: str, instance: str, at: int, described: Described) -> Run:
        """Record a start, and return its run: a new one, or the one that is there."""
        return self._run(container, instance, at, described, known=at)[0]

    def listed(self, container: str, instance: str, started_at: int, described: Described, *, at: int) -> Run:
        """Record that a snapshot of the time ``at`` has a container; return its run."""
        run, new = self._run(container, instance, started_at, described, known=max(started_at, at))
        if not new:
            was_open = run.ended_at is None
            run.seen_alive(at)
            if run.ended_at is None and not was_open:
                self._open.setdefault(container, []).append(run)
        elif run.ended_at is None and self.snapshot_at is not None and at < self.snapshot_at - TOLERANCE:
            # A later snapshot is recorded already, and did not have it.
            self._end(run, self.snapshot_at, after=max(started_at, at))
        return run

    def _run(
        self, container: str, instance: str, started_at: int, described: Described, *, known: int
    ) -> tuple[Run, bool]:
        key = container, instance
        found = self._named(container, instance, started_at)
        if found is not None:
            return found, False
        run = Run(container, instance, started_at, described, changed=True)
        self._keep(run)
        self._open.setdefault(container, []).append(run)
        early = self.early_ends.pop(key, None)
        if early is not None:
            self.used_ends.add(key)
            self._end(run, early.ended_at, after=early.ended_after)
        for other in list(self._open[container]):
            if other is run:
                continue
            if other.started_at <= started_at:
                self._end(other, started_at, after=self._last_known(other, started_at))
            elif run.ended_at is None:
                self._end(run, other.started_at, after=min(known, other.started_at - 1))
        return run, True

    def stopped(
        self, container: str, instance: str, at: int, after: int, *, started_at: int | None = None
    ) -> None:
        """Record an end. Without ``instance`` it is the end of whichever start of the container runs.
        ``started_at`` is when that start was, if its name says so."""
        if not instance:
            if (ended := self._running_at(container, at)) is not None:
                self._end(ended, at, after=after)
            return
        key = container, instance
        run = self._named(container, instance, started_at)
        if run is not None:
            self._end(run, at, after=after)
            return
        if _kind(instance) != _CERTAIN:
            # Whatever of it ran before has ended then.
            running = [run for run in self._open.get(container, ()) if run.started_at <= at]
            if running:
                self._end(max(running, key=lambda run: run.started_at), at, after=after)
                return
        early = self.early_ends.get(key)
        if early is None or at < early.ended_at:
            self.early_ends[key] = EarlyEnd(at, after)
            self.new_ends.add(key)

    def _running_at(self, container: str, at: int) -> Run | None:
        """Return the run of a container that an end at a time, without a start's name, is of."""
        running = self._open.get(container, [])
        before = [run for run in running if run.started_at <= at]
        if before:
            return max(before, key=lambda run: run.started_at)
        for run in self._of_container.get(container, ()):
            if run.ended_at is None or run.ended_after is None:
                continue
            if run.end_seen and abs(run.ended_at - at) <= _SAME_EVENT:
                return run  # another observer saw it too
            if not run.end_seen and run.ended_after <= at <= run.ended_at:
                return run
        # A start that is known to the second alone may seem to be after its end.
        near = [
            run
            for run in running
            if run.started_at <= at + (_SAME_EVENT if run.started_at % clock.SECOND else TOLERANCE)
        ]
        return min(near, key=lambda run: run.started_at, default=None)

    def complete(self, at: int, named: Collection[int], listed: Iterable[Run]) -> None:
        """Record that a whole snapshot of the time ``at`` has only the runs of the row numbers ``named`` and
        those ``listed`` now: all others that started before have ended. One that is older than another
        ends nothing."""
        if self.snapshot_at is not None and at < self.snapshot_at:
            return
        here = set(map(id, listed))
        for run in [run for running in self._open.values() for run in running]:
            # A start that is known to the second alone may seem to be before the snapshot.
            if run.started_at < at - TOLERANCE and id(run) not in here and run.number not in named:
                self._end(run, at, after=self._last_known(run, at))
        self.snapshot_at = at
        self.confirm(at)

    def confirm(self, at: int) -> None:
        """Record that all that ran until ``at`` is known."""
        self.confirmed_at = max(self.confirmed_at, at)

    def _keep(self, run: Run) -> None:
        self.runs[run.key] = run
        self._of_container.setdefault(run.container, []).append(run)

    def _named(self, container: str, instance: str, started_at: int | None) -> Run | None:
        """Return the run of a start. One that an observer knows by its event or its time alone may have
        another name: it is the start at the same time."""
        found = self.runs.get((container, instance)) or self._other_names.get((container, instance))
        if found is not None or started_at is None:
            return found
        near = [
            (distance, run)
            for run in self._of_container.get(container, ())
            if _kind(run.instance) != _kind(instance)
            and (distance := _distance(run, instance, started_at)) is not None
        ]
        if not near:
            return None
        _, found = min(near, key=lambda one: one[0])
        if _kind(instance) != _CERTAIN:
            self._other_names[container, instance] = found
        else:
            self._other_names[found.key] = self.runs.pop(found.key)
            found.instance, found.changed, found.renamed = instance, True, True
            self.runs[found.key] = found
        return found

    def _last_known(self, run: Run, before: int) -> int:
        """Return until when a run that ended before ``before``, unseen, is known to have run."""
        return max(run.started_at, min(self.confirmed_at, before - 1))

    def _end(self, run: Run, at: int, *, after: int) -> None:
        run.end(at, after)
        running = self._open.get(run.container, [])
        if run in running:
            running.remove(run)


_BY_EVENT, _BY_TIME, _CERTAIN = range(3)
"""How a start is named: by its event, by the engine's own time for it, or as every observer would name it."""


def _kind(instance: str) -> int:
    if event_of_start(instance) is not None:
        return _BY_EVENT
    return _CERTAIN if written_time_of_start(instance) is None else _BY_TIME


def _distance(run: Run, instance: str, started_at: int) -> int | None:
    """Return how far apart the starts of ``run`` and ``instance`` are, which have names of two kinds.

    None: they are different ones. An engine writes the time of a start down before its event, and a run
    begins at either.
    """
    starts = (run.instance, run.started_at), (instance, started_at)
    (name, at), (other_name, other_at) = sorted(starts, key=lambda start: _kind(start[0]))
    if run.ended_at is not None and run.ended_at < max(at, other_at) - _SAME_EVENT:
        return None
    written, other_written = _written(name), _written(other_name)
    if written is not None and other_written is not None:
        apart = abs(written - other_written)
        return apart if apart <= _SAME_TIME else None
    if abs(at - other_at) <= _SAME_EVENT:
        return abs(at - other_at)
    event = event_of_start(name)
    if event is None:
        later = other_at - at
    elif other_written is None:
        return None  # a first start, which its own event told
    else:  # by the engine's clock, both
        later = event - other_written
    return later if 0 <= later <= _WRITTEN_BEFORE else None


def _written(instance: str) -> int | None:
    """Return the time of a start that is named by the time that the engine wrote down for it."""
    if (time := written_time_of_start(instance)) is not None:
        return time
    try:
        found = datetime.datetime.fromisoformat(instance)
    except ValueError:
        return None
    return None if found.tzinfo is None else clock.from_datetime(found)
