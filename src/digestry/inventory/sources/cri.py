"""A runtime by its CRI, on its socket: containerd, CRI-O, cri-dockerd; what the kubelet itself asks.

The services are ``runtime.v1``, or ``runtime.v1alpha2`` of older runtimes, whose messages have the
same fields where they are read here; field numbers are those of ``k8s.io/cri-api``. The CRI does not
list sandboxes among the containers.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import msgspec

from digestry.errors import DigestryError, RemoteNotFound
from digestry.inventory.engine_values import digest_of, platform_of
from digestry.inventory.engines.grpc import Channel, Unimplemented
from digestry.inventory.engines.protobuf import Message, integer, nested, string
from digestry.inventory.formats.cri_images import CONTAINERD, CRI_O, read_cri_image
from digestry.inventory.observation import ContainerObservation, Observation, Unseen, now
from digestry.model.digest import Digest, shown
from digestry.model.platform import Platform

_VERSIONS: Final = ("v1", "v1alpha2")
_CREATED, _RUNNING, _EXITED = 0, 1, 2
_POD: Final = "io.kubernetes.pod.name"
_POD_NAMESPACE: Final = "io.kubernetes.pod.namespace"
_POD_CONTAINER: Final = "io.kubernetes.container.name"
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


class _ConfigImage(msgspec.Struct):
    image: str = ""
    typed: str = msgspec.field(default="", name="user_specified_image")


class _Config(msgspec.Struct):
    image: _ConfigImage | None = None


class _ContainerInfo(msgspec.Struct):
    config: _Config | None = None


class _ImageSpec(msgspec.Struct):
    architecture: str = ""
    os: str = ""
    variant: str = ""


class _ImageInfo(msgspec.Struct):
    spec: _ImageSpec | None = msgspec.field(default=None, name="imageSpec")


@dataclass(frozen=True, slots=True)
class _Container:
    """What the list, or the status, of a container has. ``typed`` is the name that it was started by."""

    id: str
    name: str
    labels: dict[str, str]
    image: str
    typed: str
    image_ref: str
    image_id: str
    state: int


@dataclass(frozen=True, slots=True)
class _Image:
    names: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    platform: Platform | None = None


class Runtime:
    """A CRI runtime. Every method raises what :meth:`Channel.unary` raises."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.url = channel.url
        self._version = _VERSIONS[0]

    def close(self) -> None:
        self._channel.close()

    def name(self) -> str:
        """The runtime's own name: ``containerd``, ``cri-o``. Finds out which version it speaks, too."""
        for version in _VERSIONS:
            self._version = version
            try:
                return Message(self._ask("RuntimeService/Version", string(1, version))).text(2)
            except Unimplemented:
                continue
        raise Unimplemented(
            f"{self.url} does not serve the CRI",
            status=501,
            hint="is it containerd with its cri plugin disabled? --source containerd asks containerd itself",
        )

    def containers(self) -> list[_Container]:
        answer = Message(self._ask("RuntimeService/ListContainers"))
        return [_container(one, _LISTED) for one in answer.messages(1)]

    def container(self, identity: str) -> _Container:
        wanted = string(1, identity) + integer(2, 1)
        answer = Message(self._ask("RuntimeService/ContainerStatus", wanted))
        one = _container(answer.message(1), _STATUS)
        return replace(one, typed=_typed(answer.labels(2).get("info", "")) or one.typed)

    def image(self, reference: str) -> _Image:
        wanted = nested(1, string(1, reference)) + integer(2, 1)
        answer = Message(self._ask("ImageService/ImageStatus", wanted))
        image = answer.message(1)
        if not image.text(1):
            raise RemoteNotFound(f"{self.url} has no image {reference}", status=404)
        return _Image(image.texts(2), image.texts(3), _platform(answer.labels(2).get("info", "")))

    def _ask(self, method: str, message: bytes = b"") -> bytes:
        return self._channel.unary(f"/runtime.{self._version}.{method}", message)


def _container(one: Message, numbers: _Numbers) -> _Container:
    spec = one.message(numbers.image)
    return _Container(
        one.text(1),
        one.message(numbers.metadata).text(1),
        dict(one.labels(numbers.labels)),
        spec.text(1),
        spec.text(18),
        one.text(numbers.image_ref),
        one.text(numbers.image_id),
        one.number(numbers.state),
    )


def _typed(info: str) -> str:
    """The name that a container was started by, in what containerd adds; "" if it is not there."""
    try:
        read = msgspec.json.decode(info, type=_ContainerInfo)
    except (ValueError, RecursionError):
        return ""
    spec = read.config.image if read.config and read.config.image else _ConfigImage()
    # A kubelet gives an ID as the image, and the name beside it.
    return next((one for one in (spec.typed, spec.image) if one and digest_of(one) is None), "")


def _platform(info: str) -> Platform | None:
    try:
        spec = msgspec.json.decode(info, type=_ImageInfo).spec
    except (ValueError, RecursionError):
        return None
    return None if spec is None else platform_of(spec.architecture, spec.os, spec.variant)


class CriSource:
    """The containers of one runtime: those that run, or, with ``include_stopped``, all."""

    def __init__(self, name: str, runtime: Runtime, *, include_stopped: bool = False) -> None:
        self._name = name
        self._runtime = runtime
        self._include_stopped = include_stopped
        self._host = socket.gethostname()

    @property
    def name(self) -> str:
        return self._name

    def observe(self) -> Iterator[Observation]:
        with contextlib.closing(self._runtime):
            yield from self._observe()

    def _observe(self) -> Iterator[Observation]:
        try:
            name = self._runtime.name()
            listed = self._runtime.containers()
        except DigestryError as error:
            yield Unseen(self._name, error.message, error.hint)
            return
        kind = _RUNTIMES.get(name, "")
        images: dict[str, _Image | DigestryError] = {}
        gone = []
        for one in listed:
            if not self._is_wanted(one):
                continue
            if not one.id:
                yield Unseen(self._name, f"{self._runtime.url}: the list has a container without an ID")
                continue
            found = self._container(one, kind, images)
            if found is not None:
                yield found
            else:
                gone.append(one)
        if gone:
            try:
                there = {one.id for one in self._runtime.containers() if self._is_wanted(one)}
            except DigestryError as error:
                yield Unseen(self._name, error.message, error.hint)
                return
            for one in gone:
                found = self._container(one, kind, images, is_shown=False) if one.id in there else None
                if found is not None:
                    yield found

    def _is_wanted(self, one: _Container) -> bool:
        return self._include_stopped or one.state not in {_CREATED, _EXITED}

    def _container(
        self,
        listed: _Container,
        kind: str,
        images: dict[str, _Image | DigestryError],
        *,
        is_shown: bool = True,
    ) -> ContainerObservation | None:
        remarks: list[str] = []
        one = listed
        try:
            one = self._runtime.container(listed.id)
            if one.id != listed.id:
                remarks.append(f"the runtime shows another container in its place: {shown(one.id)}")
                one = listed
        except RemoteNotFound:
            if is_shown:
                return None  # it ended between the list and now, or so it seems
            remarks.append("the runtime lists this container, and says that it is not there")
        except DigestryError as error:
            remarks.append(f"the runtime does not show this container: {error.message}")
        if is_shown and not self._is_wanted(one):
            return None
        if one.state not in {_CREATED, _RUNNING, _EXITED}:
            remarks.append("the runtime does not know whether it runs")
        # Of containerd's, only the list has the ID alone.
        image_id = next(
            (
                text
                for text in (one.image_id, listed.image_id, listed.image_ref, one.image_ref)
                if digest_of(text) is not None
            ),
            "",
        )
        image = _Image()
        if image_id:
            answer = self._image(image_id, images)
            if isinstance(answer, RemoteNotFound):
                remarks.append("the runtime no longer has the image that this container runs")
            elif isinstance(answer, DigestryError):
                remarks.append(f"the runtime does not show this container's image: {answer.message}")
            else:
                image = answer

        def repo_digests(identity: Digest) -> tuple[str, ...]:
            return image.repo_digests

        typed = one.typed or listed.typed
        given = listed.image.removeprefix("sha256:")
        if not typed and kind == CONTAINERD and not image_id.removeprefix("sha256:").startswith(given):
            typed = listed.image  # its list has what was given, its status a name that it chose
        read = read_cri_image(
            typed,
            one.image or listed.image,
            *remarks,
            image_ref=one.image_ref or listed.image_ref,
            image_id=image_id,
            runtime=kind,
            several=len(image.names) > 1,
            platform=image.platform,
            repo_digests=repo_digests,
        )
        labels = one.labels or listed.labels
        name = labels.get(_POD_CONTAINER) or one.name or listed.name
        return ContainerObservation(
            source=self._name,
            host=self._host,
            namespace=labels.get(_POD_NAMESPACE, ""),
            name=f"{labels[_POD]}/{name}" if labels.get(_POD) else name or listed.id,
            id=listed.id,
            image=read.facts,
            seen_at=now(),
            remarks=read.remarks,
        )

    def _image(self, identity: str, images: dict[str, _Image | DigestryError]) -> _Image | DigestryError:
        if identity not in images:
            try:
                images[identity] = self._runtime.image(identity)
            except DigestryError as error:
                images[identity] = error
        return images[identity]
