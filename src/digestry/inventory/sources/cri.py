"""The source ``cri``: a runtime by its CRI socket (containerd, CRI-O, cri-dockerd).

The services are ``runtime.v1``, or ``runtime.v1alpha2`` of older runtimes, whose messages have the
same fields where they are read here; field numbers are those of ``k8s.io/cri-api``. The CRI does not
list sandboxes among the containers.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from digestry.errors import DigestryError, RemoteNotFound
from digestry.inventory.engine_values import FIRST_START, digest_of, platform_of
from digestry.inventory.engines.client import Waiting
from digestry.inventory.engines.grpc import Channel, Unimplemented
from digestry.inventory.engines.protobuf import Message, encode_integer, encode_nested, encode_string
from digestry.inventory.formats.container_labels import NO_LABELS, read_labels
from digestry.inventory.formats.cri_documents import (
    ContainerInfo,
    CriContainer,
    ImageSpec,
    Metadata,
    config_image,
)
from digestry.inventory.formats.cri_images import CONTAINERD, CRI_O, read_cri_image
from digestry.inventory.observation import ContainerObservation, Observation, Unseen, now
from digestry.inventory.runs import of_nanoseconds
from digestry.inventory.sources.engine_answers import (
    CachedAnswers,
    observe_listed,
    show_container,
    show_image,
)
from digestry.inventory.sources.engine_source import EngineSource
from digestry.model.digest import shown
from digestry.model.json_types import prepared
from digestry.model.platform import Platform

CONTAINER_STARTED: Final = 1
"""The kind of the event of a container that has started (``CONTAINER_STARTED_EVENT``)."""
_VERSIONS: Final = ("v1", "v1alpha2")
_WHO: Final = "the runtime"
_RUNTIMES: Final = {"containerd": "containerd", "cri-o": CRI_O, "docker": "docker"}


class _Numbers(NamedTuple):
    """The numbers of the same fields in Container and in ContainerStatus."""

    metadata: int
    image: int
    image_ref: int
    state: int
    labels: int
    image_id: int


_LISTED: Final = _Numbers(metadata=3, image=4, image_ref=5, state=6, labels=8, image_id=10)
_STATUS: Final = _Numbers(metadata=2, image=8, image_ref=9, state=3, labels=12, image_id=17)


class _ImageSpec(msgspec.Struct):
    architecture: str = ""
    os: str = ""
    variant: str = ""


class _ImageInfo(msgspec.Struct):
    spec: _ImageSpec | None = msgspec.field(default=None, name="imageSpec")


@dataclass(frozen=True, slots=True)
class _Image:
    repo_digests: tuple[str, ...] = ()
    platform: Platform | None = None


class _Status(NamedTuple):
    """A container with the times of its start and its end, in nanoseconds since 1970, or 0."""

    container: CriContainer
    started: int
    ended: int


class ContainerEvent(NamedTuple):
    """What happened to a container or a sandbox, in nanoseconds since 1970; ``kind`` as
    ``ContainerEventType`` has it."""

    container: str
    kind: int
    at: int


class Runtime:
    """A CRI runtime. Every method raises as :meth:`Channel.unary` does."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.url = channel.url
        self._version = _VERSIONS[0]

    def close(self) -> None:
        self._channel.close()

    def name(self) -> str:
        """Return the runtime's own name: ``containerd``, ``cri-o``. Learns its CRI version, too."""
        return self.version()[0]

    def version(self) -> tuple[str, str]:
        """Return the runtime's own name and version. Learns its CRI version, too."""
        for version in _VERSIONS:
            self._version = version
            try:
                answer = Message(self._ask("RuntimeService/Version", encode_string(1, version)))
                return answer.text(2), answer.text(3)
            except Unimplemented:
                continue
        raise Unimplemented(
            f"{self.url} does not serve the CRI",
            status=501,
            hint="is it containerd with its cri plugin disabled? --source containerd asks containerd itself",
        )

    def events(self, wait: Waiting) -> Iterator[ContainerEvent | bytes | None]:
        """Yield what happens to containers and sandboxes, and beside it what :meth:`Channel.endless` does."""
        method = f"/runtime.{self._version}.RuntimeService/GetContainerEvents"
        for answer in self._channel.endless(method, b"", wait):
            if not answer:
                yield answer
                continue
            event = Message(answer)
            yield ContainerEvent(event.text(1), event.number(2), event.number(3))

    def containers(self, identity: str = "") -> list[CriContainer]:
        """Return all containers, or the one with this ID."""
        question = encode_nested(1, encode_string(1, identity)) if identity else b""
        answer = Message(self._ask("RuntimeService/ListContainers", question))
        return [_container(message, _LISTED) for message in answer.messages(1)]

    def container(self, identity: str) -> _Status:
        question = encode_string(1, identity) + encode_integer(2, 1)
        answer = Message(self._ask("RuntimeService/ContainerStatus", question))
        status = answer.message(1)
        container = _container(status, _STATUS)
        typed = _typed(answer.labels(2).get("info", ""))
        if typed:
            container.image = ImageSpec((container.image or ImageSpec()).image, typed)
        return _Status(container, status.number(5), status.number(6))

    def image(self, reference: str) -> _Image:
        question = encode_nested(1, encode_string(1, reference)) + encode_integer(2, 1)
        answer = Message(self._ask("ImageService/ImageStatus", question))
        image = answer.message(1)
        if not image.text(1):
            raise RemoteNotFound(f"{self.url} has no image {reference}", status=404)
        return _Image(image.texts(3), _platform(answer.labels(2).get("info", "")))

    def _ask(self, method: str, message: bytes = b"") -> bytes:
        return self._channel.unary(f"/runtime.{self._version}.{method}", message)


def _container(message: Message, numbers: _Numbers) -> CriContainer:
    spec = message.message(numbers.image)
    return CriContainer(
        id=message.text(1),
        metadata=Metadata(message.message(numbers.metadata).text(1)),
        image=ImageSpec(spec.text(1), spec.text(18)),
        image_ref=message.text(numbers.image_ref),
        image_id=message.text(numbers.image_id),
        state=message.number(numbers.state),
        labels=read_labels(labels) if (labels := message.labels(numbers.labels)) else None,
    )


def _typed(info: str) -> str:
    """Return the name that a container was started by, from containerd's additions; "" if it is missing."""
    try:
        read = msgspec.json.decode(info, type=prepared(ContainerInfo))
    except (ValueError, RecursionError):
        return ""
    spec = config_image(read.config)
    # A kubelet gives an ID as the image, and the name beside it.
    return next((name for name in (spec.typed, spec.image) if name and digest_of(name) is None), "")


def _platform(info: str) -> Platform | None:
    try:
        spec = msgspec.json.decode(info, type=prepared(_ImageInfo)).spec
    except (ValueError, RecursionError):
        return None
    return None if spec is None else platform_of(spec.architecture, spec.os, spec.variant)


class CriSource(EngineSource):
    """The containers of one runtime: those that run, or, with ``include_stopped``, all."""

    def __init__(self, name: str, runtime: Runtime, *, include_stopped: bool = False) -> None:
        super().__init__(name, runtime, include_stopped=include_stopped)
        self._runtime = runtime
        self._host = socket.gethostname()

    def _observe(self) -> Iterator[Observation]:
        try:
            name = self._runtime.name()
            listed = self._runtime.containers()
        except DigestryError as error:
            yield self._unseen(error)
            return
        kind = _RUNTIMES.get(name, "")
        images = CachedAnswers(self._runtime.image)

        def observe(entry: CriContainer, still_listed: bool) -> Observation | None:
            return self._container(entry, kind, images, still_listed=still_listed)

        def list_again() -> Iterator[CriContainer]:
            return filter(self._is_reported, self._runtime.containers())

        yield from observe_listed(self._name, list(filter(self._is_reported, listed)), observe, list_again)

    def one(self, identity: str) -> ContainerObservation | None:
        """Return one container, whether it runs or has ended; None if there is none, or it is a sandbox.

        Raises as :meth:`Channel.unary` does.
        """
        listed = [entry for entry in self._runtime.containers(identity) if entry.id == identity]
        if not listed:
            return None
        kind = _RUNTIMES.get(self._runtime.name(), "")
        images = CachedAnswers(self._runtime.image)
        seen = self._container(listed[0], kind, images, still_listed=True)
        return seen if isinstance(seen, ContainerObservation) else None

    def _is_reported(self, container: CriContainer) -> bool:
        return self._include_stopped or container.runs

    def _container(
        self, listed: CriContainer, kind: str, images: CachedAnswers[_Image], *, still_listed: bool
    ) -> Observation | None:
        if not listed.id:
            return Unseen(self._name, f"{self._runtime.url}: the list has a container without an ID")
        remarks: list[str] = []
        try:
            status = show_container(
                lambda: self._runtime.container(listed.id), _WHO, remarks, still_listed=still_listed
            )
        except RemoteNotFound:
            return None
        if status is not None and status.container.id != listed.id:
            remarks.append(f"the runtime shows another container in its place: {shown(status.container.id)}")
            status = None
        container = listed if status is None else _completed(status.container, listed)
        started = 0 if status is None else status.started
        ended = 0 if status is None else status.ended
        if not still_listed and not self._is_reported(container):
            return None
        if not container.has_known_state:
            remarks.append("the runtime does not know whether it runs")
        image_id = _image_id(container, listed)
        image = (show_image(lambda: images.get(image_id), _WHO, remarks) if image_id else None) or _Image()
        read = read_cri_image(
            _typed_name(container, listed, kind, image_id),
            container.image.image if container.image else "",
            *remarks,
            image_ref=container.image_ref or "",
            image_id=image_id,
            runtime=kind,
            platform=image.platform,
            repo_digests=lambda _: image.repo_digests,
        )
        return ContainerObservation(
            source=self._name,
            host=self._host,
            namespace=container.namespace,
            name=container.name or listed.id,
            id=listed.id,
            image=read.facts,
            seen_at=now(),
            remarks=read.remarks,
            workload=(container.labels or NO_LABELS).workload,
            started_at=of_nanoseconds(started) if started > 0 else None,
            ended_at=of_nanoseconds(ended) if ended > 0 else None,
            instance=FIRST_START,  # a container of the CRI is started once
        )


def _completed(status: CriContainer, listed: CriContainer) -> CriContainer:
    """Return the status of a container, completed by fields that only the list has."""
    own, other = status.image or ImageSpec(), listed.image or ImageSpec()
    has_name = status.metadata is not None and bool(status.metadata.name)
    return CriContainer(
        id=status.id,
        metadata=status.metadata if has_name else listed.metadata,
        image=ImageSpec(own.image or other.image, own.typed or other.typed),
        image_ref=status.image_ref or listed.image_ref,
        image_id=status.image_id,
        state=status.state,
        labels=status.labels or listed.labels,
    )


def _image_id(container: CriContainer, listed: CriContainer) -> str:
    """Return the ID of a container's image, or "" if the runtime gives none."""
    # Of containerd's, only the list has the ID alone.
    found = (container.image_id, listed.image_id, listed.image_ref, container.image_ref)
    return next((text for text in found if text and digest_of(text) is not None), "")


def _typed_name(container: CriContainer, listed: CriContainer, kind: str, image_id: str) -> str:
    """Return the name that a container was started by, or "" if it is not known."""
    if container.image is not None and container.image.typed:
        return container.image.typed
    given = listed.image.image if listed.image else ""
    is_id = image_id.removeprefix("sha256:").startswith(given.removeprefix("sha256:"))
    # containerd's list has the given name, its status a name that it chose.
    return given if kind == CONTAINERD and not is_id else ""
