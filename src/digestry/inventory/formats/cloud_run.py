"""Cloud Run and Knative Serving: running revisions, and the templates of services and jobs.

A revision's ``status.imageDigest`` is the digest of its tag when it was deployed: that runs, even if the tag
has moved since. Seen in gcloud's JSON and YAML, and in ``kubectl get revisions -o json`` of Knative.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar, Final

from digestry.errors import InvalidConfiguration
from digestry.inventory.formats.container_states import State
from digestry.inventory.formats.declared_images import TEMPLATE, ObjectFormat, declared_image, remarks_on
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.rows import Fields, Item
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_list, as_object, as_text

_GROUPS: Final = (b'"serving.knative.dev/', b'"run.googleapis.com/')
_USER_IMAGE: Final = "client.knative.dev/user-image"
_LOCATION: Final = "cloud.googleapis.com/location"
_WHERE: Final = "gcloud run revisions list --format=json has what runs"
_IN_FILE: Final = "it names no digest, and what runs is not known"
_RUN: Final = frozenset({"Revision", "Execution", "Task"})
_V2: Final = re.compile(
    rb'"projects/[^/"]+/locations/[^/"]+/(?:services|jobs|workerPools)/[^/"]+'
    rb'(?:/(?:revisions|executions)/[^/"]+(?:/tasks/[^/"]+)?)?"'
)
_KINDS: Final = {
    "services": "Service", "jobs": "Job", "workerPools": "WorkerPool", "revisions": "Revision",
    "executions": "Execution", "tasks": "Task",
}  # fmt: skip
_STATES: Final = {"CONDITION_SUCCEEDED": "True", "CONDITION_FAILED": "False"}


class CloudRun(ObjectFormat):
    title: ClassVar[str] = "Cloud Run's or Knative's resources (`gcloud run … --format=json`)"
    usable: ClassVar[str] = "revisions, services, jobs or executions"
    whole: ClassVar[bool] = True

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        raw = fields.get("apiVersion")
        if raw is not None:
            return bytes(raw).startswith(_GROUPS) and "metadata" in fields
        name = fields.get("name")
        return name is not None and _V2.fullmatch(bytes(name)) is not None

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterator[Item]:
        if "apiVersion" not in fields:
            entry = _as_v1(entry)
        kind, metadata = as_text(entry.get("kind")), as_object(entry.get("metadata"))
        name, namespace = as_text(metadata.get("name")), as_text(metadata.get("namespace"))
        if not name or not namespace:
            raise InvalidConfiguration(
                f"a {kind or 'resource'} without a name and a namespace is part of one, and is not read",
                hint=_WHERE,
            )
        spec, status = as_object(entry.get("spec")), as_object(entry.get("status"))
        containers = _containers(spec)
        host = as_text(as_object(metadata.get("labels")).get(_LOCATION))
        if not containers:
            raise InvalidConfiguration(f"the {kind} {shown(name)} has no containers in it", hint=_WHERE)
        template = kind not in _RUN
        state: State = "runs"
        if kind == "Revision":
            state, remarks, template = _revision(status)
            if not as_list(status.get("conditions")) and self._reading.first("conditions"):
                yield self._reading.problem(
                    f"the revision {shown(name)} has no conditions in it, which say whether it runs", _WHERE
                )
        elif not template:
            state, remarks = _execution(status)
        else:
            remarks = (f"a {kind}: {TEMPLATE}",)
            if kind == "Service" and self._reading.first("revisions"):
                yield self._reading.problem(
                    f"services are in it ({shown(name)} for one), and not which of their revisions run",
                    _WHERE,
                )
        digests = _digests(status)
        typed = as_text(as_object(metadata.get("annotations")).get(_USER_IMAGE))
        for index, container in enumerate(containers):
            if not self.shows(state):
                continue
            own = as_text(container.get("name"))
            digest = digests.get(own, "") or (
                as_text(status.get("imageDigest")) if len(containers) == 1 else ""
            )
            if not digest and index == 0 and not digests:
                digest = as_text(status.get("imageDigest"))
            image = declared_image(
                self._reading,
                _typed(as_text(container.get("image")), typed, only=len(containers) == 1),
                ("imageDigest", digest),
                state=state,
                remarks=remarks,
                template=template,
                unknown=_IN_FILE,
            )
            label = f"{name}/{own}" if own else name
            yield self.row(
                place,
                image,
                host=host,
                namespace=namespace,
                name=label,
                identity=as_text(metadata.get("uid")),
            )


def _as_v1(entry: JsonObject) -> JsonObject:
    """Return a resource of Cloud Run's API v2 in the shape of v1.

    In v2 the name is a path, a condition's ``state`` is an enum, and a revision's image has the digest.
    """
    parts = as_text(entry.get("name")).split("/")
    conditions = [
        {
            "type": condition.get("type"),
            "status": _STATES.get(as_text(condition.get("state")), "Unknown"),
            "reason": _reason(condition),
        }
        for condition in map(as_object, as_list(entry.get("conditions")))
    ]
    template = as_object(entry.get("template"))
    return {
        "kind": _KINDS[parts[-2]],
        "metadata": {
            "name": parts[-1],
            "namespace": parts[1],
            "uid": entry.get("uid"),
            "labels": {_LOCATION: parts[3]},
        },
        "spec": {
            "containers": entry.get("containers"),
            "template": {"spec": as_object(template.get("template")) or template},
        },
        "status": {
            "conditions": conditions,
            "completionTime": entry.get("completionTime"),
            "runningCount": entry.get("runningCount"),
        },
    }


def _reason(condition: JsonObject) -> str:
    """Return the reason of a condition of v2, which has it under one of several keys, as v1 writes it."""
    for key in ("revisionReason", "executionReason", "reason"):
        if word := as_text(condition.get(key)):
            return word.title().replace("_", "")
    return ""


def _containers(spec: JsonObject) -> list[JsonObject]:
    """Return the containers of a revision, or of the templates in a service, a job or an execution."""
    for _ in range(4):
        found = [as_object(container) for container in as_list(spec.get("containers"))]
        if found:
            return found
        spec = as_object(as_object(spec.get("template")).get("spec")) or as_object(
            as_object(spec.get("jobTemplate")).get("spec")
        )
    return []


def _typed(image: str, annotated: str, *, only: bool) -> str:
    """Return the image's name as it was typed.

    gcloud puts a digest in its place, and keeps the name in an annotation.
    """
    repository, at, digest = image.partition("@")
    if only and at and annotated.startswith(f"{repository}:") and "@" not in annotated:
        return f"{annotated}@{digest}"
    return image


def _digests(status: JsonObject) -> dict[str, str]:
    found = {}
    for key in ("initContainerStatuses", "containerStatuses"):
        for condition in map(as_object, as_list(status.get(key))):
            found[as_text(condition.get("name"))] = as_text(condition.get("imageDigest"))
    return {name: text for name, text in found.items() if text}


def _execution(status: JsonObject) -> tuple[State, tuple[str, ...]]:
    if status.get("completionTime"):
        return "ended", remarks_on("ended", "completed")
    if status.get("runningCount") == 0:
        return "waits", remarks_on("waits", "no task of it runs")
    return "runs", ()


def _revision(status: JsonObject) -> tuple[State, tuple[str, ...], bool]:
    """Return whether a revision runs, the remark on that, and whether it is only a template."""
    conditions = {
        as_text(condition.get("type")): condition
        for condition in map(as_object, as_list(status.get("conditions")))
    }
    active, ready = as_object(conditions.get("Active")), as_object(conditions.get("Ready"))
    reason = as_text(active.get("reason"))
    if as_text(active.get("status")) == "False":
        if reason == "NoTraffic":
            return "runs", ("scaled to zero: nothing of it runs until it is asked",), True
        return "ended", remarks_on("ended", reason or "not active"), False
    reason = as_text(ready.get("reason"))
    if as_text(ready.get("status")) == "False":
        if reason == "Retired":
            return "ended", remarks_on("ended", reason), False
        return "runs", (f"it is not ready ({reason or 'no reason given'}): it may not run",), False
    return "runs", (), False
