"""Nomad: allocations with running tasks, and jobs.

An allocation has the version of its job that it was made from, with each task's image by name:
Nomad keeps no digest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final

from digestry.errors import InvalidConfiguration
from digestry.inventory.formats.container_states import State, state_of
from digestry.inventory.formats.declared_images import TEMPLATE, ObjectFormat, declared_image, remarks_on
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.rows import Fields, Item, begins_with
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_list, as_object, as_text

_ALLOCATIONS: Final = "nomad alloc status -json ID has what runs, with its job"
_NO_DIGEST: Final = "Nomad keeps the image's name, and no digest: what runs is not known"
_OWN: Final[dict[str, State]] = {"complete": "ended", "lost": "", "unknown": ""}


def _tasks(job: JsonObject, group: str) -> Iterator[tuple[JsonObject, JsonObject, str]]:
    """Yield the groups and tasks of a job that have an image; of one group, unless ``group`` is empty."""
    for task_group in map(as_object, as_list(job.get("TaskGroups"))):
        if group and as_text(task_group.get("Name")) != group:
            continue
        for task in map(as_object, as_list(task_group.get("Tasks"))):
            image = as_text(as_object(task.get("Config")).get("image"))
            if image:
                yield task_group, task, image.removeprefix("docker://")


class NomadAllocation(ObjectFormat):
    title: ClassVar[str] = "`nomad alloc status -json`"
    usable: ClassVar[str] = "allocations with their job"
    whole: ClassVar[bool] = True

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "TaskStates" in fields and ("JobID" in fields or "Job" in fields)

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterator[Item]:
        job, name = as_object(entry.get("Job")), as_text(entry.get("Name"))
        if not job:
            raise InvalidConfiguration(
                f"the allocation {shown(name)} is listed without its job, which names the images",
                hint=_ALLOCATIONS,
            )
        states = as_object(entry.get("TaskStates"))
        client = as_text(entry.get("ClientStatus"))
        of_all: State = _OWN[client] if client in _OWN else state_of(client)
        found = False
        for _, task, typed in _tasks(job, as_text(entry.get("TaskGroup"))):
            found = True
            own = as_text(task.get("Name"))
            word = as_text(as_object(states.get(own)).get("State")) or client
            state = state_of(word)
            if of_all == "ended":
                state, word = of_all, client
            elif of_all == "" and state == "runs" and client:
                state, word = "", client
            if not self.shows(state):
                continue
            image = declared_image(
                self._reading, typed, state=state, remarks=remarks_on(state, word), unknown=_NO_DIGEST
            )
            host = as_text(entry.get("NodeName")) or as_text(entry.get("NodeID"))
            yield self.row(
                place,
                image,
                host=host,
                namespace=as_text(entry.get("Namespace")),
                name=f"{name}/{own}",
                identity=as_text(entry.get("ID")),
            )
        if not found:
            raise InvalidConfiguration(
                f"the allocation {shown(name)} has no task with an image", hint=_ALLOCATIONS
            )


class NomadJob(ObjectFormat):
    title: ClassVar[str] = "`nomad job inspect`"
    usable: ClassVar[str] = "jobs with tasks that have an image"
    whole: ClassVar[bool] = True

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        if "TaskGroups" in fields:
            return True
        return begins_with(fields.get("Job"), "{") and b'"TaskGroups"' in bytes(fields["Job"])

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterator[Item]:
        job = entry if "TaskGroups" in entry else as_object(entry.get("Job"))
        name = as_text(job.get("Name")) or as_text(job.get("ID"))
        stopped = job.get("Stop") is True or as_text(job.get("Status")) == "dead"
        found = False
        for group, task, typed in _tasks(job, ""):
            found = True
            idle = stopped or group.get("Count") == 0
            if not idle and self._reading.first("allocations"):
                yield self._reading.problem(f"a job ({shown(name)}): {TEMPLATE}", _ALLOCATIONS)
            remark = "a job that is stopped or scaled to zero" if idle else f"a job: {TEMPLATE}"
            image = declared_image(self._reading, typed, template=True, remarks=(remark,))
            label = f"{name}/{as_text(group.get('Name'))}/{as_text(task.get('Name'))}"
            yield self.row(place, image, namespace=as_text(job.get("Namespace")), name=label)
        if not found:
            raise InvalidConfiguration(f"the job {shown(name)} has no task with an image")
