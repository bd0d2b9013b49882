"""What ``crictl`` prints, of containerd and CRI-O (the CRI's messages, in JSON).

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
from digestry.inventory.formats.cri_images import CONTAINERD, CRI_O, read_cri_image
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.rows import (
    Awaited,
    Fields,
    Listed,
    Made,
    Reading,
    RowImage,
    begins_with,
)
from digestry.inventory.formats.single_entries import Images, OneByOne
from digestry.model.digest import Digest

SANDBOX: Final = "its pod's sandbox, which holds the pod's network: the pause container"

_ENDED: Final = frozenset({"CONTAINER_EXITED", "CONTAINER_CREATED", 0, 2})
_BESIDE: Final = frozenset({"kind", "spec", "image"})
"""Keys that show that a ``status`` is none of crictl's."""
_READY: Final = frozenset({"SANDBOX_READY", ""})


class Labels(msgspec.Struct):
    """The kubelet's labels on containers and sandboxes."""

    pod: str = msgspec.field(default="", name="io.kubernetes.pod.name")
    namespace: str = msgspec.field(default="", name="io.kubernetes.pod.namespace")
    container: str = msgspec.field(default="", name="io.kubernetes.container.name")


class _Metadata(msgspec.Struct):
    name: str = ""
    namespace: str = ""


class _Spec(msgspec.Struct):
    image: str = ""
    typed: str = msgspec.field(default="", name="userSpecifiedImage")


class _Container(msgspec.Struct, rename="camel"):
    id: str = ""
    metadata: _Metadata | None = None
    image: _Spec | None = None
    image_ref: str | None = None
    image_id: str | None = None
    state: str | int | None = None
    labels: Labels | None = None


def crictl_name(metadata: _Metadata | None, labels: Labels | None) -> str:
    """``pod/container``, as pods' containers are named elsewhere."""
    name = (labels.container if labels else "") or (metadata.name if metadata else "")
    return f"{labels.pod}/{name}" if labels and labels.pod else name


class CriList(OneByOne[_Container]):
    title: ClassVar[str] = "`crictl ps -o json`"
    usable: ClassVar[str] = "containers with an imageRef"
    reads: ClassVar[frozenset[str]] = frozenset({"imageRef", "imageId"})
    entry = _Container

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "podSandboxId" in fields and "imageRef" in fields

    def made(self, one: _Container, fields: Fields, place: SourceLocation) -> Iterable[Made]:
        if self._reading.left_out(runs=_runs(one.state)):
            return ()
        spec = one.image or _Spec()
        image = cri_image(
            self._reading,
            spec.typed,
            spec.image,
            image_ref=one.image_ref or "",
            image_id=one.image_id or "",
        )
        namespace = one.labels.namespace if one.labels else ""
        return (self.row(place, namespace, crictl_name(one.metadata, one.labels), one.id, image),)


def _runs(state: str | int | None) -> bool:
    # The CRI's enum, by name or by number. What is in no known state has not been seen to end.
    return state not in _ENDED


# -- inspect ------------------------------------------------------------------------------------


class _Annotations(msgspec.Struct):
    containerd_kind: str = msgspec.field(default="", name="io.kubernetes.cri.container-type")
    containerd_image: str = msgspec.field(default="", name="io.kubernetes.cri.image-name")
    crio_kind: str = msgspec.field(default="", name="io.kubernetes.cri-o.ContainerType")
    crio_image: str = msgspec.field(default="", name="io.kubernetes.cri-o.ImageName")  # one of several
    crio_sandbox_image: str = msgspec.field(default="", name="io.kubernetes.cri-o.Image")


class _RuntimeSpec(msgspec.Struct):
    annotations: _Annotations | None = None


class _ConfigImage(msgspec.Struct):
    image: str = ""
    typed: str = msgspec.field(default="", name="user_specified_image")


class _Config(msgspec.Struct):
    image: _ConfigImage | None = None


class _Info(msgspec.Struct):
    config: _Config | None = None
    spec: _RuntimeSpec | None = msgspec.field(default=None, name="runtimeSpec")
    snapshotter: str | None = None
    image: str | None = None
    """Of a sandbox alone."""


class _Inspected(msgspec.Struct):
    status: _Container
    info: _Info | None = None


class CriInspect(OneByOne[_Inspected]):
    """``crictl inspect`` of a container, and ``crictl inspectp`` of a sandbox."""

    title: ClassVar[str] = "`crictl inspect`"
    usable: ClassVar[str] = "a status with an imageRef"
    entry = _Inspected

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        status = fields.get("status")
        if not begins_with(status, "{") or not _BESIDE.isdisjoint(fields):
            return False
        known = bytes(status or b"")
        return "info" in fields or b'"imageRef"' in known or b'"CONTAINER_' in known or b'"SANDBOX_' in known

    def made(self, one: _Inspected, fields: Fields, place: SourceLocation) -> Iterable[Made]:
        status, info = one.status, one.info or _Info()
        notes = (info.spec.annotations if info.spec else None) or _Annotations()
        runtime = CRI_O if notes.crio_kind or notes.crio_image else ""
        if notes.containerd_kind or notes.containerd_image or info.snapshotter:
            runtime = CONTAINERD
        if str(status.state).startswith("SANDBOX_") or "sandbox" in {notes.containerd_kind, notes.crio_kind}:
            if self._reading.left_out(runs=str(status.state or "") in _READY):
                return ()
            metadata = status.metadata or _Metadata()
            typed = info.image or notes.crio_sandbox_image or notes.crio_image
            image = cri_image(
                self._reading, "" if digest_of(typed) else typed, typed, SANDBOX, runtime=runtime
            )
            namespace = metadata.namespace or (status.labels.namespace if status.labels else "")
            name = f"{metadata.name}/(sandbox)"
            return (self.row(place, namespace, name, status.id, image),)
        if self._reading.left_out(runs=_runs(status.state)):
            return ()
        if not status.id:
            raise InvalidConfiguration("a status without an id is no container's")
        spec = status.image or _Spec()
        config = (info.config.image if info.config else None) or _ConfigImage()
        # What the runtime was given: an ID, from kubelets.
        typed = config.typed or spec.typed or config.image
        image = cri_image(
            self._reading,
            "" if digest_of(typed) else typed,
            spec.image or notes.crio_image or notes.containerd_image,
            image_ref=status.image_ref or "",
            image_id=status.image_id or (config.image if digest_of(config.image) else ""),
            runtime=runtime,
        )
        namespace = status.labels.namespace if status.labels else ""
        name = crictl_name(status.metadata, status.labels)
        return (self.row(place, namespace, name, status.id, image),)


def cri_image(
    reading: Reading,
    typed: str,
    shown: str,
    *remarks: str,
    image_ref: str = "",
    image_id: str = "",
    runtime: str = "",
) -> Awaited:
    """The image of a container of a CRI runtime.

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


class CriImages(Images[_Image]):
    title: ClassVar[str] = "`crictl images -o json`"
    entry = _Image

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "id" in fields and ("repoDigests" in fields or "repoTags" in fields)

    def learnt(self, one: _Image) -> tuple[Digest, Listed] | None:
        identity = digest_of(one.id)
        return None if identity is None else (identity, Listed(one.repo_digests or (), one.repo_tags or ()))


class CriPods:
    title: ClassVar[str] = "`crictl pods -o json`"
    usable: ClassVar[str] = "containers: what `crictl ps -o json` prints, or `crictl inspect`"

    def __init__(self, reading: Reading) -> None:
        pass

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        state = fields.get("state")
        return "id" in fields and state is not None and bytes(state).startswith(b'"SANDBOX_')

    def read(self, raw: msgspec.Raw, fields: Fields, place: SourceLocation, index: int) -> Iterable[Made]:
        return ()

    def finish(self) -> Iterable[Made]:
        return ()
