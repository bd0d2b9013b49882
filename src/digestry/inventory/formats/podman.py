"""What podman prints: ``podman inspect`` of containers, and ``podman ps --format json``.

The list has a container's image ID, ``inspect`` its ``ImageDigest`` besides. Names and digests are
paired by podman itself. Docker's own API lists containers in the shape of the list.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar, Final

import msgspec

from digestry.inventory.engine_values import digest_of
from digestry.inventory.formats.container_states import state_of
from digestry.inventory.formats.docker import COMPOSE_PROJECT, engine_image
from digestry.inventory.formats.engine_images import with_podman_digest
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.rows import Awaited, Fields, Made, Reading, RowImage, begins_with
from digestry.inventory.formats.single_entries import OneByOne

_PAUSE: Final = "this is its pod's own pause container"
_SHORT: Final = 12


class _Labels(msgspec.Struct):
    project: str = msgspec.field(default="", name=COMPOSE_PROJECT)


class _Config(msgspec.Struct, rename="pascal"):
    image: str | None = None
    labels: _Labels | None = None


class _State(msgspec.Struct, rename="pascal"):
    status: str | None = None
    running: bool | None = None


class _Container(msgspec.Struct, rename="pascal"):
    id: str
    image: str = ""
    image_name: str | None = None
    image_digest: str | None = None
    name: str | None = None
    pod: str | None = None
    is_infra: bool | None = None
    config: _Config | None = None
    state: _State | None = None


class PodmanInspect(OneByOne[_Container]):
    title: ClassVar[str] = "`podman inspect` of a container"
    usable: ClassVar[str] = "containers with an Id and an Image"
    reads: ClassVar[frozenset[str]] = frozenset({"ImageDigest"})
    entry = _Container

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "Id" in fields and "ImageName" in fields and begins_with(fields.get("Config"), "{")

    def made(self, one: _Container, fields: Fields, place: SourceLocation) -> Iterable[Made]:
        state = one.state
        runs = state is None or state.running is True or state_of(state.status or "running") != "ended"
        if self._reading.left_out(runs=runs):
            return ()
        config = one.config or _Config()
        typed = one.image_name or config.image or ""
        image = podman_image(
            self._reading, typed, one.image, one.image_digest or "", (_PAUSE,) if one.is_infra else ()
        )
        project = config.labels.project if config.labels else ""
        return (self.row(place, (one.pod or "")[:_SHORT] or project, one.name or "", one.id, image),)


class _Listed(msgspec.Struct, rename="pascal"):
    id: str
    image: str | None = None
    image_id: str | None = msgspec.field(default=None, name="ImageID")
    image_digest: str | None = None
    names: tuple[str, ...] | None = None
    state: str | None = None
    is_infra: bool | None = None
    pod_name: str | None = None
    labels: _Labels | None = None


class PodmanList(OneByOne[_Listed]):
    """``podman ps --format json``, and ``GET /containers/json`` of docker's API."""

    title: ClassVar[str] = "`podman ps --format json`"
    usable: ClassVar[str] = "containers with an Id and an ImageID"
    reads: ClassVar[frozenset[str]] = frozenset({"ImageID", "ImageDigest"})
    entry = _Listed

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "Id" in fields and "ImageID" in fields

    def made(self, one: _Listed, fields: Fields, place: SourceLocation) -> Iterable[Made]:
        if self._reading.left_out(runs=state_of(one.state or "running") != "ended"):
            return ()
        remarks = (_PAUSE,) if one.is_infra else ()
        typed, image_id = one.image or "", one.image_id or ""
        if "PodName" in fields or "IsInfra" in fields:
            image = podman_image(self._reading, typed, image_id, one.image_digest or "", remarks)
        else:
            # Docker's list shows a bare ID where the name has moved, as if it had been started by it.
            image = engine_image(self._reading, "" if digest_of(typed) else typed, image_id, remarks=remarks)
        namespace = one.pod_name or (one.labels.project if one.labels else "")
        name = next(iter(one.names or ()), "").removeprefix("/")
        return (self.row(place, namespace, name, one.id, image),)


def podman_image(
    reading: Reading, typed: str, image_id: str, image_digest: str, remarks: tuple[str, ...]
) -> Awaited:
    """The image of a container of podman's; ``image_digest`` is the container's, "" if not known."""

    def make() -> RowImage:
        identity = digest_of(image_id)
        listed = None if identity is None else reading.images.get(identity)
        image = engine_image(reading, typed, image_id, made_up=True, remarks=remarks).image()
        digest = image_digest or (listed.digest if listed else "")
        said = list(image.remarks)
        facts = replace(image.facts, platform_manifest=None, platform_assumed=False)
        facts = with_podman_digest(facts, digest or None, said)
        return RowImage(facts, tuple(said))

    return reading.shared(("podman", typed, image_id, image_digest, remarks), make)
