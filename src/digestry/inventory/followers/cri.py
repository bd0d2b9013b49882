"""The follower of a runtime by its CRI: its stream of events, where it has one for several readers.

The CRI keeps containers that have ended until the kubelet removes them: the runtime is asked when the
container that an event names started and ended. Runtimes without the stream are looked at again and again.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import time
from collections.abc import Iterator
from typing import Final

from digestry.errors import Refused
from digestry.inventory.followers.polling import PollingFollower
from digestry.inventory.observation import ContainerObservation, Unseen
from digestry.inventory.runs import (
    AllRuns,
    Run,
    RunChange,
    RunStarted,
    RunStopped,
    Step,
    Unobserved,
    Wakeup,
    moment,
    of_nanoseconds,
)
from digestry.inventory.sources.cri import CONTAINER_STARTED, ContainerEvent, CriSource, Runtime
from digestry.model.timestamps import parse_rfc3339, rfc3339

CHECKED_EVERY: Final = 60.0
"""Seconds after which the runtime's list is compared with what the events told."""
_SHARED_SINCE: Final = {"containerd": (2, 0), "cri-o": (1, 30)}
"""The runtimes that give each reader all events. In older ones, two readers share them: a kubelet would miss
those that are read here."""


class CriFollower:
    """Follows one runtime; ``listed`` is its source with the containers that have ended. ``checked_every`` is
    in seconds."""

    def __init__(
        self,
        name: str,
        runtime: Runtime,
        running: CriSource,
        listed: CriSource,
        *,
        checked_every: float = CHECKED_EVERY,
    ) -> None:
        self._name = name
        self._runtime = runtime
        self._source = running
        self._listed = listed
        self._checked_every = checked_every
        self._running: dict[str, Run] = {}
        self._problem = ""

    @property
    def name(self) -> str:
        return self._name

    def follow(self, position: str, wakeup: Wakeup) -> Iterator[Step]:
        """See :class:`~digestry.inventory.runs.Follower`.

        The position is the time until which all was known: a runtime keeps no events.
        """
        try:
            if self._has_events():
                with contextlib.suppress(Refused):  # it is switched off, as it is in CRI-O by default
                    yield from self._follow(_time(position), wakeup)
            yield from PollingFollower(self._source).follow("", wakeup)
        finally:
            self._runtime.close()

    def _has_events(self) -> bool:
        name, version = self._runtime.version()
        least = _SHARED_SINCE.get(name)
        numbers = re.match(r"v?(\d+)\.(\d+)", version)
        return least is not None and numbers is not None and (int(numbers[1]), int(numbers[2])) >= least

    def _follow(self, before: datetime.datetime | None, wakeup: Wakeup) -> Iterator[Step]:
        due = time.monotonic() + self._checked_every

        def wait(descriptor: int) -> bool:
            return wakeup.wait(max(0.0, due - time.monotonic()), descriptor)

        events = self._runtime.events(wait)
        next(events)  # it is subscribed now, and what happens during the list is not missed
        opened = moment()
        missing = () if before is None else (Unobserved(before, max(before, opened), "it was not followed"),)
        changes = (*missing, *self._ended_since(before), *self._all())
        yield Step(changes, rfc3339(opened), problem=self._problem)
        for event in events:
            if isinstance(event, ContainerEvent):
                told = tuple(self._take(event))
                if told:
                    yield Step(told, rfc3339(moment()), problem=self._problem)
                continue
            if event is None and wakeup.take_request():
                yield Step(tuple(self._all()), rfc3339(moment()), problem=self._problem)
            if time.monotonic() >= due:
                due = time.monotonic() + self._checked_every
                yield Step(tuple(self._compare()), rfc3339(moment()), problem=self._problem)
            yield Step((), rfc3339(moment()), idle=not self._problem, problem=self._problem)

    def _take(self, event: ContainerEvent) -> Iterator[RunChange]:
        """Yield the changes that an event tells."""
        known = self._running.get(event.container)
        seen = self._source.one(event.container)
        if seen is None:
            if known is not None:
                yield self._stopped(known, of_nanoseconds(event.at))
            return
        if seen.started_at is None or (seen.waiting and event.kind != CONTAINER_STARTED):
            return  # it was made, and has not started; or it is a sandbox's
        if known is None and seen.ended_at is None:
            yield self._started(seen)
        elif seen.ended_at is not None:
            if known is None:
                # It may be one that was told before; the same start again changes nothing.
                yield self._started(seen)
                known = self._running[seen.id]
            yield self._stopped(known, seen.ended_at)

    def _started(self, seen: ContainerObservation) -> RunStarted:
        run = self._running[seen.id] = _run(seen)
        return RunStarted(run)

    def _stopped(self, run: Run, at: datetime.datetime) -> RunStopped:
        self._running.pop(run.container, None)
        return RunStopped(run.container, max(at, run.started_at), run.instance)

    # -- lists ------------------------------------------------------------------------------------

    def _ended_since(self, since: datetime.datetime | None) -> Iterator[RunChange]:
        """Yield the starts and ends, since a time, of the containers that the runtime still has."""
        if since is None:
            return
        for seen in self._listed.observe():
            if (
                isinstance(seen, ContainerObservation)
                and seen.ended_at is not None
                and seen.ended_at >= since
            ):
                run = _run(seen)
                if run.started_at >= since:
                    yield RunStarted(run)
                yield RunStopped(run.container, seen.ended_at, run.instance)

    def _all(self) -> Iterator[RunChange]:
        """Yield all that runs; nothing, but the problem, if something could not be seen."""
        at = moment()
        runs: dict[str, Run] = {}
        self._problem = ""
        for seen in self._source.observe():
            if isinstance(seen, Unseen):
                self._problem = self._problem or seen.message
            elif isinstance(seen, ContainerObservation) and seen.runs and not seen.waiting:
                runs[seen.id] = self._running.get(seen.id) or _run(seen)
        if self._problem:
            self._running |= runs
            return
        self._running = runs
        yield AllRuns(at, tuple(runs.values()))

    def _compare(self) -> Iterator[RunChange]:
        """Yield all that runs, if the list has others than the events told, or could not be read."""
        listed = {container.id for container in self._runtime.containers() if container.runs}
        if self._problem or listed != self._running.keys():
            yield from self._all()


def _run(seen: ContainerObservation) -> Run:
    return Run(
        container=seen.id,
        instance=seen.instance,
        started_at=seen.started_at or moment(),
        image=seen.image,
        name=seen.name,
        namespace=seen.namespace,
        node=seen.host,
        workload=seen.workload,
    )


def _time(position: str) -> datetime.datetime | None:
    try:
        return parse_rfc3339(position).first
    except ValueError:
        return None
