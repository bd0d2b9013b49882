"""The follower of an engine with Docker's API or podman's: its stream of events, and its lists.

The engine's times, and the position, are by the engine's clock; what is told is by this machine's.

An event tells that a container started; the container itself is then asked for its image. One that is gone by
then was removed after its first start, as a rule: the name of its image, which the event has, is looked up
among the images. If that name was moved since, the run is reported without a digest.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from digestry.errors import DigestryError, RemoteNotFound
from digestry.inventory.engine_values import FIRST_START
from digestry.inventory.followers.engine_api import EngineAPI, NamedImage
from digestry.inventory.followers.engine_events import (
    ENDS,
    GONE,
    NANOSECONDS,
    STARTS,
    EngineEvent,
    Position,
    read_event,
    told_before,
)
from digestry.inventory.followers.first_starts import FirstStarts
from digestry.inventory.formats.container_labels import read_labels
from digestry.inventory.formats.engine_documents import (
    FIRST_WITHIN,
    ImageRecord,
    ListedContainer,
)
from digestry.inventory.formats.engine_images import shown_image, with_podman_digest
from digestry.inventory.observation import ContainerObservation, ImageFacts
from digestry.inventory.runs import (
    LATE,
    AllRuns,
    Run,
    RunChange,
    RunStarted,
    RunStopped,
    Step,
    Unobserved,
    Wakeup,
    by_own_clock,
    moment,
    nanoseconds_of,
    of_nanoseconds,
)
from digestry.model.fleet import WRITTEN_START
from digestry.model.platform import Platform

CHECKED_EVERY: Final = 300.0
"""Seconds after which the engine's list is compared with what the events told."""

_CATCHING_UP: Final = 0.3
_MOST_ASKED: Final = 2000
"""Containers that have ended and are asked when, after the events were interrupted."""
_MOST_IMAGES: Final = 512
_FIRST_WITHIN: Final = round(FIRST_WITHIN.total_seconds()) * NANOSECONDS
_WRITTEN_BEFORE: Final = datetime.timedelta(seconds=10)
_ONE_END: Final = datetime.timedelta(seconds=2)
"""By which an end that the engine wrote down and its event may differ."""
_BEHIND: Final = datetime.timedelta(milliseconds=50)
"""An engine may tell of a start before it writes its time down."""


class EngineFollower:
    """Follows one engine through ``api``, or ``fallback`` if the engine does not have that.

    ``checked_every`` is in seconds.
    """

    def __init__(
        self,
        name: str,
        api: EngineAPI,
        *,
        fallback: EngineAPI | None = None,
        checked_every: float = CHECKED_EVERY,
    ) -> None:
        self._name = name
        self._api = api
        self._fallback = fallback
        self._checked_every = checked_every
        self._running: dict[str, Run] = {}
        self._overtaken: dict[str, Run] = {}
        """What ran before a start that a list told: its end is still to be told by an event."""
        self._starts = FirstStarts()
        self._images: dict[str, ImageRecord] = {}
        self._named: dict[str, NamedImage] = {}
        self._host = ""
        self._platform: Platform | None = None
        self._last, self._last_at, self._seen = "", 0, 0
        self._unknown_until = of_nanoseconds(0)
        """Until when the last gap reaches: at least to the last end of an unknown start."""

    @property
    def name(self) -> str:
        return self._name

    def follow(self, position: str, wakeup: Wakeup) -> Iterator[Step]:
        """See :class:`~digestry.inventory.runs.Follower`."""
        before = Position.parse(position)
        self._last, self._last_at, self._seen = before.last, before.last_at, before.seen
        self._starts.clear()
        self._overtaken.clear()
        self._forget_images()
        self._describe()
        opened = self._present()
        due = 0.0

        def wait(descriptor: int) -> bool:
            return wakeup.wait(max(0.0, due - time.monotonic()) if due else _CATCHING_UP, descriptor)

        # A little more, to know which containers are new, and which ended before.
        lines = self._api.events(max(0, (before.last_at or before.seen) - _FIRST_WITHIN), wait)
        replayed: list[EngineEvent] = []
        for line in lines:  # what the engine still has in its memory comes at once
            if line is None:
                break
            if line:
                replayed.append(read_event(line, self._api.url))
        yield self._step(self._resume(before, replayed, opened))
        due = time.monotonic() + self._checked_every
        for line in lines:
            if line:
                yield self._step(self._take(read_event(line, self._api.url)))
                continue
            if line is None and wakeup.take_request():
                yield self._step(self._all())
            if time.monotonic() >= due:
                yield self._step(self._compare())
                due = time.monotonic() + self._checked_every
            self._seen = self._present()
            yield Step((), self._position(), idle=True)

    def _describe(self) -> None:
        try:
            self._host, self._platform = self._api.describe()
        except RemoteNotFound:
            if self._fallback is None:
                raise
            self._api, self._fallback = self._fallback, None
            self._host, self._platform = self._api.describe()

    def _step(self, changes: Iterator[RunChange]) -> Step:
        told = tuple(changes)
        ahead = self._api.clock_ahead  # also as the questions say that were asked for these changes
        if ahead:
            told = tuple(by_own_clock(change, ahead) for change in told)
        return Step(told, self._position())

    def _present(self) -> int:
        """Return the present by the engine's clock, in nanoseconds since 1970."""
        return time.time_ns() + round(self._api.clock_ahead * NANOSECONDS)

    def _position(self) -> str:
        return Position(self._last, self._last_at, self._seen).text()

    def _forget_images(self) -> None:
        self._images.clear()
        self._named.clear()

    # -- what events tell -----------------------------------------------------------------------

    def _take(self, event: EngineEvent, since: datetime.datetime | None = None) -> Iterator[RunChange]:
        """Yield the changes that an event tells. ``since``: from then on events before it are forgotten."""
        self._last, self._last_at = event.key, event.nanoseconds
        self._seen = max(event.nanoseconds, self._seen)
        if event.moves_image:
            self._forget_images()
        if event.kind != "container" or not event.identity:
            return
        if event.action in STARTS:
            run = self._started(event)
            self._running[event.identity] = run
            yield RunStarted(run)
        elif event.action in ENDS or (event.action in GONE and event.identity in self._running):
            end = self._ended(event)
            if since is None or end.instance:
                yield end
            else:
                yield from self._unknown_end(event, since)
        self._starts.learn(event)

    def _ended(self, event: EngineEvent) -> RunStopped:
        """Return the end that an event tells."""
        run = self._running.get(event.identity)
        if run is not None and event.at >= run.started_at - _BEHIND:
            del self._running[event.identity]
        else:
            # It began before this follower did, or a list told a later start before this event was read.
            run = self._overtaken.pop(event.identity, None)
        first = FIRST_START if self._starts.is_first(event.identity, event.at) else ""
        return RunStopped(event.identity, event.at, run.instance if run else first)

    def _started(self, event: EngineEvent) -> Run:
        entry = ListedContainer(
            id=event.identity,
            image=event.attribute("image"),
            names=(event.attribute("name"),),
            labels=read_labels(event.attributes),
        )
        seen = self._api.source.container(entry, self._host, self._platform, self._image, still_listed=False)
        if not isinstance(seen, ContainerObservation) or seen.started_at is None:
            return self._gone(entry, event)
        again = seen.ended_at is None and seen.instance != FIRST_START
        if seen.started_at > event.at + _BEHIND or (
            again and self._starts.is_first(event.identity, event.at)
        ):
            return _run(seen, self._starts.instance(event), event.at)  # it was started again since
        run = self._run(seen, seen.started_at, event)
        # Docker writes the container's time down when it begins to start it, up to half a second before.
        if event.at - seen.started_at > _WRITTEN_BEFORE:
            return run
        began = max(event.at, seen.started_at)
        return replace(run, started_at=began if seen.ended_at is None else min(began, seen.ended_at))

    def _run(
        self, seen: ContainerObservation, started_at: datetime.datetime, event: EngineEvent | None = None
    ) -> Run:
        """Return the run of a container that was seen.

        Its end, if it is over, hides whether it was its first. The events before the ``event`` of its start
        may tell that; a list never does.
        """
        if seen.ended_at is None:
            return _run(seen, seen.instance, started_at)
        late = seen.created_at is not None and started_at - seen.created_at > FIRST_WITHIN
        first = False if late else event and self._starts.is_first(seen.id, started_at)
        if first is None:
            name = event.start_name if event else f"{WRITTEN_START}{nanoseconds_of(started_at)}"
            return _run(seen, name, started_at)
        return _run(seen, FIRST_START if first else seen.instance, started_at)

    def _gone(self, entry: ListedContainer, event: EngineEvent) -> Run:
        """Return the run of a container that cannot be asked about any more."""
        labels = read_labels(event.attributes)
        return Run(
            container=event.identity,
            instance=self._starts.instance(event),
            started_at=event.at,
            image=self._image_named(entry.image or "", event.at),
            name=entry.name,
            namespace=labels.compose_project,
            node=self._host,
            workload=labels.workload,
        )

    def _image_named(self, name: str, at: datetime.datetime) -> ImageFacts:
        """Return the image that ``name`` meant at a time, as far as that is certain."""
        found = self._named.get(name)
        if found is None:
            try:
                found = self._api.named_image(name)
            except DigestryError:
                return ImageFacts(name or None)
            if found.named_at is not None and found.named_at > at:
                return ImageFacts(name or None)
            if len(self._named) >= _MOST_IMAGES:
                self._named.clear()
            self._named[name] = found
        image = shown_image(
            typed=name,
            image_id=found.identity,
            image=found.record,
            platform=found.record.platform or self._platform,
            remarks=[],
            made_up=self._api.made_up,
        )
        return with_podman_digest(image, "", []) if self._api.made_up else image

    def _image(self, identity: str) -> ImageRecord:
        found = self._images.get(identity)
        if found is None:
            found = self._api.image(identity)
            if len(self._images) >= _MOST_IMAGES:
                self._images.clear()
            self._images[identity] = found
        return found

    # -- what lists tell --------------------------------------------------------------------------

    def _resume(self, before: Position, replayed: list[EngineEvent], opened: int) -> Iterator[RunChange]:
        """Yield what happened since ``before``, as far as the engine still says, and all that runs."""
        covered = not before.seen
        if before.seen:
            told = told_before(before, replayed)
            covered = told > 0
            if covered:  # the engine still has all that came after it
                for event in replayed[:told]:
                    self._starts.learn(event)
                replayed = replayed[told:]
        since = None if covered else of_nanoseconds(before.seen) - LATE
        self._unknown_until = of_nanoseconds(max(opened, before.seen))
        changes = list(self._resumed(replayed, since))
        if since is not None:
            reason = "the engine does not have all events since then any more"
            yield Unobserved(since, self._unknown_until, reason)
        yield from changes
        self._seen = max(opened, self._seen)

    def _resumed(
        self, replayed: Sequence[EngineEvent], since: datetime.datetime | None
    ) -> Iterator[RunChange]:
        for event in replayed:
            yield from self._take(event, since)
        # One list for both: what ends between two would be in neither.
        at = moment()
        listed = self._api.source.containers(include_stopped=since is not None)
        if since is not None:
            yield from self._ended_since(since, listed)
        yield from self._all_of(listed, at)

    def _ended_since(
        self, since: datetime.datetime, listed: Sequence[ListedContainer]
    ) -> Iterator[RunChange]:
        """Yield the ends, since a time, of the containers that are still there."""
        told = self._starts.ended
        ended = [entry for entry in listed if not entry.runs and entry.id not in told]
        for entry in ended[:_MOST_ASKED]:
            seen = self._observe(entry)
            if seen is not None and seen.ended_at is not None and seen.ended_at >= since:
                yield from self._end_of(seen, seen.ended_at, since)

    def _end_of(
        self, seen: ContainerObservation, ended_at: datetime.datetime, since: datetime.datetime
    ) -> Iterator[RunChange]:
        """Yield the end of a container that was seen, and its start if that was after ``since``."""
        self._running.pop(seen.id, None)
        if seen.started_at is None or seen.started_at < since:
            yield RunStopped(seen.id, ended_at)
            return
        run = self._run(seen, seen.started_at)
        yield RunStarted(run)
        yield RunStopped(seen.id, ended_at, run.instance)

    def _unknown_end(self, event: EngineEvent, since: datetime.datetime) -> Iterator[RunChange]:
        """Yield an end of whose start nothing is known, as events since then are forgotten.

        What ran before may have ended in that time, and this may be the end of a later start.
        """
        seen = self._observe(ListedContainer(id=event.identity))
        if seen is not None and seen.ended_at is not None and abs(seen.ended_at - event.at) <= _ONE_END:
            yield from self._end_of(seen, event.at, since)
        else:
            self._unknown_until = max(self._unknown_until, event.at)
            yield RunStopped(event.identity, event.at, after=min(since, event.at))

    def _all(self) -> Iterator[RunChange]:
        """Yield all that runs, and before it the starts of what ended meanwhile."""
        at = moment()
        yield from self._all_of(self._api.source.containers(include_stopped=False), at)

    def _all_of(self, listed: Sequence[ListedContainer], at: datetime.datetime) -> Iterator[RunChange]:
        """Yield what runs of a list that was made after ``at``, as :meth:`_all` does."""
        began, gone = of_nanoseconds(self._present()), False
        runs: dict[str, Run] = {}
        for entry in [entry for entry in listed if entry.runs]:
            seen = self._observe(entry)
            if seen is None or seen.started_at is None:
                known = self._running.get(entry.id)
                if known is not None:
                    runs[entry.id] = known
                gone = gone or known is None
                continue
            run = self._run(seen, seen.started_at)
            known = self._running.get(entry.id)
            if known is not None and (known.instance == run.instance or seen.ended_at is not None):
                run = known  # with the time of its event
            elif known is not None:
                self._overtaken[entry.id] = known
            runs[entry.id] = run
            if seen.ended_at is not None:  # it has ended since the list was made; an event says so
                yield RunStarted(run)
        self._running = runs
        if gone:
            # When these started is not known: as a rule, before the list and not long ago.
            self._unknown_until = max(began, of_nanoseconds(self._present()))
            reason = "what ran was gone before the engine could be asked about it"
            yield Unobserved(began - _ONE_END, self._unknown_until, reason)
        yield AllRuns(at, tuple(runs.values()))

    def _compare(self) -> Iterator[RunChange]:
        """Yield all that runs, if the engine's list has other containers than the events told."""
        self._describe()
        listed = {entry.id for entry in self._api.source.containers(include_stopped=False)}
        if listed != self._running.keys():
            yield from self._all()

    def _observe(self, entry: ListedContainer) -> ContainerObservation | None:
        seen = self._api.source.container(entry, self._host, self._platform, self._image, still_listed=False)
        return seen if isinstance(seen, ContainerObservation) else None


def _run(seen: ContainerObservation, instance: str, started_at: datetime.datetime) -> Run:
    return Run(
        container=seen.id,
        instance=instance,
        started_at=started_at,
        image=seen.image,
        name=seen.name,
        namespace=seen.namespace,
        node=seen.host,
        workload=seen.workload,
    )
