"""Containers and images as docker, podman and nerdctl describe them: in a list, and with ``inspect``.

A file is decoded into these types strictly: an entry with a value of another type is a problem of
the file. An engine's answer is read leniently: such a value counts as missing, and the rest is used.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Final

import msgspec

from digestry.inventory.engine_values import FIRST_START, platform_of, time_of
from digestry.inventory.formats.container_labels import NO_LABELS, ContainerLabels, read_labels
from digestry.inventory.formats.container_states import state_of
from digestry.model.json_values import JsonObject, as_list, as_object, as_text
from digestry.model.platform import Platform

FIRST_WITHIN: Final = datetime.timedelta(minutes=1)
"""The most time from a container's creation to a start that is taken for its first without being seen."""

_ALIVE: Final = frozenset({"paused", "pausing", "stopping", "restarting"})
"""States of containers that have not ended, though podman does not call them running."""


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """The digest and the media type of a manifest or an index in containerd's store."""

    digest: str = ""
    media_type: str = ""


class ContainerSettings(msgspec.Struct, rename="pascal"):
    """The image's name as it was typed, and the container's labels."""

    image: str | None = None
    labels: ContainerLabels | None = None


class ContainerState(msgspec.Struct, rename="pascal"):
    """Whether a container runs, as a word and as a flag, and when it started and ended last."""

    status: str | None = None
    running: bool | None = None
    started_at: object = None
    finished_at: object = None


class InspectedContainer(msgspec.Struct, rename="pascal"):
    """A container, as ``inspect`` of docker, podman and nerdctl shows it."""

    id: str
    image: str = ""
    """The image's ID; of nerdctl, the image's name."""
    name: str | None = None
    config: ContainerSettings | None = None
    state: ContainerState | None = None
    driver: str | None = None
    """The storage driver of the container's layers, in docker."""
    image_manifest_descriptor: Descriptor | None = None
    """The manifest that runs, in docker's API since 1.48 with containerd's store."""
    image_name: str | None = None
    image_digest: str | None = None
    pod: str | None = None
    is_infra: bool | None = None
    """These four are podman's alone."""
    created: object = None

    @property
    def runs(self) -> bool:
        """Whether the container runs. One without a known state has not been seen to end."""
        state = self.state
        if state is None or state.running is True:
            return True
        # Docker before 1.8 has the flag alone.
        return state_of(state.status or ("running" if state.running is None else "exited")) != "ended"

    @property
    def created_at(self) -> datetime.datetime | None:
        """When it was made; None if it is not shown."""
        return time_of(self.created)

    @property
    def started_at(self) -> datetime.datetime | None:
        """When it was started last; None if it never was."""
        return time_of(self.state and self.state.started_at)

    @property
    def ended_at(self) -> datetime.datetime | None:
        """When it ended; None if it has not, or runs again."""
        state = self.state
        if state is None or state.running is not False or state.status in _ALIVE:
            return None
        ended, started = time_of(state.finished_at), self.started_at
        # An engine may write the start of a short one down later than its end.
        return ended if ended is None or started is None else max(ended, started)

    @property
    def instance(self) -> str:
        """The words for its last start that are the same whoever asks, and however late.

        The first start can be told without asking, which matters where a container is gone before it can be
        asked about. The end of one that is over hides whether it ended before.
        """
        started, created = self.started_at, self.created_at
        if started is None:
            return ""
        has_ended = time_of(self.state and self.state.finished_at) is not None
        if not has_ended and created is not None and started - created <= FIRST_WITHIN:
            return FIRST_START
        return as_text(self.state and self.state.started_at)

    @property
    def typed(self) -> str:
        """The image's name as it was typed; "" if it is not shown."""
        return self.image_name or (self.config and self.config.image) or ""

    @property
    def labels(self) -> ContainerLabels:
        """The container's labels; none of them is set if it shows none."""
        return (self.config and self.config.labels) or NO_LABELS

    @property
    def manifest(self) -> str:
        """The digest of the manifest that runs; "" if it is not shown."""
        return self.image_manifest_descriptor.digest if self.image_manifest_descriptor else ""


class ListedContainer(msgspec.Struct, rename="pascal"):
    """A container, as ``podman ps --format json`` and the list of either engine's API show it."""

    id: str
    image: str | None = None
    """The image's name as it was typed; docker shows an ID there once the name has moved."""
    image_id: str | None = msgspec.field(default=None, name="ImageID")
    image_digest: str | None = None
    names: tuple[str, ...] | None = None
    state: str | None = None
    is_infra: bool | None = None
    pod_name: str | None = None
    labels: ContainerLabels | None = None
    image_manifest_descriptor: Descriptor | None = None
    """The manifest that runs, in docker's API since 1.48 with containerd's store."""

    @property
    def runs(self) -> bool:
        """Whether the container runs. One without a known state has not been seen to end."""
        return state_of(self.state or "running") != "ended"

    @property
    def name(self) -> str:
        """The first of the container's names, without docker's slash before it."""
        return next((name.removeprefix("/") for name in self.names or () if name), "")

    @property
    def project(self) -> str:
        """The Compose project that the container belongs to."""
        return (self.labels or NO_LABELS).compose_project


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image, as ``inspect`` or a list of images describes it, apart from any container."""

    repo_digests: tuple[str, ...] = ()
    repo_tags: tuple[str, ...] = ()
    digest: str = ""
    platform: Platform | None = None
    target: Descriptor | None = None
    """The target of the image's name, if the image is in containerd's store."""
    driver: str = ""
    """The storage driver of the image's layers, in docker."""

    def joined(self, other: ImageRecord) -> ImageRecord:
        """Return both as one, where a file lists an image once for each of its names."""
        return ImageRecord(
            tuple(dict.fromkeys(self.repo_digests + other.repo_digests)),
            tuple(dict.fromkeys(self.repo_tags + other.repo_tags)),
            self.digest or other.digest,
            self.platform or other.platform,
            self.target or other.target,
            self.driver or other.driver,
        )


NO_IMAGE = ImageRecord()
"""The record of an image that an engine does not show."""


# -- an engine's answers ------------------------------------------------------------------------


def read_listed_container(value: object) -> ListedContainer:
    """Return the entry ``value`` of an engine's list of containers; its ID is "" if it has none."""
    entry = as_object(value)
    return ListedContainer(
        id=as_text(entry.get("Id")),
        image=as_text(entry.get("Image")),
        image_id=as_text(entry.get("ImageID")),
        names=tuple(as_text(name) for name in as_list(entry.get("Names"))),
        state=as_text(entry.get("State")) or None,
        is_infra=entry.get("IsInfra") is True,
        pod_name=as_text(entry.get("PodName")),
        labels=read_labels(as_object(entry.get("Labels"))),
    )


def read_inspected_container(value: object) -> InspectedContainer:
    """Return the container that an engine's answer ``value`` shows; its ID is "" if it shows none."""
    shown = as_object(value)
    settings = as_object(shown.get("Config"))
    return InspectedContainer(
        id=as_text(shown.get("Id")),
        image=as_text(shown.get("Image")),
        name=as_text(shown.get("Name")).removeprefix("/"),
        config=ContainerSettings(
            image=as_text(settings.get("Image")), labels=read_labels(as_object(settings.get("Labels")))
        ),
        state=_state(shown.get("State")),
        created=shown.get("Created"),
        driver=as_text(shown.get("Driver")),
        image_manifest_descriptor=_descriptor(shown.get("ImageManifestDescriptor")),
        image_name=as_text(shown.get("ImageName")),
        image_digest=_any_text(shown.get("ImageDigest")),
    )


def read_image(value: object) -> ImageRecord:
    """Return the image that an engine's answer ``value`` shows."""
    image: JsonObject = as_object(value)
    return ImageRecord(
        repo_digests=tuple(map(_any_text, as_list(image.get("RepoDigests")))),
        repo_tags=tuple(map(as_text, as_list(image.get("RepoTags")))),
        platform=platform_of(image.get("Architecture"), image.get("Os"), image.get("Variant")),
        target=_descriptor(image.get("Descriptor")),
        driver=as_text(as_object(image.get("GraphDriver")).get("Name")),
    )


def _state(value: object) -> ContainerState:
    state = as_object(value)
    running = state.get("Running")
    return ContainerState(
        as_text(state.get("Status")) or None,
        running if isinstance(running, bool) else None,
        state.get("StartedAt"),
        state.get("FinishedAt"),
    )


def _descriptor(value: object) -> Descriptor | None:
    found = as_object(value)
    return Descriptor(as_text(found.get("digest")), as_text(found.get("mediaType"))) if found else None


def _any_text(value: object) -> str:
    """Return ``value`` of any type as text, so that a remark can show a value that is no digest."""
    return as_text(value) if value is None or isinstance(value, str) else str(value)
