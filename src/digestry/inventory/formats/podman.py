"""The output of podman: ``podman inspect`` of containers, and ``podman ps --format json``.

The list has a container's image ID, ``inspect`` its ``ImageDigest`` besides. Names and digests are
paired by podman itself. Docker's own API lists containers in the shape of the list.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar, Final

from digestry.inventory.engine_values import digest_of
from digestry.inventory.formats.docker import engine_image
from digestry.inventory.formats.engine_documents import InspectedContainer, ListedContainer
from digestry.inventory.formats.engine_images import INFRASTRUCTURE, with_podman_digest
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.rows import DeferredImage, Fields, Item, Reading, RowImage, begins_with
from digestry.inventory.formats.single_entries import EntryFormat

_SHORT: Final = 12


class PodmanInspect(EntryFormat[InspectedContainer]):
    title: ClassVar[str] = "`podman inspect` of a container"
    usable: ClassVar[str] = "containers with an Id and an Image"
    reads: ClassVar[frozenset[str]] = frozenset({"ImageDigest"})
    entry = InspectedContainer

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "Id" in fields and "ImageName" in fields and begins_with(fields.get("Config"), "{")

    def read_entry(self, entry: InspectedContainer, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        if self._reading.left_out(runs=entry.runs):
            return ()
        remarks = (INFRASTRUCTURE,) if entry.is_infra else ()
        image = podman_image(self._reading, entry.typed, entry.image, entry.image_digest or "", remarks)
        namespace = (entry.pod or "")[:_SHORT] or entry.labels.compose_project
        return (self.row(place, image, namespace=namespace, name=entry.name or "", identity=entry.id),)


class PodmanList(EntryFormat[ListedContainer]):
    """``podman ps --format json``, and ``GET /containers/json`` of docker's API."""

    title: ClassVar[str] = "`podman ps --format json`"
    usable: ClassVar[str] = "containers with an Id and an ImageID"
    reads: ClassVar[frozenset[str]] = frozenset({"ImageID", "ImageDigest"})
    entry = ListedContainer

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "Id" in fields and "ImageID" in fields

    def read_entry(self, entry: ListedContainer, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        if self._reading.left_out(runs=entry.runs):
            return ()
        remarks = (INFRASTRUCTURE,) if entry.is_infra else ()
        typed, image_id = entry.image or "", entry.image_id or ""
        if "PodName" in fields or "IsInfra" in fields:
            image = podman_image(self._reading, typed, image_id, entry.image_digest or "", remarks)
        else:
            # Docker's list shows a bare ID where the name has moved, as if it had been started by it.
            image = engine_image(
                self._reading,
                "" if digest_of(typed) else typed,
                image_id,
                manifest=entry.image_manifest_descriptor.digest if entry.image_manifest_descriptor else "",
                remarks=remarks,
            )
        return (
            self.row(
                place, image, namespace=entry.pod_name or entry.project, name=entry.name, identity=entry.id
            ),
        )


def podman_image(
    reading: Reading, typed: str, image_id: str, image_digest: str, remarks: tuple[str, ...]
) -> DeferredImage:
    """Return the image of podman's container; ``image_digest`` is the container's, "" if not known."""

    def make() -> RowImage:
        identity = digest_of(image_id)
        listed = None if identity is None else reading.images.get(identity)
        image = engine_image(reading, typed, image_id, made_up=True, remarks=remarks).image()
        digest = image_digest or (listed.digest if listed else "")
        notes = list(image.remarks)
        facts = replace(image.facts, platform_manifest=None, platform_assumed=False)
        facts = with_podman_digest(facts, digest, notes)
        return RowImage(facts, tuple(notes))

    return reading.shared(("podman", typed, image_id, image_digest, remarks), make)
