"""The output of ``crictl``, for containerd and CRI-O (the CRI's messages, in JSON).

``crictl ps`` gives the digest of the image's config: the CRI's ListContainers has no more.
``crictl inspect`` gives ``repository@digest`` where the runtime has one. ``crictl images`` in the
same file says which ``repository@digest`` an ID has.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

import msgspec

from digestry.errors import InvalidConfiguration
from digestry.inventory.engine_values import digest_of
from digestry.inventory.formats.cri_documents import (
    SANDBOX,
    ContainerInfo,
    CriContainer,
    ImageSpec,
    Metadata,
    config_image,
)
from digestry.inventory.formats.cri_images import CONTAINERD, CRI_O, read_cri_image
from digestry.inventory.formats.engine_documents import ImageRecord
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
from digestry.model.digest import Digest

_BESIDE: Final = frozenset({"kind", "spec", "image"})
"""Keys that show that a ``status`` is none of crictl's."""


class CriList(EntryFormat[CriContainer]):
    title: ClassVar[str] = "`crictl ps -o json`"
    usable: ClassVar[str] = "containers with an imageRef"
    reads: ClassVar[frozenset[str]] = frozenset({"imageRef", "imageId"})
    entry = CriContainer

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "podSandboxId" in fields and "imageRef" in fields

    def read_entry(self, entry: CriContainer, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        if self._reading.left_out(runs=entry.runs):
            return ()
        spec = entry.image or ImageSpec()
        image = cri_image(
            self._reading,
            spec.typed,
            spec.image,
            image_ref=entry.image_ref or "",
            image_id=entry.image_id or "",
        )
        return (self.row(place, image, namespace=entry.namespace, name=entry.name, identity=entry.id),)


# -- inspect ------------------------------------------------------------------------------------


class _Annotations(msgspec.Struct):
    containerd_kind: str = msgspec.field(default="", name="io.kubernetes.cri.container-type")
    containerd_image: str = msgspec.field(default="", name="io.kubernetes.cri.image-name")
    crio_kind: str = msgspec.field(default="", name="io.kubernetes.cri-o.ContainerType")
    crio_image: str = msgspec.field(default="", name="io.kubernetes.cri-o.ImageName")  # one of several
    crio_sandbox_image: str = msgspec.field(default="", name="io.kubernetes.cri-o.Image")

    @property
    def is_sandbox(self) -> bool:
        return "sandbox" in {self.containerd_kind, self.crio_kind}


class _RuntimeSpec(msgspec.Struct):
    annotations: _Annotations | None = None


class _Info(ContainerInfo):
    spec: _RuntimeSpec | None = msgspec.field(default=None, name="runtimeSpec")
    snapshotter: str | None = None
    image: str | None = None
    """The image's name; only a sandbox has it here."""


class _Inspected(msgspec.Struct):
    status: CriContainer
    info: _Info | None = None


def _inspected_status(fields: Fields) -> bytes | None:
    """Return the status in what an ``inspect`` of crictl prints; None for another document."""
    status = fields.get("status")
    if status is None or not begins_with(status, "{") or not _BESIDE.isdisjoint(fields):
        return None
    return bytes(status)


class CriInspect(EntryFormat[_Inspected]):
    """``crictl inspect`` of a container, and ``crictl inspectp`` of a sandbox."""

    title: ClassVar[str] = "`crictl inspect`"
    usable: ClassVar[str] = "a status with an imageRef"
    entry = _Inspected

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        known = _inspected_status(fields)
        if known is None:
            return False
        return "info" in fields or b'"imageRef"' in known or b'"CONTAINER_' in known or b'"SANDBOX_' in known

    def read_entry(self, entry: _Inspected, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        status, info = entry.status, entry.info or _Info()
        notes = (info.spec.annotations if info.spec else None) or _Annotations()
        if status.is_sandbox or notes.is_sandbox:
            return self._sandbox(status, info, notes, place)
        if self._reading.left_out(runs=status.runs):
            return ()
        if not status.id:
            raise InvalidConfiguration("a status without an id belongs to no container")
        spec, config = status.image or ImageSpec(), config_image(info.config)
        # The image as it was given to the runtime: an ID, from kubelets.
        typed = config.typed or spec.typed or config.image
        image = cri_image(
            self._reading,
            "" if digest_of(typed) else typed,
            spec.image or notes.crio_image or notes.containerd_image,
            image_ref=status.image_ref or "",
            image_id=status.image_id or (config.image if digest_of(config.image) else ""),
            runtime=_runtime(info, notes),
        )
        return (self.row(place, image, namespace=status.namespace, name=status.name, identity=status.id),)

    def _sandbox(
        self, status: CriContainer, info: _Info, notes: _Annotations, place: SourceLocation
    ) -> Iterable[Item]:
        """Return the row of a sandbox, none if it does not run."""
        if self._reading.left_out(runs=status.is_ready_sandbox):
            return ()
        metadata = status.metadata or Metadata()
        typed = info.image or notes.crio_sandbox_image or notes.crio_image
        image = cri_image(
            self._reading,
            "" if digest_of(typed) else typed,
            typed,
            SANDBOX,
            runtime=_runtime(info, notes),
        )
        namespace = metadata.namespace or status.namespace
        return (
            self.row(
                place, image, namespace=namespace, name=f"{metadata.name}/(sandbox)", identity=status.id
            ),
        )


def _runtime(info: _Info, notes: _Annotations) -> str:
    """Return the runtime that made a container, by its own fields; "" if there are none."""
    if notes.containerd_kind or notes.containerd_image or info.snapshotter:
        return CONTAINERD
    return CRI_O if notes.crio_kind or notes.crio_image else ""


def cri_image(
    reading: Reading,
    typed: str,
    shown: str,
    *remarks: str,
    image_ref: str = "",
    image_id: str = "",
    runtime: str = "",
) -> DeferredImage:
    """Return the image of a container of a CRI runtime.

    ``typed`` is the name that it was started by, ``shown`` the one that the runtime shows, each ""
    if there is none; ``runtime`` is "" if it is not known.
    """

    def make() -> RowImage:
        found = read_cri_image(
            typed,
            shown,
            *remarks,
            image_ref=image_ref,
            image_id=image_id,
            runtime=runtime,
            repo_digests=lambda identity: (
                listed.repo_digests if (listed := reading.images.get(identity)) else ()
            ),
        )
        return RowImage(found.facts, found.remarks)

    return reading.shared(("cri", typed, shown, image_ref, image_id, runtime, remarks), make)


# -- images and sandboxes -----------------------------------------------------------------------


class _Image(msgspec.Struct, rename="camel"):
    id: str
    repo_digests: tuple[str, ...] | None = None
    repo_tags: tuple[str, ...] | None = None


class CriImages(ImageListFormat[_Image]):
    title: ClassVar[str] = "`crictl images -o json`"
    entry = _Image

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "id" in fields and ("repoDigests" in fields or "repoTags" in fields)

    def image_record(self, image: _Image) -> tuple[Digest, ImageRecord] | None:
        return _record(image)


class _InspectedImage(msgspec.Struct):
    status: _Image


class CriImageInspect(ImageListFormat[_InspectedImage]):
    """``crictl inspecti``, whose ``status`` is an image and no container."""

    title: ClassVar[str] = "`crictl inspecti`"
    entry = _InspectedImage

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        known = _inspected_status(fields)
        if known is None:
            return False
        return (b'"repoDigests"' in known or b'"repoTags"' in known) and b'"imageRef"' not in known

    def image_record(self, image: _InspectedImage) -> tuple[Digest, ImageRecord] | None:
        return _record(image.status)


def _record(image: _Image) -> tuple[Digest, ImageRecord] | None:
    identity = digest_of(image.id)
    return (
        None if identity is None else (identity, ImageRecord(image.repo_digests or (), image.repo_tags or ()))
    )


class CriPods:
    title: ClassVar[str] = "`crictl pods -o json`"
    usable: ClassVar[str] = "containers: what `crictl ps -o json` prints, or `crictl inspect`"

    def __init__(self, reading: Reading) -> None:
        pass

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        state = fields.get("state")
        return "id" in fields and state is not None and bytes(state).startswith(b'"SANDBOX_')

    def read(self, raw: msgspec.Raw, fields: Fields, place: SourceLocation, index: int) -> Iterable[Item]:
        return ()

    def finish(self) -> Iterable[Item]:
        return ()
