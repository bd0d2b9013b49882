"""containerd's API: containers, tasks, snapshots, images and content.

The services are ``containerd.services.….v1``, the same from 1.2 to 2.x; field numbers are those of
containerd's ``api/services``. Everything but the list of namespaces belongs to one namespace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from digestry.errors import RemoteNotFound, TooLarge
from digestry.inventory.engines.client import Waiting
from digestry.inventory.engines.grpc import Channel, Metadata
from digestry.inventory.engines.protobuf import Message, encode_string
from digestry.model.digest import Digest

LARGEST_DOCUMENT: Final = 8 << 20
"""In bytes: of a manifest, an index or a config that is read."""
SNAPSHOT_LABEL: Final = "containerd.io/gc.ref.snapshot."
SOURCE_LABEL: Final = "containerd.io/distribution.source."

_SERVICES: Final = "/containerd.services"
_RUNNING: Final = frozenset({2, 4, 5})  # running, paused, pausing
_AT_REST: Final = frozenset({1, 3})  # created, stopped


@dataclass(frozen=True, slots=True)
class Container:
    """A container's record. Times are in nanoseconds since 1970; ``spec`` is the runtime spec's JSON;
    ``extensions`` are the data of clients beside it, by name."""

    id: str
    labels: Mapping[str, str]
    image: str
    snapshotter: str
    snapshot_key: str
    created: int
    spec: bytes
    extensions: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class NamedImage:
    """The present target of an image's name. ``updated`` is when it was last set, in nanoseconds since 1970,
    perhaps to the same target as before."""

    name: str
    media_type: str
    digest: str
    updated: int


@dataclass(frozen=True, slots=True)
class Stored:
    """The properties of a stored blob: its size in bytes, when it was stored (nanoseconds since 1970), and
    its labels."""

    digest: str
    size: int
    created: int
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Process:
    """The first process of a container. ``runs`` is None where containerd does not know; ``ended`` is in
    nanoseconds since 1970, 0 if it has not."""

    container: str
    number: int
    runs: bool | None
    ended: int


@dataclass(frozen=True, slots=True)
class ContainerdEvent:
    """An event. ``at`` is in nanoseconds since 1970; what ``event`` has goes by the topic."""

    at: int
    namespace: str
    topic: str
    event: Message


class Containerd:
    """One containerd. Every method raises as :meth:`Channel.unary` does."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.url = channel.url

    def close(self) -> None:
        self._channel.close()

    def version(self) -> str:
        return Message(self._channel.unary(f"{_SERVICES}.version.v1.Version/Version")).text(1)

    def namespaces(self) -> list[str]:
        answer = self._channel.unary(f"{_SERVICES}.namespaces.v1.Namespaces/List")
        return [message.text(1) for message in Message(answer).messages(1)]

    def containers(self, namespace: str) -> Iterator[Container]:
        """Yield the containers of a namespace. Read all of them before asking anything else."""
        method = f"{_SERVICES}.containers.v1.Containers/ListStream"
        for answer in self._channel.stream(method, metadata=_of(namespace)):
            yield _container(Message(answer).message(1))

    def container(self, namespace: str, identity: str) -> Container:
        """Return one container."""
        method = f"{_SERVICES}.containers.v1.Containers/Get"
        answer = self._channel.unary(method, encode_string(1, identity), _of(namespace))
        return _container(Message(answer).message(1))

    def processes(self, namespace: str) -> list[Process]:
        """Return the first process of each container that has one, whether it runs or has ended."""
        answer = self._channel.unary(f"{_SERVICES}.tasks.v1.Tasks/List", metadata=_of(namespace))
        return [
            Process(
                message.text(2) or message.text(1),
                message.number(3),
                _runs(message),
                message.nanoseconds(10),
            )
            for message in Message(answer).messages(1)
        ]

    def events(self, topics: tuple[str, ...], wait: Waiting) -> Iterator[ContainerdEvent | bytes | None]:
        """Yield the events of ``topics`` in all namespaces, and beside them what
        :meth:`Channel.endless` does."""
        method = f"{_SERVICES}.events.v1.Events/Subscribe"
        filters = b"".join(encode_string(1, f'topic=="{topic}"') for topic in topics)
        for answer in self._channel.endless(method, filters, wait):
            if not answer:
                yield answer
                continue
            envelope = Message(answer)
            event = Message(envelope.message(4).raw(2))
            yield ContainerdEvent(envelope.nanoseconds(1), envelope.text(2), envelope.text(3), event)

    def tasks(self, namespace: str) -> dict[str, bool | None]:
        """Return whether each container with a task runs; None where containerd does not know."""
        answer = self._channel.unary(f"{_SERVICES}.tasks.v1.Tasks/List", metadata=_of(namespace))
        return {message.text(2) or message.text(1): _runs(message) for message in Message(answer).messages(1)}

    def task(self, namespace: str, identity: str) -> bool | None:
        """Return whether one container runs; None where containerd does not know."""
        method = f"{_SERVICES}.tasks.v1.Tasks/Get"
        try:
            answer = self._channel.unary(method, encode_string(1, identity), _of(namespace))
        except RemoteNotFound:
            return False
        return _runs(Message(answer).message(1))

    def images(self, namespace: str) -> dict[str, NamedImage]:
        answer = self._channel.unary(f"{_SERVICES}.images.v1.Images/List", metadata=_of(namespace))
        found = (
            NamedImage(message.text(1), target.text(1), target.text(2), message.nanoseconds(8))
            for message in Message(answer).messages(1)
            for target in (message.message(3),)
        )
        return {image.name: image for image in found}

    def parent(self, namespace: str, snapshotter: str, key: str) -> str:
        """Return the name of the parent of the snapshot ``key``; "" if there is none."""
        method = f"{_SERVICES}.snapshots.v1.Snapshots/Stat"
        answer = self._channel.unary(
            method, encode_string(1, snapshotter) + encode_string(2, key), _of(namespace)
        )
        return Message(answer).message(1).text(2)

    def stored(self, namespace: str, digest: Digest) -> Stored:
        method = f"{_SERVICES}.content.v1.Content/Info"
        answer = self._channel.unary(method, encode_string(1, str(digest)), _of(namespace))
        return _stored(Message(answer).message(1))

    def unpacked(self, namespace: str, snapshotter: str, chain: str) -> list[Stored]:
        """Return the configs that are marked as unpacked to the snapshot ``chain``."""
        method = f"{_SERVICES}.content.v1.Content/List"
        filters = encode_string(1, f'labels."{SNAPSHOT_LABEL}{snapshotter}"=="{chain}"')
        answers = list(self._channel.stream(method, filters, _of(namespace)))
        return [_stored(message) for answer in answers for message in Message(answer).messages(1)]

    def document(self, namespace: str, digest: Digest) -> bytes:
        """Return a small blob, raising :class:`RemoteNotFound` also if it does not match its digest."""
        size = self.stored(namespace, digest).size
        if size > LARGEST_DOCUMENT:
            raise TooLarge(f"{self.url}: {digest} has {size} bytes: too many", limit=LARGEST_DOCUMENT)
        method = f"{_SERVICES}.content.v1.Content/Read"
        parts = list(self._channel.stream(method, encode_string(1, str(digest)), _of(namespace)))
        content = b"".join(Message(part).raw(2) for part in parts)
        if Digest.of(content, digest.algorithm) != digest:
            raise RemoteNotFound(f"{self.url}: what is stored as {digest} is something else", status=404)
        return content


def _container(message: Message) -> Container:
    return Container(
        message.text(1),
        message.labels(2),
        message.text(3),
        message.text(6),
        message.text(7),
        message.nanoseconds(8),
        message.message(5).raw(2),
        {name: value.raw(2) for name, value in message.mapping(10).items()},
    )


def _of(namespace: str) -> Metadata:
    return (("containerd-namespace", namespace),)


def _runs(process: Message) -> bool | None:
    status = process.number(4)
    return True if status in _RUNNING else False if status in _AT_REST else None


def _stored(info: Message) -> Stored:
    return Stored(info.text(1), info.number(2), info.nanoseconds(3), info.labels(5))
