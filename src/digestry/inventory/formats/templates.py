"""Kubernetes' objects that pods are made from, beside the pods themselves in one file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Final, TypeAlias

from digestry.model.json_values import JsonObject, as_list, as_object, as_text

Key: TypeAlias = tuple[str, str, str]
"""Namespace, kind and name of an object."""

WORKLOADS: Final = frozenset(
    {"CronJob", "DaemonSet", "Deployment", "DeploymentConfig", "Job", "ReplicaSet", "ReplicationController"}
    | {"Rollout", "StatefulSet"}
)
"""The usual kinds of objects that pods are made from."""

_JOB_OF_CRON: Final = re.compile(r"(.+)-\d+", re.ASCII)
_ENDS: Final = frozenset({"Complete", "Failed"})


@dataclass(frozen=True, slots=True)
class Template:
    """An object with a template of pods. ``idle`` is whether it says that it has none."""

    kind: str
    namespace: str
    name: str
    idle: bool

    @classmethod
    def of(cls, kind: str, value: JsonObject) -> Template:
        """Return the template in ``value``, a decoded object of ``kind``."""
        metadata = as_object(value.get("metadata"))
        return cls(
            kind,
            as_text(metadata.get("namespace")),
            as_text(metadata.get("name")),
            _idle(kind, as_object(value.get("spec")), as_object(value.get("status"))),
        )

    def starts(self, owners: Set[Key]) -> bool:
        """Return whether one of ``owners``, those of the pods that were seen, is this object."""
        return (self.namespace, self.kind, self.name) in owners


def pods_owners(pod: JsonObject) -> Iterator[Key]:
    """Yield the objects that a pod was made from: its owner, and the owner of that one.

    A deployment's replica set is called after it and the hash of its template, a cron job's job after it and
    its time.
    """
    metadata = as_object(pod.get("metadata"))
    namespace = as_text(metadata.get("namespace"))
    hashed = as_text(as_object(metadata.get("labels")).get("pod-template-hash"))
    revision = as_text(as_object(metadata.get("labels")).get("rollouts-pod-template-hash")) or hashed
    for owner in map(as_object, as_list(metadata.get("ownerReferences"))):
        kind, name = as_text(owner.get("kind")), as_text(owner.get("name"))
        yield namespace, kind, name
        if kind == "ReplicaSet" and revision and name.endswith(f"-{revision}"):
            yield namespace, "Deployment", name.removesuffix(f"-{revision}")
            yield namespace, "Rollout", name.removesuffix(f"-{revision}")
        elif kind == "ReplicationController":
            yield namespace, "DeploymentConfig", name.rpartition("-")[0]
        elif kind == "Job" and (match := _JOB_OF_CRON.fullmatch(name)) is not None:
            yield namespace, "CronJob", match[1]


def _idle(kind: str, spec: JsonObject, status: JsonObject) -> bool:
    """Return whether an object says that no pod of it is there to run."""
    if kind == "CronJob":
        return not as_list(status.get("active"))
    if kind == "Job":
        return bool(as_text(status.get("completionTime"))) or any(
            as_text(condition.get("type")) in _ENDS and condition.get("status") == "True"
            for condition in map(as_object, as_list(status.get("conditions")))
        )
    if kind == "DaemonSet":
        return status.get("currentNumberScheduled") == 0
    return spec.get("replicas") == 0 and not status.get("replicas")
