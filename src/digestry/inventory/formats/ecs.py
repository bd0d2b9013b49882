"""Amazon ECS: running tasks, and task definitions and services.

``aws ecs describe-tasks`` says of a container its ``image`` and, of agents since 1.70 and of Fargate,
its ``imageDigest``. Tasks that stopped stay in the list for an hour or more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Final

from digestry.errors import InvalidConfiguration
from digestry.inventory.engine_values import platform_of
from digestry.inventory.formats.declared_images import (
    TEMPLATE,
    ObjectFormat,
    declared_image,
    state_and_remarks,
)
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.rows import Fields, Item, begins_with
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_list, as_object, as_text
from digestry.model.platform import Platform

_TASKS: Final = "aws ecs describe-tasks --cluster NAME --tasks $(aws ecs list-tasks …) has what runs"
_NO_DIGEST: Final = "ECS gives no imageDigest for it (agents before 1.70 do not): what runs is not known"


class EcsTask(ObjectFormat):
    """A task, or the whole answer of ``describe-tasks``."""

    title: ClassVar[str] = "`aws ecs describe-tasks`"
    usable: ClassVar[str] = "tasks with containers"
    whole: ClassVar[bool] = True

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        if begins_with(fields.get("tasks"), "["):
            return True
        return "taskArn" in fields and "containers" in fields and "taskDefinitionArn" in fields

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterator[Item]:
        if "tasks" not in entry:
            yield from self._task(entry, place)
            return
        tasks = [as_object(task) for task in as_list(entry["tasks"])]
        if not tasks and not as_list(entry.get("failures")) and "failures" in entry:
            self._reading.answered = True
        for task in tasks:
            yield from self._task(task, place)
        for failure in map(as_object, as_list(entry.get("failures"))):
            which, why = shown(as_text(failure.get("arn"))), as_text(failure.get("reason"))
            yield self._reading.problem(f"ECS could not describe {which}: {why}")

    def _task(self, task: JsonObject, place: SourceLocation) -> Iterator[Item]:
        arn = as_text(task.get("taskArn"))
        containers = [as_object(container) for container in as_list(task.get("containers"))]
        if not containers:
            name = shown(arn.rpartition("/")[2]) if arn else "without an ARN"
            yield self._reading.problem(f"the task {name} has no containers in it")
        status = as_text(task.get("lastStatus"))
        cluster = as_text(task.get("clusterArn")).rpartition("/")[2]
        host = as_text(task.get("containerInstanceArn")).rpartition("/")[2]
        if not host and as_text(task.get("launchType")) == "FARGATE":
            host = "fargate"
        for container in containers:
            # A stopped task has no running container, whatever state it last reported.
            of_task, _ = state_and_remarks(status)
            word = status if of_task == "ended" else as_text(container.get("lastStatus")) or status
            state, remarks = state_and_remarks(word)
            if not self.shows(state):
                continue
            image = declared_image(
                self._reading,
                as_text(container.get("image")),
                ("imageDigest", as_text(container.get("imageDigest"))),
                state=state,
                remarks=remarks,
                platform=_platform(task),
                unknown=_NO_DIGEST,
            )
            name = "/".join(filter(None, (arn.rpartition("/")[2], as_text(container.get("name")))))
            identity = as_text(container.get("runtimeId")) or as_text(container.get("containerArn"))
            yield self.row(place, image, host=host, namespace=cluster, name=name, identity=identity)


def _platform(task: JsonObject) -> Platform | None:
    attributes = {
        as_text(attribute.get("name")): attribute.get("value")
        for attribute in map(as_object, as_list(task.get("attributes")))
    }
    family = as_text(task.get("platformFamily")).lower()
    system = "windows" if family.startswith("windows") else "linux"
    return platform_of(attributes.get("ecs.cpu-architecture"), system)


class EcsContainer(ObjectFormat):
    """A container of a task alone, as jq picks it out."""

    title: ClassVar[str] = "a container of `aws ecs describe-tasks`"
    reads: ClassVar[frozenset[str]] = frozenset({"imageDigest"})
    usable: ClassVar[str] = "containers with an image"

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "lastStatus" in fields and "containerArn" in fields and "image" in fields

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        task = {"containers": [entry], "taskArn": entry.get("taskArn"), "lastStatus": entry.get("lastStatus")}
        return EcsTask._task(EcsTask(self._reading), task, place)


class EcsTaskDefinition(ObjectFormat):
    title: ClassVar[str] = "`aws ecs describe-task-definition`"
    usable: ClassVar[str] = "containerDefinitions"
    whole: ClassVar[bool] = True

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return begins_with(fields.get("taskDefinition"), "{") or "containerDefinitions" in fields

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterator[Item]:
        definition = as_object(entry.get("taskDefinition")) or entry
        family = f"{as_text(definition.get('family'))}:{definition.get('revision', '')}"
        if self._reading.first("tasks"):
            yield self._reading.problem(f"a task definition ({family}): {TEMPLATE}", _TASKS)
        for container in map(as_object, as_list(definition.get("containerDefinitions"))):
            image = declared_image(
                self._reading,
                as_text(container.get("image")),
                template=True,
                remarks=(f"of the task definition {family}: {TEMPLATE}",),
            )
            name = f"{family}/{as_text(container.get('name'))}"
            yield self.row(place, image, name=name, identity=as_text(definition.get("taskDefinitionArn")))


class EcsService(ObjectFormat):
    """A service, or the whole answer of ``describe-services``: it names no image."""

    title: ClassVar[str] = "`aws ecs describe-services`"
    usable: ClassVar[str] = "tasks: what `aws ecs describe-tasks` prints"
    whole: ClassVar[bool] = True

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        if begins_with(fields.get("services"), "[") and "failures" in fields:
            return True
        return "serviceArn" in fields and "taskDefinition" in fields

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        raise InvalidConfiguration(
            "a service of ECS names a task definition, and no image that runs", hint=_TASKS
        )
