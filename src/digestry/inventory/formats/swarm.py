"""Docker's swarm mode: running tasks, and services.

``docker stack ps``, ``docker service ps`` and ``docker node ps`` list tasks, including those that were shut
down or rejected. ``docker service ls`` and ``docker stack services`` list services, which do not show the
image that their tasks run at this moment: that may be an earlier one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import ClassVar, Final

from digestry.inventory.formats.container_states import State, state_of
from digestry.inventory.formats.declared_images import TEMPLATE, ObjectFormat, declared_image, remarks_on
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.rows import DeferredImage, Fields, Item, begins_with
from digestry.model.json_values import JsonObject, as_object, as_text

_STACK: Final = "com.docker.stack.namespace"
_NO_DIGEST: Final = "the task's image has no digest in it: `docker stack ps --no-trunc` shows it"
_TASKS: Final = (
    "`docker stack ps --no-trunc --format json` has them; `docker inspect $(docker service ps -q NAME)` too"
)
# A swarm task that is ready has yet to be started, and an orphaned one may run on a node that is lost.
_OWN: Final[dict[str, State]] = {"ready": "waits", "remove": "ended", "orphaned": ""}
_REPLICAS: Final = re.compile(r"(\d+)/(\d+)")


def _state(word: str) -> State:
    first = word.partition(" ")[0].lower()
    return _OWN[first] if first in _OWN else state_of(word)


class _Tasks(ObjectFormat):
    usable: ClassVar[str] = "tasks with an image"

    def image(self, typed: str, state: State, reason: str) -> DeferredImage:
        return declared_image(
            self._reading, typed, state=state, remarks=remarks_on(state, reason), unknown=_NO_DIGEST
        )


class SwarmTaskList(_Tasks):
    title: ClassVar[str] = "`docker stack ps --format json`"
    reads: ClassVar[frozenset[str]] = frozenset()

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "CurrentState" in fields and "DesiredState" in fields and "Image" in fields

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        word = as_text(entry.get("CurrentState"))
        state = _state(word)
        if not self.shows(state):
            return ()
        name = as_text(entry.get("Name")).removeprefix("\\_ ").strip()
        image = self.image(as_text(entry.get("Image")), state, word)
        return (
            self.row(
                place, image, host=as_text(entry.get("Node")), name=name, identity=as_text(entry.get("ID"))
            ),
        )


class SwarmTask(_Tasks):
    """``docker inspect`` of a task, and ``GET /tasks`` of docker's API."""

    title: ClassVar[str] = "`docker inspect` of a swarm task"

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "ServiceID" in fields and "DesiredState" in fields and begins_with(fields.get("Spec"), "{")

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        status = as_object(entry.get("Status"))
        word = as_text(status.get("State"))
        state = _state(word)
        if not self.shows(state):
            return ()
        spec = as_object(as_object(entry.get("Spec")).get("ContainerSpec"))
        stack = as_text(as_object(spec.get("Labels")).get(_STACK))
        slot = entry.get("Slot")
        identity = as_text(as_object(status.get("ContainerStatus")).get("ContainerID")) or as_text(
            entry.get("ID")
        )
        name = (
            as_text(entry.get("Name"))
            or f"{as_text(entry.get('ServiceID'))}.{slot or as_text(entry.get('NodeID'))}"
        )
        image = self.image(as_text(spec.get("Image")), state, word)
        return (
            self.row(
                place, image, host=as_text(entry.get("NodeID")), namespace=stack, name=name, identity=identity
            ),
        )


class _Services(ObjectFormat):
    usable: ClassVar[str] = "services with an image"

    def service(
        self,
        place: SourceLocation,
        *,
        stack: str = "",
        name: str,
        identity: str,
        typed: str,
        running: int | None,
    ) -> Iterator[Item]:
        """Yield the template of a service with ``running`` tasks, None if that is not known."""
        if running == 0:
            remark = "a service that is scaled to zero: nothing of it runs"
        else:
            remark = f"a service: {TEMPLATE}; its tasks may run another image"
            if self._reading.first("tasks"):
                yield self._reading.problem(
                    f"it has services with running tasks (such as {name!r}), but not the images of the tasks",
                    _TASKS,
                )
        image = declared_image(self._reading, typed, template=True, remarks=(remark,))
        yield self.row(place, image, namespace=stack, name=name, identity=identity)


class SwarmServiceList(_Services):
    title: ClassVar[str] = "`docker service ls --format json`"
    reads: ClassVar[frozenset[str]] = frozenset()

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "Replicas" in fields and "Mode" in fields and begins_with(fields.get("Image"), '"')

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        match = _REPLICAS.match(as_text(entry.get("Replicas")))
        return self.service(
            place,
            name=as_text(entry.get("Name")),
            identity=as_text(entry.get("ID")),
            typed=as_text(entry.get("Image")),
            running=int(match[1]) if match else None,
        )


class SwarmService(_Services):
    """``docker service inspect``, and ``GET /services`` of docker's API."""

    title: ClassVar[str] = "`docker service inspect`"

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        spec = fields.get("Spec")
        if not begins_with(spec, "{") or "ID" not in fields or spec is None:
            return False
        return b'"TaskTemplate"' in bytes(spec) and b'"Mode"' in bytes(spec)

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        spec = as_object(entry.get("Spec"))
        container = as_object(as_object(spec.get("TaskTemplate")).get("ContainerSpec"))
        running = as_object(entry.get("ServiceStatus")).get("RunningTasks")
        replicated = as_object(as_object(spec.get("Mode")).get("Replicated")).get("Replicas")
        if not isinstance(running, int):
            running = 0 if replicated == 0 else None
        return self.service(
            place,
            stack=as_text(as_object(spec.get("Labels")).get(_STACK)),
            name=as_text(spec.get("Name")),
            identity=as_text(entry.get("ID")),
            typed=as_text(container.get("Image")),
            running=running,
        )
