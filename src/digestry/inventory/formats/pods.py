"""Pods of the Kubernetes API (core/v1): their containers, as the kubelets report them.

Pods are read, and never the templates that they were made from: sidecars are injected later, and a
template may have changed since. Nothing here asks anybody: the objects may come from an API server
or from a file that ``kubectl get pods -A -o json`` wrote.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeAlias

import msgspec

from digestry.inventory.engine_values import FIRST_START, platform_of, time_of
from digestry.inventory.formats.pod_images import PodImage, PodImages
from digestry.inventory.formats.pod_owners import workload_of
from digestry.inventory.observation import ContainerObservation, Observation, Unseen, now
from digestry.inventory.waiting_reasons import Waiting, waits_for
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_list, as_object, as_text
from digestry.model.platform import Platform

PodRemark: TypeAlias = Callable[[JsonObject, str, str], str]
"""A source of remarks about a pod's container: called with pod, container's name and its image as typed;
returns "" for none."""

LeftOut: TypeAlias = Callable[[int], None]
"""Called with the number of containers that ended and have no row."""

ENDED: Final = frozenset({"Succeeded", "Failed"})
"""The phases of a pod in which nothing of it runs or will run."""

_NO_NODES: Final[Mapping[str, Platform]] = MappingProxyType({})
_STATUSES: Final = (
    ("initContainers", "initContainerStatuses"),
    ("containers", "containerStatuses"),
    ("ephemeralContainers", "ephemeralContainerStatuses"),
)
_ARCHITECTURE: Final = "kubernetes.io/arch"
_SYSTEM: Final = "kubernetes.io/os"
_DEFAULT_SYSTEM: Final = "linux"
_BUILD: Final = "node.kubernetes.io/windows-build"
_WINDOWS: Final = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}(?:\.[0-9]{1,9})?", re.ASCII)


def observe_pods(
    pods: Iterable[object],
    *,
    source: str,
    nodes: Mapping[str, Platform] = _NO_NODES,
    nodes_unknown: str = "",
    include_stopped: bool = False,
    remark: PodRemark | None = None,
    left_out: LeftOut | None = None,
) -> Iterator[Observation]:
    """Yield each container of ``pods``, decoded objects of any quality, as one observation.

    A container that waits has a row with that state; one that ended has one if ``include_stopped``. An image
    volume is a row of its own. ``nodes`` are the platforms of nodes, by name; ``nodes_unknown`` is why there
    are none. ``left_out`` is called for those without a row. Raises nothing: an entry that is not a pod is a
    problem.
    """
    options = _Options(source, nodes, nodes_unknown, include_stopped, remark, left_out)
    seen_at = now()
    for position, entry in enumerate(pods):
        pod = as_object(entry)
        metadata = as_object(pod.get("metadata"))
        if not as_text(metadata.get("name")):
            yield Unseen(source, f"entry {position + 1} of the list is not a pod with a name: {shown(entry)}")
            continue
        moment = now()
        if moment != seen_at:
            seen_at = moment  # one object for all of one second
        yield from _Pod(pod, options, seen_at).observe()


def platforms_of_nodes(nodes: Iterable[object]) -> dict[str, Platform]:
    """Return the platform of each of ``nodes``, decoded objects (``status.nodeInfo``), by the node's name."""
    found: dict[str, Platform] = {}
    known: dict[Platform, Platform] = {}
    for entry in nodes:
        node = as_object(entry)
        name = as_text(as_object(node.get("metadata")).get("name"))
        info = as_object(as_object(node.get("status")).get("nodeInfo"))
        platform = platform_of(info.get("architecture"), info.get("operatingSystem"))
        if platform is not None and platform.os == "windows":
            platform = msgspec.structs.replace(platform, os_version=_windows_build(node))
        if name and platform is not None:
            found[name] = known.setdefault(platform, platform)
    return found


def _windows_build(node: JsonObject) -> str | None:
    """Return a node's build of Windows, ``10.0.20348.2113``; None if it gives none, or two."""
    labels = as_object(as_object(node.get("metadata")).get("labels"))
    info = as_object(as_object(node.get("status")).get("nodeInfo"))
    values = [as_text(info.get("kernelVersion")), as_text(labels.get(_BUILD))]
    builds = [build for build in values if _WINDOWS.fullmatch(build)]
    if len({tuple(build.split(".")[:3]) for build in builds}) != 1:
        return None
    return builds[0]


@dataclass(frozen=True, slots=True)
class _Options:
    """The options of :func:`observe_pods`."""

    source: str
    nodes: Mapping[str, Platform]
    nodes_unknown: str
    include_stopped: bool
    remark: PodRemark | None
    left_out: LeftOut | None = None
    images: PodImages = field(default_factory=PodImages)


@dataclass(frozen=True, slots=True)
class _State:
    """Whether a container runs, and if not, why: ``why`` is for a person, ``waiting`` is the kind of its
    reason to wait."""

    runs: bool
    ended: bool
    why: str = ""
    waiting: Waiting = ""


_RUNS: Final = _State(runs=True, ended=False)
_Times: TypeAlias = tuple[datetime.datetime | None, datetime.datetime | None]


class _Pod:
    """One pod, with the fields that its containers share."""

    def __init__(self, pod: JsonObject, options: _Options, seen_at: datetime.datetime) -> None:
        self._pod = pod
        self._options = options
        self._metadata = as_object(pod.get("metadata"))
        self._spec = as_object(pod.get("spec"))
        self._status = as_object(pod.get("status"))
        self._name = as_text(self._metadata.get("name"))
        self._namespace = options.images.text(as_text(self._metadata.get("namespace")))
        self._host = options.images.text(as_text(self._spec.get("nodeName")))
        self._seen_at = seen_at
        self._workload = options.images.text(workload_of(self._metadata))
        self._runs = False
        self._runtime = ""
        self._platform = options.nodes.get(self._host) or self._required_platform()
        self._remarks: list[str] = []
        if self._host and self._platform is None and options.nodes_unknown:
            self._remarks.append(f"its node's platform is not known: {options.nodes_unknown}")
        if (
            as_text(self._status.get("reason")) == "NodeLost"
            or as_text(self._status.get("phase")) == "Unknown"
        ):
            self._remarks.append("its node does not report: this is the last that was heard of it")

    def observe(self) -> Iterator[Observation]:
        ended = as_text(self._status.get("phase")) in ENDED
        if ended and not self._options.include_stopped and not self._still_runs():
            self._leave_out(sum(len(as_list(self._spec.get(key))) for key, _ in _STATUSES) or 1)
            return
        empty = True
        statuses: list[JsonObject] = []
        for specified, reported in _STATUSES:
            specs = {
                as_text(container.get("name")): container
                for container in map(as_object, as_list(self._spec.get(specified)))
                if container
            }
            seen: dict[str, JsonObject] = {}
            for status in map(as_object, as_list(self._status.get(reported))):
                name = as_text(status.get("name"))
                if not name:
                    yield self._problem(f"{reported} has an entry without a name")
                    continue
                if name in seen:
                    if status != seen[name]:
                        yield self._problem(f"{reported} has {shown(name)} twice, and does not say the same")
                    continue
                seen[name] = status
                statuses.append(status)
                empty = False
                yield from self._container(name, specs.get(name, {}), status)
            if not ended:
                for name, spec in specs.items():
                    if name and name not in seen:
                        empty = False
                        yield self._observation(name, spec, {}, self._not_started())
        if self._runs:
            yield from self._volumes(statuses)
        if empty:
            yield self._problem("it has no containers in it, as if it had been cut off")

    def _still_runs(self) -> bool:
        """Return whether a container of an ended pod is reported as running: a kubelet may report a pod's end
        before that of its containers."""
        phase = as_text(self._status.get("phase"))
        runs = any(
            _state(status).runs
            for _, reported in _STATUSES
            for status in map(as_object, as_list(self._status.get(reported)))
        )
        if runs:
            self._remarks.append(f"its pod is {phase}, although its status says that the container runs")
        return runs

    def _leave_out(self, count: int) -> None:
        if self._options.left_out is not None:
            self._options.left_out(count)

    # -- containers ---------------------------------------------------------------------------

    def _container(self, name: str, spec: JsonObject, status: JsonObject) -> Iterator[Observation]:
        state = _state(status)
        self._runs = self._runs or state.runs
        if state.ended and not self._options.include_stopped:
            self._leave_out(1)
            return
        yield self._observation(name, spec, status, state)

    def _observation(
        self, name: str, spec: JsonObject, status: JsonObject, state: _State
    ) -> ContainerObservation:
        remarks = list(self._remarks)
        runtime, _, identity = as_text(status.get("containerID")).partition("://")
        if state.runs and runtime:
            self._runtime = runtime
        typed = as_text(spec.get("image"))
        reference = typed or self._fallback(as_text(status.get("image")), remarks)
        image_id = as_text(status.get("imageID"))
        was_started = state.runs or state.ended
        if state.why:
            remarks.append(state.why)
        if image_id and not was_started:
            remarks.append(f"its imageID may be an earlier run's, and was not believed: {shown(image_id)}")
        if self._options.remark is not None and typed:
            remarks.append(self._options.remark(self._pod, name, typed))
        image = self._options.images.container(
            reference, image_id if was_started else None, runtime, self._platform
        )
        times = _times(status)
        return self._row(f"{self._name}/{name}", identity, image, remarks, state.waiting, times=times)

    def _fallback(self, image: str, remarks: list[str]) -> str | None:
        if image and not image.startswith("sha256:"):
            remarks.append("the image's name is the kubelet's, who may know the image by several")
            return image
        remarks.append("the pod does not say which image name this container was started from")
        return None

    def _not_started(self) -> _State:
        phase = as_text(self._status.get("phase")) or "of no known phase"
        reason = as_text(self._status.get("reason"))
        if not reason:
            # Conditions have the reason for the wait: PodScheduled=False with reason Unschedulable.
            unmet = (
                as_text(condition.get("reason"))
                for condition in map(as_object, as_list(self._status.get("conditions")))
                if condition.get("status") == "False" and condition.get("type") == "PodScheduled"
            )
            reason = next((text for text in unmet if text), "")
        note = f"the pod is {phase}" + (f", {reason}" if reason else "")
        waiting: Waiting = "other" if reason else "starting"
        if reason == "Unschedulable":
            waiting = "unscheduled"
        return _State(runs=False, ended=False, why=f"it has not been started: {note}", waiting=waiting)

    # -- image volumes (KEP-4639) -------------------------------------------------------------

    def _volumes(self, statuses: list[JsonObject]) -> Iterator[Observation]:
        """Yield an observation for each image that is mounted as a volume."""
        given: dict[str, str] = {}
        for status in statuses:
            for mount in map(as_object, as_list(status.get("volumeMounts"))):
                image = as_object(as_object(mount.get("volumeStatus")).get("image"))
                image_ref = as_text(image.get("imageRef"))
                if image_ref:
                    given.setdefault(as_text(mount.get("name")), image_ref)
        for volume in map(as_object, as_list(self._spec.get("volumes"))):
            source, name = as_object(volume.get("image")), as_text(volume.get("name"))
            if not source or not name:
                continue
            yield self._row(
                f"{self._name}/volume:{name}",
                f"{as_text(self._metadata.get('uid'))}/{name}",
                self._options.images.volume(
                    as_text(source.get("reference")) or None,
                    given.get(name, ""),
                    self._runtime,
                    self._platform,
                ),
                [*self._remarks, "an image volume: its files are mounted, nothing of it is started"],
            )

    # -- both ---------------------------------------------------------------------------------

    def _row(
        self,
        name: str,
        identity: str,
        image: PodImage,
        remarks: list[str],
        waiting: Waiting = "",
        *,
        times: _Times = (None, None),
    ) -> ContainerObservation:
        if image.local:
            where = self._host or "its node"
            remarks.append(f"{image.local} is a registry on {where} itself; the one here was asked")
        return ContainerObservation(
            source=self._options.source,
            host=self._host,
            namespace=self._namespace,
            name=name,
            id=identity,
            image=image.facts,
            seen_at=self._seen_at,
            remarks=self._options.images.remarks(*remarks, *image.remarks),
            waiting=waiting,
            workload=self._workload,
            started_at=times[0],
            ended_at=times[1],
            instance=FIRST_START if identity and times[0] is not None else "",
        )

    def _required_platform(self) -> Platform | None:
        """Return the platform that the pod requires of its node."""
        selector = as_object(self._spec.get("nodeSelector"))
        system = as_text(selector.get(_SYSTEM)) or as_text(as_object(self._spec.get("os")).get("name"))
        return self._options.images.platform(as_text(selector.get(_ARCHITECTURE)), system or _DEFAULT_SYSTEM)

    def _problem(self, message: str) -> Unseen:
        where = "/".join(part for part in (self._namespace, self._name) if part)
        return Unseen(self._options.source, f"pod {where}: {message}")


def _times(status: JsonObject) -> _Times:
    """Return when a container started, and when it ended, each None if its status does not say."""
    state = as_object(status.get("state"))
    ended = as_object(state.get("terminated"))
    return (
        time_of(ended.get("startedAt") or as_object(state.get("running")).get("startedAt")),
        time_of(ended.get("finishedAt")),
    )


def _state(status: JsonObject) -> _State:
    state = as_object(status.get("state"))
    if isinstance(state.get("running"), dict):
        return _RUNS
    if isinstance(state.get("terminated"), dict):
        ended = as_object(state.get("terminated"))
        reason = as_text(ended.get("reason")) or "no reason given"
        return _State(runs=False, ended=True, why=f"it ended ({reason}), and does not run")
    waiting = as_object(state.get("waiting"))
    reason = as_text(waiting.get("reason")) or "no reason given"
    message = as_text(waiting.get("message"))
    why = f"it does not run, it waits: {reason}" + (f" ({shown(message)})" if message else "")
    return _State(runs=False, ended=False, why=why, waiting=waits_for(reason, message))
