"""containerd's own records: ``ctr container info``, ``nerdctl inspect --mode=native``.

containerd keeps the name of a container's image, which can move, and no digest. A container of Kubernetes has
the CRI's own record beside it, with the digest of the image's config.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable, Iterator
from typing import ClassVar, Final

import msgspec

from digestry.inventory.formats.container_labels import NO_LABELS, ContainerLabels
from digestry.inventory.formats.cri import cri_image
from digestry.inventory.formats.cri_documents import SANDBOX, ContainerConfig, config_image
from digestry.inventory.formats.cri_images import CONTAINERD
from digestry.inventory.formats.declared_images import state_and_remarks
from digestry.inventory.formats.docker import NAME_CAN_MOVE, named_only
from digestry.inventory.formats.json_documents import Input
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.rows import DeferredImage, Fields, Item, Reading, Row
from digestry.inventory.formats.single_entries import EntryFormat
from digestry.inventory.observation import Unseen
from digestry.model.json_types import prepared
from digestry.model.json_values import JsonObject, as_object, as_text
from digestry.model.text import number_of

CRI_RECORD: Final = "io.cri-containerd.container.metadata"
"""The extension of a container in which the CRI plugin keeps its own record of it."""

_NO_STATE: Final = "containerd's record of a container does not say whether it runs"
_HEADINGS: Final = re.compile(r"CONTAINER +IMAGE +RUNTIME\s*")
_COLUMNS: Final = 3


class _Container(msgspec.Struct, rename="pascal"):
    id: str = msgspec.field(name="ID")
    image: str = ""
    labels: ContainerLabels | None = None
    extensions: JsonObject | None = None
    process: JsonObject | None = None
    """The state of the container's process, which ``nerdctl inspect --mode=native`` adds."""


class RecordMetadata(msgspec.Struct):
    """The image in the CRI plugin's record of a container."""

    image_ref: str = msgspec.field(default="", name="ImageRef")
    config: ContainerConfig | None = msgspec.field(default=None, name="Config")


class _Record(msgspec.Struct):
    """The CRI plugin's record of a container, in an extension of it."""

    metadata: RecordMetadata | None = msgspec.field(default=None, name="Metadata")


class Containerd(EntryFormat[_Container]):
    title: ClassVar[str] = "`ctr container info`"
    usable: ClassVar[str] = "containers with an ID and an Image"
    reads: ClassVar[frozenset[str]] = frozenset()
    entry = _Container

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return "ID" in fields and "Image" in fields and ("Snapshotter" in fields or "SnapshotKey" in fields)

    def read_entry(self, entry: _Container, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        word = as_text(as_object(as_object(entry.process).get("Status")).get("Status"))
        state, unclear = state_and_remarks(word) if word else ("runs", (_NO_STATE,))
        if self._reading.left_out(runs=state != "ended"):
            return ()
        labels = entry.labels or NO_LABELS
        record = _record(entry.extensions or {})
        image: DeferredImage
        if labels.is_sandbox:
            image = named_only(self._reading, entry.image, NAME_CAN_MOVE, SANDBOX)
        elif record is not None and record.image_ref:
            image = cri_image(
                self._reading,
                config_image(record.config).typed,
                entry.image,
                *unclear,
                image_ref=record.image_ref,
                runtime=CONTAINERD,
            )
        else:
            image = named_only(self._reading, entry.image, NAME_CAN_MOVE, *unclear)
        namespace = labels.pod_namespace or labels.nerdctl_namespace
        return (self.row(place, image, namespace=namespace, name=labels.containerd_name, identity=entry.id),)


def _record(extensions: JsonObject) -> RecordMetadata | None:
    """Return the CRI plugin's own record of a container, or None if there is none that can be read."""
    extension = extensions.get(CRI_RECORD)
    value = extension.get("value", extension.get("Value")) if isinstance(extension, dict) else None
    if not isinstance(value, str):
        return None
    try:
        return read_record(b64decode(value, validate=True))
    except ValueError:
        return None


def read_record(content: bytes) -> RecordMetadata | None:
    """Return the CRI plugin's record that ``content`` is, or None if it cannot be read."""
    try:
        return msgspec.json.decode(content, type=prepared(_Record)).metadata
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None


def is_table(first: str) -> bool:
    """Return whether ``first`` is the line of headings that ``ctr containers ls`` prints."""
    return _HEADINGS.fullmatch(first) is not None


def read_table(source: Input, reading: Reading) -> Iterator[Row | Unseen]:
    """Yield the containers that ``ctr containers ls`` prints, one a line: ID, image's name and runtime."""
    while line := source.line():
        cells = line.decode().split()
        if len(cells) == _COLUMNS:
            image = "" if cells[1] == "-" else cells[1]
            yield Row("", "", "", cells[0], named_only(reading, image, NAME_CAN_MOVE, _NO_STATE))
        elif cells:
            yield reading.problem(
                f"line {source.number}: {number_of(len(cells), 'column')} where there should be {_COLUMNS}"
            )
