"""What registries, stores and builds say about images: it names digests, and nothing that runs.

Without this, an object such as ``{"digest": …, "tags": […]}`` would be one of an inventory, which has a
digest for a container.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from digestry.errors import InvalidConfiguration
from digestry.inventory.formats.columns import is_state
from digestry.inventory.formats.declared_images import ObjectFormat
from digestry.inventory.formats.digest_columns import plain
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.rows import Fields, Item
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject

_OF_CONTENT: Final = {
    # OCI descriptors; what oras, skopeo and `digestry images`, `tags`, `referrers`, `history` print
    "mediatype", "artifacttype", "referenceastags", "layers", "layersdata", "diffid", "repotags",
    # Harbor, GitLab's, Azure's, Amazon's and Google's registries
    "shortrevision", "totalsize",
    "manifestmediatype", "configmediatype", "artifactmediatype", "imagemanifest", "imagepushedat", "pushtime",
    "registryid",
    # what builds write
    "containerimagedigest", "newtag", "newname", "newimage",
    # `digestry whose`, `digestry advisory list`, scanners
    "still", "statedat", "analysisstatus", "imagedetail",
}  # fmt: skip
_OF_SCANS: Final = {"vulnerability", "vulnerabilities", "vulns"}
_OF_LISTS: Final = {"tags", "imagetags"}
"""Keys that an inventory may have too, beside the name of a container or of its image."""
_OF_STORES: Final = {"size", "virtualsize", "createdsince"}
_OF_CONTAINERS: Final = {
    "host", "hostname", "node", "nodename", "server", "machine", "namespace", "pod", "podname",
    "container", "containername", "containerid", "containers",
}  # fmt: skip
_NAMES: Final = {"name", "names", "reference", "image", "imagename", "imagereference"}
_BUILDAH: Final = {"builder", "containername", "imagename"}
"""A working container, in which nothing runs."""
_LS: Final = {"repository", "registry", "name"}
_RUNS: Final = "audit what runs: --source kubernetes, docker, podman, or what they print"
_MOST: Final = 3


def image_marks(fields: Iterable[str]) -> list[str]:
    """Return the keys or headings that describe an image; none if they may describe a container."""
    names = {key: plain(key) for key in fields}
    if set(names.values()) >= _BUILDAH:
        return ["builder"]
    if not _OF_CONTAINERS.isdisjoint(names.values()):
        return []
    marks = [key for key, name in names.items() if name in _OF_CONTENT]
    if not any(map(is_state, names)):
        marks += [key for key, name in names.items() if name in _OF_SCANS]
        if _NAMES.isdisjoint(names.values()):
            marks += [key for key, name in names.items() if name in _OF_LISTS]
            if "repository" in names.values():
                # `podman artifact ls`, and other lists of what a store holds.
                marks += [key for key, name in names.items() if name in _OF_STORES]
    return marks or (sorted(names) if set(names) == _LS else [])


def no_container(marks: Iterable[str]) -> InvalidConfiguration:
    """Return the refusal of what :func:`image_marks` recognised."""
    named = ", ".join(map(shown, list(marks)[:_MOST]))
    return InvalidConfiguration(
        f"it describes an image ({named}), which does not show that it runs anywhere", hint=_RUNS
    )


class ImageListing(ObjectFormat):
    """An image of a registry, a store or a build: it names no container, and is refused."""

    title: ClassVar[str] = "a list of images"
    usable: ClassVar[str] = "containers: that an image is stored somewhere does not show that it runs"
    whole: ClassVar[bool] = True

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return bool(image_marks(fields))

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        marks = image_marks(fields)
        if not self._reading.first("listing", *marks):
            return ()
        raise no_container(marks)
