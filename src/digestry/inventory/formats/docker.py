"""The output of docker's client: ``docker inspect`` of containers and images, and lists.

``docker inspect`` of a container gives its image's ID; ``RepoDigests`` are in that of the image,
which may be in the same file. ``docker ps`` gives names alone. ``nerdctl inspect`` has the shape
of docker's, but its ``Image`` is containerd's name of the image, which can move.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar, Final

import msgspec

from digestry.errors import InvalidConfiguration
from digestry.inventory.engine_values import digest_of, platform_of
from digestry.inventory.formats.container_labels import COMPOSE_IMAGE, COMPOSE_PROJECT
from digestry.inventory.formats.container_states import state_of
from digestry.inventory.formats.declared_images import remarks_on
from digestry.inventory.formats.engine_documents import (
    NO_IMAGE,
    Descriptor,
    ImageRecord,
    InspectedContainer,
)
from digestry.inventory.formats.engine_images import shown_image
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.rows import (
    DeferredImage,
    Fields,
    Item,
    Reading,
    RowImage,
    begins_with,
)
from digestry.inventory.formats.single_entries import EntryFormat, ImageListFormat
from digestry.inventory.observation import ImageFacts
from digestry.model.digest import Digest, shown

NAME_CAN_MOVE: Final = "containerd keeps the image's name, and not its digest: the name may have moved since"

_COMPOSE_LISTS: Final = "`docker compose images` does not say whether it runs"
_NO_DIGEST: Final = "what `docker ps` prints has no digest in it: `docker inspect` of the container has"
_ID_ALONE: Final = (
    "the file has only the ID of its image; with the image's own `inspect` beside it there would be digests"
)
_SHORT: Final = re.compile(r"(?:sha256:)?[0-9a-f]{12}", re.ASCII)


class DockerInspect(EntryFormat[InspectedContainer]):
    title: ClassVar[str] = "`docker inspect` of a container"
    usable: ClassVar[str] = "containers with an Id and an Image"
    reads: ClassVar[frozenset[str]] = frozenset()
    entry = InspectedContainer

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return (
            "Id" in fields
            and begins_with(fields.get("Image"), '"')
            and begins_with(fields.get("Config"), "{")
        )

    def read_entry(self, entry: InspectedContainer, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        if self._reading.left_out(runs=entry.runs):
            return ()
        if digest_of(entry.image) is None and not entry.typed:
            image = named_only(self._reading, entry.image, NAME_CAN_MOVE)
        else:
            image = engine_image(self._reading, entry.typed, entry.image, manifest=entry.manifest)
        namespace = entry.labels.compose_project or entry.labels.nerdctl_namespace
        return (
            self.row(
                place,
                image,
                namespace=namespace,
                name=(entry.name or "").removeprefix("/"),
                identity=entry.id,
            ),
        )


def engine_image(
    reading: Reading,
    typed: str,
    image_id: str,
    *,
    manifest: str = "",
    made_up: bool = False,
    remarks: tuple[str, ...] = (),
) -> DeferredImage:
    """Return the image of an engine's container, by the image's name as typed and its ID."""

    def make() -> RowImage:
        notes = list(remarks)
        identity = digest_of(image_id)
        listed = None if identity is None else reading.images.get(identity)
        if identity is None:
            notes.append(
                f"the file has no whole image ID for it ({image_id!r})" if image_id else "no image ID"
            )
        elif listed is None:
            notes.append(_ID_ALONE)
        known = listed or NO_IMAGE
        facts = shown_image(
            typed=typed,
            image_id=identity,
            image=known,
            manifest=manifest,
            platform=known.platform,
            remarks=notes,
            made_up=made_up,
            platform_assumed=True,
        )
        return RowImage(facts, tuple(notes))

    return reading.shared(("engine", typed, image_id, manifest, made_up, remarks), make)


def named_only(reading: Reading, typed: str, *remarks: str) -> DeferredImage:
    """Return the image of a container by the image's name alone."""

    def make() -> RowImage:
        notes = list(remarks)
        facts = shown_image(typed=typed, image_id=None, platform=None, remarks=notes)
        return RowImage(replace(facts, registry_named=True), tuple(notes))

    return reading.shared(("name", typed, remarks), make)


# -- lists --------------------------------------------------------------------------------------


class _Listed(msgspec.Struct):
    id: str = msgspec.field(default="", name="ID")
    image: str = msgspec.field(default="", name="Image")
    names: str = msgspec.field(default="", name="Names")
    name: str = msgspec.field(default="", name="Name")
    state: str | int | None = msgspec.field(default="", name="State")
    status: str = msgspec.field(default="", name="Status")
    image_id: str | None = msgspec.field(default="", name="ImageID")
    """This and a number for the state are podman's before 2.0."""
    project: str = msgspec.field(default="", name="Project")
    labels: str | dict[str, str] | None = msgspec.field(default=None, name="Labels")


class DockerList(EntryFormat[_Listed]):
    """``docker ps``, ``docker compose ps`` and ``nerdctl ps``, each with ``--format json``; and ``podman ps``
    before 2.0."""

    title: ClassVar[str] = "`docker ps --format json`"
    usable: ClassVar[str] = "containers with an ID and an Image"
    reads: ClassVar[frozenset[str]] = frozenset({"ImageID"})
    entry = _Listed

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return (
            begins_with(fields.get("ID"), '"')
            and begins_with(fields.get("Image"), '"')
            and ("Names" in fields or "Name" in fields)
            and "Snapshotter" not in fields
        )

    def read_entry(self, entry: _Listed, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        word = entry.state if isinstance(entry.state, str) and entry.state else entry.status
        state = state_of(word) if word else "runs"
        if self._reading.left_out(runs=state != "ended"):
            return ()
        named = () if "@" in entry.image else (_NO_DIGEST,)
        remarks = (*named, *remarks_on(state, word))
        project = entry.project or _label(entry.labels, COMPOSE_PROJECT)
        image_id = entry.image_id or _label(entry.labels, COMPOSE_IMAGE)
        name = (entry.names or entry.name).partition(",")[0]
        if digest_of(entry.image) is not None:
            # With --no-trunc, an image whose name has moved is shown by its whole ID.
            image = engine_image(self._reading, "", entry.image, remarks=remarks_on(state, word))
        elif digest_of(image_id) is not None:
            typed = "" if _SHORT.fullmatch(entry.image) else entry.image
            image = engine_image(self._reading, typed, image_id, remarks=remarks_on(state, word))
        else:
            image = self._image(entry.image, remarks)
        return (self.row(place, image, namespace=project, name=name, identity=entry.id),)

    def _image(self, typed: str, remarks: tuple[str, ...]) -> DeferredImage:
        # An image without a name is shown by the first digits of its ID.
        if _SHORT.fullmatch(typed):
            return self._reading.shared(
                ("short", typed, remarks),
                lambda: RowImage(
                    ImageFacts(None),
                    (*remarks, f"its image has lost its name, and has the ID {typed}…"),
                ),
            )
        return named_only(self._reading, typed, *remarks)


def _label(labels: str | dict[str, str] | None, name: str) -> str:
    """Return a label's value, from an object or from the text of ``docker ps``; "" if it is missing."""
    if isinstance(labels, dict):
        return labels.get(name, "")
    match = re.search(rf"(?:^|,){re.escape(name)}=([^,]*)", labels or "")
    return match[1] if match else ""


class _ComposeImage(msgspec.Struct):
    id: str = msgspec.field(default="", name="ID")
    container: str = msgspec.field(default="", name="ContainerName")
    repository: str = msgspec.field(default="", name="Repository")
    tag: str = msgspec.field(default="", name="Tag")


class ComposeImages(EntryFormat[_ComposeImage]):
    """``docker compose images``, which lists a project's containers, the stopped ones too."""

    title: ClassVar[str] = "`docker compose images --format json`"
    usable: ClassVar[str] = "containers with an ID of an image"
    reads: ClassVar[frozenset[str]] = frozenset()
    entry = _ComposeImage

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "ID" in fields and "ContainerName" in fields and "Repository" in fields

    def read_entry(self, entry: _ComposeImage, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        named = entry.repository not in {"", "<none>"}
        typed = (
            f"{entry.repository}:{entry.tag}" if named and entry.tag else entry.repository if named else ""
        )
        image = engine_image(self._reading, typed, entry.id, remarks=(_COMPOSE_LISTS,))
        return (self.row(place, image, name=entry.container),)


# -- images -------------------------------------------------------------------------------------


class _Image(msgspec.Struct, rename="pascal"):
    id: str
    repo_digests: tuple[str, ...] | None = None
    repo_tags: tuple[str, ...] | None = None
    digest: str | None = None
    architecture: str | None = None
    os: str | None = None
    variant: str | None = None
    descriptor: Descriptor | None = None


class ImageInspect(ImageListFormat[_Image]):
    """``docker image inspect``, ``podman image inspect``, ``podman images --format json``."""

    title: ClassVar[str] = "`inspect` of an image"
    entry = _Image

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "Id" in fields and ("RepoDigests" in fields or "RepoTags" in fields)

    def image_record(self, image: _Image) -> tuple[Digest, ImageRecord] | None:
        identity = digest_of(image.id)
        if identity is None:
            raise InvalidConfiguration(f"the Id of an image is not a digest: {shown(image.id)}")
        return identity, ImageRecord(
            repo_digests=image.repo_digests or (),
            repo_tags=image.repo_tags or (),
            digest=image.digest or "",
            platform=platform_of(image.architecture, image.os, image.variant),
            target=image.descriptor,
        )


class _ImageLine(msgspec.Struct):
    id: str = msgspec.field(default="", name="ID")
    repository: str = msgspec.field(default="", name="Repository")
    tag: str = msgspec.field(default="", name="Tag")
    digest: str = msgspec.field(default="", name="Digest")


class ImageList(ImageListFormat[_ImageLine]):
    """``docker images --digests --no-trunc --format json``."""

    title: ClassVar[str] = "`docker images --format json`"
    entry = _ImageLine

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "ID" in fields and "Repository" in fields and "Tag" in fields

    def image_record(self, image: _ImageLine) -> tuple[Digest, ImageRecord] | None:
        identity = digest_of(image.id)
        if identity is None or image.repository == "<none>":
            return None
        tag = image.tag if image.tag != "<none>" else ""
        return identity, ImageRecord(
            repo_digests=(f"{image.repository}@{image.digest}",) if digest_of(image.digest) else (),
            repo_tags=(f"{image.repository}:{tag}",) if tag else (),
        )
