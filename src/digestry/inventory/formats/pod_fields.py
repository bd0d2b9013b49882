"""The fields of a pod that are read, of the many that it has.

The rest is passed over without being decoded. A pod in which one of these fields is of another type
than Kubernetes has it is decoded as it is, so that only that field of it is lost.
"""

from __future__ import annotations

from typing import Annotated, Final, TypedDict

import msgspec

from digestry.model.json_types import prepared
from digestry.model.json_values import JsonObject

_Selector = TypedDict("_Selector", {"kubernetes.io/arch": str, "kubernetes.io/os": str}, total=False)


class _Name(TypedDict, total=False):
    name: str


class _Owner(TypedDict, total=False):
    kind: str
    name: str
    controller: bool


_Labels = TypedDict("_Labels", {"pod-template-hash": str}, total=False)


class _Unnamed(TypedDict, total=False):
    namespace: str
    uid: str
    labels: _Labels
    ownerReferences: list[_Owner]


class _Metadata(_Unnamed):
    name: Annotated[str, msgspec.Meta(min_length=1)]


class _Container(TypedDict, total=False):
    name: str
    image: str


class _Volume(TypedDict, total=False):
    name: str
    image: JsonObject


class _Spec(TypedDict, total=False):
    nodeName: str
    nodeSelector: _Selector
    os: _Name
    initContainers: list[_Container]
    containers: list[_Container]
    ephemeralContainers: list[_Container]
    volumes: list[_Volume]


class _Running(TypedDict, total=False):
    startedAt: str


class _Ended(TypedDict, total=False):
    reason: str
    startedAt: str
    finishedAt: str


class _Waiting(TypedDict, total=False):
    reason: str
    message: str


class _State(TypedDict, total=False):
    running: _Running
    terminated: _Ended
    waiting: _Waiting


class _Mounted(TypedDict, total=False):
    imageRef: str


class _VolumeStatus(TypedDict, total=False):
    image: _Mounted


class _Mount(TypedDict, total=False):
    name: str
    volumeStatus: _VolumeStatus


class _ContainerStatus(TypedDict, total=False):
    name: str
    image: str
    imageID: str
    containerID: str
    state: _State
    volumeMounts: list[_Mount]


class _Condition(TypedDict, total=False):
    type: str
    status: str
    reason: str


class _Status(TypedDict, total=False):
    phase: str
    reason: str
    conditions: list[_Condition]
    initContainerStatuses: list[_ContainerStatus]
    containerStatuses: list[_ContainerStatus]
    ephemeralContainerStatuses: list[_ContainerStatus]


class _Parts(TypedDict, total=False):
    spec: _Spec
    status: _Status


class _Pod(_Parts):
    """The fields that :mod:`~digestry.inventory.formats.pods` reads: every further one must be added here."""

    metadata: _Metadata


_pods: Final = msgspec.json.Decoder(prepared(_Pod))
_objects: Final = msgspec.json.Decoder(JsonObject)


def decode_pod(raw: bytes | msgspec.Raw) -> JsonObject:
    """Return a pod with those fields alone that are looked at. Raises msgspec's errors."""
    try:
        return dict(_pods.decode(raw))
    except msgspec.ValidationError:
        return _objects.decode(raw)
