"""The follower of a source that has no stream of events: it is looked at again and again.

What starts and stops between two looks is not seen.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Final

import msgspec

from digestry.errors import Unreachable
from digestry.inventory.formats.rows import UNKNOWN_HOST
from digestry.inventory.observation import ContainerObservation, Source, Unseen
from digestry.inventory.runs import (
    AllRuns,
    Run,
    RunChange,
    RunStarted,
    RunStopped,
    Step,
    Wakeup,
    moment,
)
from digestry.model.json_types import prepared

EVERY: Final = 2.0
"""Seconds between two looks."""

_LISTED: Final = "listed"
"""The instance of a container whose source does not say when it was started."""


class _Position(msgspec.Struct, frozen=True):
    """The instances of those containers that were listed, were not, and are again."""

    again: dict[str, str] = {}


class PollingFollower:
    """Looks at ``source`` every so many seconds."""

    def __init__(self, source: Source, *, every: float = EVERY) -> None:
        self._source = source
        self._every = every
        self._known: dict[str, Run] = {}
        self._again: dict[str, str] = {}
        self._gone: dict[str, None] = {}

    @property
    def name(self) -> str:
        return self._source.name

    def follow(self, position: str, wakeup: Wakeup) -> Iterator[Step]:
        """See :class:`~digestry.inventory.runs.Follower`."""
        self._again = dict(_parse(position).again)
        whole = True  # all that runs is reported first
        looked = moment()
        while True:
            before, looked = looked, moment()
            runs, problem = self._look(looked)
            if problem and not runs:
                raise Unreachable(problem)
            if whole and not problem:
                changes: tuple[RunChange, ...] = (AllRuns(looked, tuple(runs.values())),)
                whole = False
            else:
                changes = tuple(self._changes(runs, before, looked, complete=not problem))
            self._known = runs if not problem else self._known | runs
            text = msgspec.json.encode(_Position(self._again)).decode()
            if changes or problem:
                yield Step(changes, text, problem=problem)
            yield Step((), text, idle=not problem, problem=problem)
            wakeup.wait(self._every)
            whole = wakeup.take_request() or whole

    def _look(self, at: datetime.datetime) -> tuple[dict[str, Run], str]:
        """Return what runs, and why something could not be seen."""
        runs: dict[str, Run] = {}
        problem = ""
        for seen in self._source.observe():
            if isinstance(seen, Unseen):
                problem = problem or seen.message
            elif isinstance(seen, ContainerObservation) and seen.runs and not seen.waiting:
                identity = seen.id or f"{seen.namespace}/{seen.name}"
                runs[identity] = self._run(identity, seen, at)
        return runs, problem

    def _run(self, identity: str, seen: ContainerObservation, at: datetime.datetime) -> Run:
        known = self._known.get(identity)
        started, instance = seen.started_at, seen.instance
        if not instance:
            if identity in self._gone and known is None:
                self._again[identity] = f"listed again {at.isoformat()}"
            instance = self._again.get(identity, _LISTED)
            started = started or (known.started_at if known is not None else at)
        return Run(
            container=identity,
            instance=instance,
            started_at=started or at,
            image=seen.image,
            name=seen.name,
            namespace=seen.namespace,
            node="" if seen.host == UNKNOWN_HOST else seen.host,
            workload=seen.workload,
        )

    def _changes(
        self, runs: dict[str, Run], before: datetime.datetime, at: datetime.datetime, *, complete: bool
    ) -> Iterator[RunChange]:
        for identity, run in self._known.items():
            now = runs.get(identity)
            if (now is None and complete) or (now is not None and now.instance != run.instance):
                if run.instance.startswith(_LISTED):
                    self._gone[identity] = None
                self._again.pop(identity, None)
                yield RunStopped(identity, at, run.instance, after=before)
        for identity, run in runs.items():
            known = self._known.get(identity)
            if known is None or known.instance != run.instance:
                yield RunStarted(run)


def _parse(text: str) -> _Position:
    try:
        return msgspec.json.decode(text or "{}", type=prepared(_Position))
    except msgspec.DecodeError:
        return _Position()
