"""Compose files, and what ``docker compose config`` and ``docker stack config`` print: templates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final

import msgspec

from digestry.inventory.formats.declared_images import TEMPLATE, ObjectFormat, declared_image
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.rows import Fields, Item, begins_with
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_object, as_text

_RUNS: Final = "`docker inspect $(docker compose ps -q)` has what runs, or --source docker"


class ComposeFile(ObjectFormat):
    """A Compose file: its services say what is to be started."""

    title: ClassVar[str] = "a Compose file"
    usable: ClassVar[str] = "services with an image"
    whole: ClassVar[bool] = True

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        services = fields.get("services")
        if services is None or "apiVersion" in fields or not begins_with(services, "{"):
            return False
        found = as_object(msgspec.json.decode(services))
        return any("image" in as_object(one) or "build" in as_object(one) for one in found.values())

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterator[Item]:
        services = as_object(entry.get("services"))
        if self._reading.first("compose"):
            yield self._reading.problem(f"a Compose file: {TEMPLATE}", _RUNS)
        built: list[str] = []
        for name, value in services.items():
            service = as_object(value)
            typed = as_text(service.get("image"))
            if not typed:
                built.append(name)
                continue
            replicas = as_object(service.get("deploy")).get("replicas", service.get("scale"))
            remark = "a service that is scaled to zero" if replicas == 0 else f"a service: {TEMPLATE}"
            image = declared_image(self._reading, typed, template=True, remarks=(remark,))
            yield self.row(place, image, namespace=as_text(entry.get("name")), name=name)
        if built:
            yield self._reading.problem(
                f"the Compose file builds the images of {', '.join(map(shown, built))}, and names none",
                _RUNS,
            )
