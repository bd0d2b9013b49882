"""The follower of containerd: its events of tasks, in all namespaces or the chosen ones.

A container is looked at when it is made, while its snapshot and its image are there, and not when it starts:
it may be gone soon after. A start is known by the number of its process, since this boot of the machine.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from digestry.errors import RemoteNotFound
from digestry.inventory.engines.containerd_api import Containerd, ContainerdEvent, Process
from digestry.inventory.followers.task_processes import began_at
from digestry.inventory.observation import ContainerObservation, ImageFacts
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
from digestry.inventory.sources.containerd import ContainerdSource
from digestry.inventory.sources.containerd_images import NamespaceStore
from digestry.model.timestamps import parse_rfc3339, rfc3339

CHECKED_EVERY: Final = 300.0
"""Seconds after which the list of tasks is compared with what the events told."""

_CREATED: Final = "/containers/create"
_UPDATED: Final = "/containers/update"
_DELETED: Final = "/containers/delete"
_STARTED: Final = "/tasks/start"
_ENDED: Final = "/tasks/exit"
_IMAGES: Final = ("/images/create", "/images/update", "/images/delete")
_TOPICS: Final = (_CREATED, _UPDATED, _DELETED, _STARTED, _ENDED, *_IMAGES)
_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Made:
    """A container as it was when it was made, and when that was."""

    seen: ContainerObservation
    at: datetime.datetime | None = None


class ContainerdFollower:
    """Follows one containerd. ``checked_every`` is in seconds."""

    def __init__(
        self,
        name: str,
        containerd: Containerd,
        source: ContainerdSource,
        *,
        checked_every: float = CHECKED_EVERY,
    ) -> None:
        self._name = name
        self._containerd = containerd
        self._source = source
        self._checked_every = checked_every
        self._running: dict[_Key, Run] = {}
        self._made: dict[_Key, _Made] = {}
        self._stores: dict[str, NamespaceStore] = {}
        self._boot = _boot()

    @property
    def name(self) -> str:
        return self._name

    def follow(self, position: str, wakeup: Wakeup) -> Iterator[Step]:
        """See :class:`~digestry.inventory.runs.Follower`.

        The position is the time until which all was known: containerd keeps no events.
        """
        try:
            yield from self._follow(_time(position), wakeup)
        finally:
            self._containerd.close()

    def _follow(self, before: datetime.datetime | None, wakeup: Wakeup) -> Iterator[Step]:
        self._made.clear()
        self._stores.clear()
        due = time.monotonic() + self._checked_every

        def wait(descriptor: int) -> bool:
            return wakeup.wait(max(0.0, due - time.monotonic()), descriptor)

        events = self._containerd.events(_TOPICS, wait)
        next(events)  # it is subscribed now, and what happens during the list is not missed
        opened = moment()
        missing = () if before is None else (Unobserved(before, max(before, opened), "it was not followed"),)
        yield Step((*missing, *self._ended_since(before), *self._all()), rfc3339(opened))
        for event in events:
            if isinstance(event, ContainerdEvent):
                changes = tuple(self._take(event))
                if changes:
                    yield Step(changes, rfc3339(of_nanoseconds(event.at)))
                continue
            if event is None and wakeup.take_request():
                yield Step(tuple(self._all()), rfc3339(moment()))
            if time.monotonic() >= due:
                due = time.monotonic() + self._checked_every
                yield Step(tuple(self._compare()), rfc3339(moment()))
            yield Step((), rfc3339(moment()), idle=True)

    # -- events -----------------------------------------------------------------------------------

    def _take(self, event: ContainerdEvent) -> Iterator[RunChange]:
        if not self._source.looks_into(event.namespace):
            return
        if event.topic in _IMAGES:
            self._stores.pop(event.namespace, None)
            return
        key = event.namespace, event.event.text(1)
        if event.topic == _CREATED:
            self._made[key] = self._observe(key)
        elif event.topic in {_UPDATED, _DELETED}:
            self._made.pop(key, None)
        elif event.topic == _STARTED:
            run = self._run(key, event.event.number(2), of_nanoseconds(event.at))
            self._running[key] = run
            yield RunStarted(run)
        elif event.topic == _ENDED and event.event.text(2) == key[1]:  # else a further process has ended
            ended = of_nanoseconds(event.event.nanoseconds(5) or event.at)
            run_before = self._running.pop(key, None)
            instance = run_before.instance if run_before else self._instance(event.event.number(3))
            start = run_before.started_at if run_before else ended
            yield RunStopped("/".join(key), max(ended, start), instance)

    def _observe(self, key: _Key) -> _Made:
        namespace, identity = key
        store = self._stores.get(namespace)
        if store is None:
            store = self._stores[namespace] = NamespaceStore(self._containerd, namespace)
        try:
            record = self._containerd.container(namespace, identity)
        except RemoteNotFound:
            nothing = ImageFacts(None)
            return _Made(
                ContainerObservation(self._name, "", namespace, identity, identity, nothing, moment())
            )
        seen = self._source.container(namespace, record, True, store)
        return _Made(seen, of_nanoseconds(record.created) if record.created else None)

    def _run(self, key: _Key, process: int, started_at: datetime.datetime) -> Run:
        seen = (self._made.get(key) or self._observe(key)).seen
        return Run(
            container="/".join(key),
            instance=self._instance(process),
            started_at=started_at,
            image=seen.image,
            name=seen.name,
            namespace=seen.namespace,
            node=seen.host,
            workload=seen.workload,
        )

    def _instance(self, process: int) -> str:
        return f"{self._boot}/{process}"

    # -- lists ------------------------------------------------------------------------------------

    def _processes(self) -> Iterator[tuple[_Key, Process]]:
        for namespace in self._containerd.namespaces():
            if self._source.looks_into(namespace):
                for process in self._containerd.processes(namespace):
                    yield (namespace, process.container), process

    def _ended_since(self, since: datetime.datetime | None) -> Iterator[RunChange]:
        """Yield the ends, since a time, of the containers whose tasks are still there."""
        if since is None:
            return
        for key, process in self._processes():
            ended = of_nanoseconds(process.ended)
            if process.runs is False and ended >= since:
                self._running.pop(key, None)
                yield RunStopped("/".join(key), ended, self._instance(process.number))

    def _all(self) -> Iterator[RunChange]:
        at = moment()
        runs: dict[_Key, Run] = {}
        for key, process in list(self._processes()):
            if process.runs is False:
                continue
            known = self._running.get(key)
            if known is not None and known.instance == self._instance(process.number):
                runs[key] = known
                continue
            made = self._made[key] = self._observe(key)
            # Without the process, all that is known is that its container was made before.
            began = began_at(key[1], process.number) or made.at or at
            runs[key] = self._run(key, process.number, min(at, began))
        self._running = runs
        yield AllRuns(at, tuple(runs.values()))

    def _compare(self) -> Iterator[RunChange]:
        """Yield all that runs, if the lists have other tasks than the events told."""
        listed = {
            key: self._instance(process.number)
            for key, process in self._processes()
            if process.runs is not False
        }
        if listed != {key: run.instance for key, run in self._running.items()}:
            yield from self._all()


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        return ""


def _time(position: str) -> datetime.datetime | None:
    try:
        return parse_rfc3339(position).first
    except ValueError:
        return None
