"""AWS Batch: jobs, which run containers on ECS, Fargate or EKS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final

from digestry.inventory.formats.container_states import State
from digestry.inventory.formats.declared_images import ObjectFormat, declared_image, state_and_remarks
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.rows import Fields, Item, begins_with
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_list, as_object, as_text

_JOB: Final = frozenset({"jobId", "jobName", "status"})
_INSTEAD: Final = "`aws ecs describe-tasks`, or `kubectl get pods -o json`, has the containers of its nodes"


class BatchJob(ObjectFormat):
    """A job, or the whole answer of ``aws batch describe-jobs``. A job has the image's name alone."""

    title: ClassVar[str] = "`aws batch describe-jobs`"
    usable: ClassVar[str] = "jobs with an image"
    whole: ClassVar[bool] = True

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        if begins_with(fields.get("jobs"), "["):
            return b'"jobId"' in bytes(fields["jobs"])
        return fields.keys() >= _JOB

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterator[Item]:
        for job in map(as_object, as_list(entry["jobs"])) if "jobs" in entry else (entry,):
            yield from self._job(job, place)

    def _job(self, entry: JsonObject, place: SourceLocation) -> Iterator[Item]:
        name, identity = as_text(entry.get("jobName")), as_text(entry.get("jobId"))
        state, remarks = _state(as_text(entry.get("status")))
        containers = list(_containers(entry))
        if not containers:
            yield self._reading.problem(f"the job {shown(name or identity)} names no image", _INSTEAD)
            return
        if not self.shows(state, len(containers)):
            return
        for container in containers:
            own = as_text(container.get("name"))
            yield self.row(
                place,
                declared_image(self._reading, as_text(container.get("image")), state=state, remarks=remarks),
                name=f"{name or identity}/{own}" if own else name or identity,
                identity=identity,
            )


def _state(word: str) -> tuple[State, tuple[str, ...]]:
    # A job that is submitted or may be started waits.
    return state_and_remarks("PENDING" if word in {"SUBMITTED", "RUNNABLE"} else word)


def _containers(job: JsonObject) -> Iterator[JsonObject]:
    """Yield the containers of a job that name an image."""
    found = [as_object(job.get("container"))]
    for task in as_list(as_object(job.get("ecsProperties")).get("taskProperties")):
        found += map(as_object, as_list(as_object(task).get("containers")))
    pod = as_object(as_object(job.get("eksProperties")).get("podProperties"))
    found += map(as_object, as_list(pod.get("containers")))
    yield from (container for container in found if as_text(container.get("image")))
