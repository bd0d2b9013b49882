"""Parts of pods as people extract them with jq: statuses, and container specifications."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Final

from digestry.inventory.formats.declared_images import TEMPLATE, ObjectFormat, declared_image
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.pods import observe_pods
from digestry.inventory.formats.rows import Fields, Item, RowImage, begins_with
from digestry.inventory.observation import ContainerObservation, Unseen
from digestry.model.json_values import JsonObject, as_object, as_text

_NAMELESS: Final = "a pod"
_PODS: Final = "kubectl get pods -A -o json has what runs"
_REPORTED: Final = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")


class _Statuses(ObjectFormat):
    def of_status(self, status: JsonObject, place: SourceLocation, *, alone: bool = False) -> Iterator[Item]:
        """Yield the containers of a pod from its ``status`` alone."""
        pod = {"metadata": {"name": _NAMELESS}, "spec": {}, "status": status}
        ended = 0

        def left_out(count: int) -> None:
            nonlocal ended
            ended += count

        for seen in observe_pods(
            [pod],
            source=self._reading.source,
            include_stopped=self._reading.include_stopped,
            left_out=left_out,
        ):
            if isinstance(seen, ContainerObservation):
                name = seen.name.removeprefix(f"{_NAMELESS}/")
                host = "" if alone else as_text(status.get("hostIP"))
                yield self.row(
                    place,
                    RowImage(seen.image, seen.remarks, waiting=seen.waiting),
                    host=host,
                    name=name,
                    identity=seen.id,
                )
            elif isinstance(seen, Unseen):
                yield self._reading.problem(seen.message)
        self._reading.stopped += ended


class PodStatus(_Statuses):
    """``kubectl get pods -o json | jq '.items[].status'``."""

    title: ClassVar[str] = "pods' `status`"
    usable: ClassVar[str] = "containerStatuses"

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "kind" not in fields and any(begins_with(fields.get(key), "[") for key in _REPORTED)

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        return self.of_status(entry, place)


class ContainerStatus(_Statuses):
    """``kubectl get pods -o json | jq '.items[].status.containerStatuses[]'``."""

    title: ClassVar[str] = "pods' `containerStatuses`"
    usable: ClassVar[str] = "statuses with a name and an imageID"
    reads: ClassVar[frozenset[str]] = frozenset({"imageID"})

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "imageID" in fields and "image" in fields and begins_with(fields.get("state"), "{")

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        name = as_text(entry.get("name")) or as_text(entry.get("containerID"))
        return self.of_status({"containerStatuses": [{**entry, "name": name}]}, place, alone=True)


class ContainerSpec(ObjectFormat):
    """``kubectl get … -o json | jq '….spec.containers[]'``: of pods, or of templates."""

    title: ClassVar[str] = "containers' specifications"
    usable: ClassVar[str] = "pods: what `kubectl get pods -A -o json` prints"
    reads: ClassVar[frozenset[str]] = frozenset()

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "image" in fields and ("imagePullPolicy" in fields or "terminationMessagePath" in fields)

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterator[Item]:
        if self._reading.first("specifications"):
            yield self._reading.problem(f"the specification of a container: {TEMPLATE}", _PODS)
        image = declared_image(
            self._reading,
            as_text(entry.get("image")),
            template=True,
            remarks=(f"the specification of a container: {TEMPLATE}",),
        )
        yield self.row(place, image, name=as_text(as_object(entry).get("name")))
