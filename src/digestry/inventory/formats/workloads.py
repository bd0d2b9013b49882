"""Kubernetes workloads that start pods: deployments, stateful sets, daemon sets, jobs, cron jobs.

Only pods show what runs. But a cron job between two runs, or a deployment that was scaled to zero, has no
pod, and will start the image in its template; and a template may name another image by now than the pods that
were made from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from digestry.inventory.engine_values import reference_of
from digestry.inventory.formats.pods import ENDED
from digestry.inventory.observation import (
    ContainerObservation,
    ImageFacts,
    Unseen,
    now,
    pinned_claim,
)
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_list, as_object, as_text

NOT_NOW: Final = "nothing of it runs now"

_Key: TypeAlias = tuple[str, str, str]
"""Namespace, kind and name."""

_JOB_OF_CRON: Final = re.compile(r"(.+)-\d+", re.ASCII)
_ENDS: Final = frozenset({"Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"})
_COUNTS: Final = {
    "Deployment": "replicas",
    "StatefulSet": "replicas",
    "DaemonSet": "currentNumberScheduled",
    "Job": "active",
}
_TEMPLATES: Final = ("initContainers", "containers")


@dataclass(frozen=True, slots=True)
class _Container:
    name: str
    image: str
    pull: str


@dataclass(frozen=True, slots=True)
class _Workload:
    """One workload. ``running`` is how many pods or jobs its status counts."""

    namespace: str
    kind: str
    name: str
    uid: str
    containers: tuple[_Container, ...]
    owner: str
    running: int
    resting: str
    over: bool

    @property
    def key(self) -> _Key:
        return self.namespace, self.kind, self.name


@dataclass(slots=True)
class Workloads:
    """The workloads of a cluster, and which of them were seen to have pods."""

    source: str
    _known: dict[_Key, _Workload] = field(default_factory=dict)
    _seen: set[_Key] = field(default_factory=set)

    def add(self, kind: str, entry: object) -> Unseen | None:
        """Take one decoded object of ``kind``; return a problem if it is not one."""
        value = as_object(entry)
        metadata, spec = as_object(value.get("metadata")), as_object(value.get("spec"))
        status = as_object(value.get("status"))
        name = as_text(metadata.get("name"))
        if not name:
            return Unseen(self.source, f"the list of {kind}s has an entry without a name: {shown(entry)}")
        template = as_object(as_object(spec.get("jobTemplate")).get("spec")) if kind == "CronJob" else spec
        inner = as_object(as_object(template.get("template")).get("spec"))
        workload = _Workload(
            namespace=as_text(metadata.get("namespace")),
            kind=kind,
            name=name,
            uid=as_text(metadata.get("uid")),
            containers=tuple(
                _Container(
                    as_text(container.get("name")),
                    as_text(container.get("image")),
                    as_text(container.get("imagePullPolicy")),
                )
                for part in _TEMPLATES
                for container in map(as_object, as_list(inner.get(part)))
                if as_text(container.get("image"))
            ),
            owner=_owner(metadata, "CronJob"),
            running=_count(kind, status),
            resting=_resting(kind, spec),
            over=kind == "Job" and _is_over(status),
        )
        self._known[workload.key] = workload
        return None

    def seeing(self, pods: Iterable[object]) -> Iterator[object]:
        """Yield ``pods``, noting the owner of each that has not ended."""
        for entry in pods:
            pod = as_object(entry)
            if as_text(as_object(pod.get("status")).get("phase")) not in ENDED:
                self._seen.update(self._owners(pod))
            yield entry

    def remark(self, pod: JsonObject, container: str, image: str) -> str:
        """Return a remark if a pod's owner names another image for ``container`` by now."""
        workload = next((self._known[key] for key in self._owners(pod)[::-1] if key in self._known), None)
        if workload is None:
            return ""
        for specified in workload.containers:
            if specified.name == container and specified.image != image:
                return (
                    f"{workload.kind.lower()}/{workload.name} names {specified.image} by now: this pod is of "
                    "an older template, or its image was changed when it was created"
                )
        return ""

    def idle(self, *, whole: bool) -> Iterator[ContainerObservation]:
        """Yield the containers of every workload without a pod: templates, which do not run.

        ``whole`` is whether all pods were seen; if not, the workload's own status decides.
        """
        for workload in self._known.values():
            if workload.over or workload.key in self._seen or self._has_owner(workload):
                continue
            if workload.running and not whole:
                continue
            for container in workload.containers:
                yield self._template(workload, container)

    def _has_owner(self, workload: _Workload) -> bool:
        """Return whether this job's cron job is known, which represents it."""
        return bool(workload.owner) and (workload.namespace, "CronJob", workload.owner) in self._known

    def _owners(self, pod: JsonObject) -> list[_Key]:
        """Return the workloads that a pod belongs to, the outermost last."""
        metadata = as_object(pod.get("metadata"))
        namespace = as_text(metadata.get("namespace"))
        labels = as_object(metadata.get("labels"))
        for reference in map(as_object, as_list(metadata.get("ownerReferences"))):
            kind, name = as_text(reference.get("kind")), as_text(reference.get("name"))
            if reference.get("controller") is False or not name:
                continue
            if kind == "ReplicaSet":
                # A deployment's replica set is called after it and the hash of its template.
                revision = f"-{as_text(labels.get('pod-template-hash'))}"
                if len(revision) > 1 and name.endswith(revision):
                    return [(namespace, "Deployment", name.removesuffix(revision))]
            if kind == "Job":
                return [(namespace, "Job", name), *self._cron_job(namespace, name)]
            return [(namespace, kind, name)]
        return []

    def _cron_job(self, namespace: str, job: str) -> list[_Key]:
        known = self._known.get((namespace, "Job", job))
        if known is not None:
            return [(namespace, "CronJob", known.owner)] if known.owner else []
        # Jobs may not be listed, or be gone: a cron job's jobs are called after it and the time.
        match = _JOB_OF_CRON.fullmatch(job)
        key = (namespace, "CronJob", match[1]) if match else None
        return [key] if key is not None and key in self._known else []

    def _template(self, workload: _Workload, container: _Container) -> ContainerObservation:
        pinned = pinned_claim(reference_of(container.image), "the template's image name")
        following = "the next run pulls what the tag points to then"
        if pinned is not None:
            following = "the next run has the digest that it names"
        elif container.pull == "IfNotPresent":
            following += ", or finds an image of that name on its node (imagePullPolicy IfNotPresent)"
        elif container.pull == "Never":
            following = "the next run takes what its node has under that name (imagePullPolicy Never)"
        why = NOT_NOW if not workload.resting else f"{NOT_NOW} ({workload.resting})"
        if workload.running:
            why = f"no pod of it was seen, though its status counts {workload.running}"
        return ContainerObservation(
            source=self.source,
            host="",
            namespace=workload.namespace,
            name=f"{workload.kind.lower()}/{workload.name}/{container.name}",
            id=f"{workload.uid}/{container.name}",
            image=ImageFacts(
                container.image, () if pinned is None else (pinned,), registry_named=container.pull != "Never"
            ),
            seen_at=now(),
            remarks=(f"{why}; {following}",),
            runs=False,
        )


def _owner(metadata: JsonObject, kind: str) -> str:
    for reference in map(as_object, as_list(metadata.get("ownerReferences"))):
        if as_text(reference.get("kind")) == kind:
            return as_text(reference.get("name"))
    return ""


def _count(kind: str, status: JsonObject) -> int:
    if kind == "CronJob":
        return len(as_list(status.get("active")))
    count = status.get(_COUNTS[kind])
    return count if isinstance(count, int) and count > 0 else 0


def _resting(kind: str, spec: JsonObject) -> str:
    """Return the reason why a workload has no pods on purpose; "" if there is none."""
    if spec.get("suspend") is True:
        return "it is suspended"
    if kind == "CronJob" and as_text(spec.get("schedule")):
        return f"its schedule is {shown(as_text(spec.get('schedule')))}"
    replicas = spec.get("replicas")
    return "it is scaled to zero" if replicas == 0 and isinstance(replicas, int) else ""


def _is_over(status: JsonObject) -> bool:
    return bool(as_text(status.get("completionTime"))) or any(
        condition.get("type") in _ENDS and condition.get("status") == "True"
        for condition in map(as_object, as_list(status.get("conditions")))
        if isinstance(condition.get("type"), str)
    )
