"""The follower of a cluster: a watch of its pods.

A pod's status has the times of its containers' starts and ends by the kubelet, to the second, of the present
run of each and of the one before it: a container that started and ended between two changes is not missed. A
pod that was deleted takes what its status did not say yet with it.
"""

from __future__ import annotations

import datetime
import math
import os
import time
from collections.abc import Iterator, Mapping
from typing import Final

from digestry.errors import DigestryError, InvalidConfiguration, Refused
from digestry.inventory.engine_values import FIRST_START, time_of
from digestry.inventory.engines.client import TIMEOUT
from digestry.inventory.formats.pods import observe_pods, platforms_of_nodes
from digestry.inventory.kube.api import GONE, KubeAPI
from digestry.inventory.kube.config import find_access
from digestry.inventory.kube.credentials import Credentials
from digestry.inventory.kube.watch import Change
from digestry.inventory.observation import ContainerObservation
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
)
from digestry.inventory.sources.kubernetes import Where, pods_path, query_of
from digestry.model.json_values import JsonObject, as_list, as_object, as_text
from digestry.model.platform import Platform
from digestry.model.timestamps import parse_rfc3339, rfc3339

_WATCHED_FOR: Final = 10
"""Seconds of one watch: so soon the follower ends when it is told to."""

_FOR_EVER: Final = 1e9
_PAUSE: Final = 1.0
_NODES_EVERY: Final = 60.0
_STATUSES: Final = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
_Key = tuple[str, str]


class KubernetesFollower:
    """Follows the pods of a cluster, or of one namespace of it.

    ``timeout`` is in seconds, for each answer. Raises :class:`InvalidConfiguration` for several namespaces.
    """

    def __init__(
        self,
        name: str,
        where: Where,
        *,
        timeout: float = TIMEOUT,
        environment: Mapping[str, str] = os.environ,
        watched_for: float = _WATCHED_FOR,
    ) -> None:
        if len(where.namespaces) > 1:
            raise InvalidConfiguration(
                f"{name}: one watch is of one namespace, or of all",
                hint="name each namespace with a --source of its own",
            )
        self._name = name
        self._where = where
        self._timeout = timeout
        self._environment = environment
        self._watched_for = watched_for
        self._running: dict[_Key, dict[str, Run]] = {}
        self._nodes: dict[str, Platform] = {}
        self._nodes_at = -_NODES_EVERY
        self._known = moment()

    @property
    def name(self) -> str:
        return self._name

    def follow(self, position: str, wakeup: Wakeup) -> Iterator[Step]:
        """See :class:`~digestry.inventory.runs.Follower`.

        The position is the time until which all was known: a cluster does not tell what was before.
        """
        access = find_access(self._where.context, environment=self._environment)
        credentials = Credentials(access.user, access.cluster, environment=self._environment)
        api = KubeAPI(access, credentials, timeout=self._timeout, deadline=_FOR_EVER)
        api.prepare()
        try:
            yield from self._follow(api, position, wakeup)
        finally:
            api.close()

    def _follow(self, api: KubeAPI, position: str, wakeup: Wakeup) -> Iterator[Step]:
        path, query = pods_path(next(iter(self._where.namespaces), "")), query_of(self._where)
        before = _time(position)
        self._known = min(self._known, before or self._known)
        while True:
            at = moment()
            pods, version = api.whole(path, "list pods", **query)
            missing = () if before is None else (Unobserved(before, at, "the cluster was not watched"),)
            yield Step((*missing, *self._list(api, pods, at)), rfc3339(at))
            before = None
            while not wakeup.take_request():
                yield Step((), rfc3339(self._known), idle=True)
                began = time.monotonic()
                try:
                    for change in api.watch(
                        path,
                        "watch pods",
                        kind="Pod",
                        version=version,
                        seconds=math.ceil(self._watched_for),
                        **query,
                    ):
                        version = change.version
                        changes = tuple(self._take(api, change))
                        self._known = moment()
                        if changes:
                            yield Step(changes, rfc3339(self._known))
                            yield Step((), rfc3339(self._known), idle=True)
                        wakeup.wait(0)
                except Refused as error:
                    if error.status != GONE:
                        raise
                    before = self._known  # what happened since is too old for the server's memory
                    break
                self._known = moment()
                # A server that ends each watch at once is not asked without a pause.
                wakeup.wait(max(0.0, min(_PAUSE, self._watched_for) - (time.monotonic() - began)))

    # -- pods -------------------------------------------------------------------------------------

    def _list(self, api: KubeAPI, pods: list[object], at: datetime.datetime) -> Iterator[RunChange]:
        """Yield what the pods' statuses tell beside what runs, and then all that runs."""
        known, self._running = self._running, {}
        for pod in map(as_object, pods):
            key = _key(pod)
            running = self._running[key] = known.get(key, {})
            for change in tuple(self._changes(api, pod, key)):
                if not (isinstance(change, RunStarted) and change.run.container in running):
                    yield change
        self._known = at
        yield AllRuns(at, tuple(run for runs in self._running.values() for run in runs.values()))

    def _take(self, api: KubeAPI, change: Change) -> Iterator[RunChange]:
        if change.kind == "mark":
            return
        key = _key(change.object)
        yield from self._changes(api, change.object, key)
        if change.kind == "gone":
            now = moment()
            for container, run in self._running.pop(key, {}).items():
                yield RunStopped(container, now, run.instance, after=min(self._known, now))

    def _changes(self, api: KubeAPI, pod: JsonObject, key: _Key) -> Iterator[RunChange]:
        """Yield the starts and ends of one pod's containers that are new in its status."""
        running = self._running.setdefault(key, {})
        self._refresh_nodes(api, as_text(as_object(pod.get("spec")).get("nodeName")))
        present = set()
        for seen in observe_pods([pod], source=self._name, nodes=self._nodes, include_stopped=True):
            if not isinstance(seen, ContainerObservation) or seen.started_at is None or not seen.id:
                continue
            run = _run(seen, seen.id, seen.started_at)
            yield from self._before(pod, seen, running)
            if seen.ended_at is None:
                present.add(seen.id)
                if seen.id not in running:
                    running[seen.id] = run
                    yield RunStarted(run)
            elif seen.id in running or seen.ended_at > self._known:
                if running.pop(seen.id, None) is None:
                    yield RunStarted(run)
                yield RunStopped(seen.id, max(seen.ended_at, seen.started_at), run.instance)
        now = moment()
        for container in [container for container in running if container not in present]:
            ended = running.pop(container)
            yield RunStopped(container, now, ended.instance, after=min(self._known, now))

    def _before(
        self, pod: JsonObject, seen: ContainerObservation, running: dict[str, Run]
    ) -> Iterator[RunChange]:
        """Yield the end, and perhaps the start, of the run before the one that was seen."""
        ended = as_object(as_object(_status_of(pod, seen).get("lastState")).get("terminated"))
        container = as_text(ended.get("containerID")).partition("://")[2]
        started_at, ended_at = time_of(ended.get("startedAt")), time_of(ended.get("finishedAt"))
        if not container or started_at is None or ended_at is None:
            return
        if container not in running and ended_at <= self._known:
            return
        if running.pop(container, None) is None:
            yield RunStarted(_run(seen, container, started_at))
        yield RunStopped(container, max(ended_at, started_at), FIRST_START)

    def _refresh_nodes(self, api: KubeAPI, node: str) -> None:
        """Learn the platforms of the nodes, if that of ``node`` is not known; without the right to, it is
        not."""
        if not node or node in self._nodes or time.monotonic() - self._nodes_at < _NODES_EVERY:
            return
        self._nodes_at = time.monotonic()
        try:
            for page in api.pages("/api/v1/nodes", "list nodes"):
                self._nodes |= platforms_of_nodes(page)
        except DigestryError:
            return  # it may lack the right to; if the server is gone, the pods tell


def _run(seen: ContainerObservation, container: str, started_at: datetime.datetime) -> Run:
    return Run(
        container=container,
        instance=FIRST_START,
        started_at=started_at,
        image=seen.image,
        name=seen.name,
        namespace=seen.namespace,
        node=seen.host,
        workload=seen.workload,
    )


def _status_of(pod: JsonObject, seen: ContainerObservation) -> JsonObject:
    """Return the status of the container that was seen in a pod."""
    status = as_object(pod.get("status"))
    for kind in _STATUSES:
        for found in map(as_object, as_list(status.get(kind))):
            if as_text(found.get("containerID")).partition("://")[2] == seen.id:
                return found
    return {}


def _key(pod: JsonObject) -> _Key:
    metadata = as_object(pod.get("metadata"))
    return as_text(metadata.get("namespace")), as_text(metadata.get("uid")) or as_text(metadata.get("name"))


def _time(position: str) -> datetime.datetime | None:
    try:
        return parse_rfc3339(position).first
    except ValueError:
        return None
