"""A file of ``docker save`` as a source of copies, from any version of docker or podman.

New versions write an OCI layout, whose digests stay. Older ones write a config and plain layers, and no
manifest: one is made from them, with the layers compressed, the same each time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import msgspec

from digestry.blobs.verify import Verifier
from digestry.copy.archive import DOCKER_MANIFEST_FILE
from digestry.copy.compressed_layers import CompressedLayers
from digestry.copy.file_tree import ArchiveTree, read
from digestry.copy.layout import FileContent, LayoutSource
from digestry.copy.protocols import BlobContent
from digestry.errors import Ambiguous, ContentError, InvalidManifest, InvalidReference, NotFound
from digestry.fsio import storage_errors
from digestry.images.layout import INDEX_FILE
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest, shown
from digestry.model.image_config import ImageConfig
from digestry.model.json_types import prepared
from digestry.model.manifest import Image, Index, Manifest, encode, parse_manifest
from digestry.model.reference import Reference

_LARGEST_LIST: Final = 16 << 20
_LARGEST_CONFIG: Final = 16 << 20
_CHUNK: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_LISTED: Final = 10


class _SavedImage(msgspec.Struct, frozen=True):
    config: Annotated[str, msgspec.Meta(max_length=4096)] = msgspec.field(name="Config")
    tags: tuple[str, ...] | None = msgspec.field(name="RepoTags", default=None)
    layers: tuple[str, ...] | None = msgspec.field(name="Layers", default=None)


def open_docker_archive(
    tree: ArchiveTree, description: str, *, scratch: Path | None = None
) -> LayoutSource | DockerArchiveSource:
    """Return the images of an archive; layers are compressed in the directory ``scratch``.

    Raises :class:`ContentError` if ``docker save`` wrote none such.
    """
    if tree.size(INDEX_FILE) is not None:
        layout = LayoutSource(tree, description)
        if layout.is_whole():
            return layout
    return DockerArchiveSource(tree, description, scratch)


class DockerArchiveSource:
    """The images of an archive that has no manifests."""

    repository: Final = None
    is_far: Final = False
    remark: Final = "it has no manifest: one is made, of its config and its layers, which are compressed"

    def __init__(self, tree: ArchiveTree, description: str, scratch: Path | None = None) -> None:
        self._tree = tree
        self._compressed = CompressedLayers(scratch)
        self._layers: dict[Digest, Descriptor] = {}
        self._lock = threading.Lock()
        self.description = description
        try:
            raw = read(tree, DOCKER_MANIFEST_FILE, _LARGEST_LIST)
        except NotFound as error:
            raise ContentError(
                f"{tree.path} is not a file of `docker save`: it has no {DOCKER_MANIFEST_FILE}",
                hint="write oci-archive:FILE for an OCI layout in a tar file",
            ) from error
        try:
            self._images = msgspec.json.decode(raw, type=prepared(tuple[_SavedImage, ...]))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ContentError(f"{DOCKER_MANIFEST_FILE} of {tree.path} cannot be read: {error}") from error
        self._files: dict[Digest, str] = {}
        self._configs: dict[Digest, bytes] = {}
        self._manifests: dict[Digest, Manifest] = {}
        self._made: dict[str, Manifest] = {}

    def names(self) -> Iterable[str]:
        return [_full(tag) for image in self._images for tag in image.tags or ()]

    def resolve(self, name: str | None, *, read: bool = False) -> Descriptor:
        """Return the descriptor of ``name``; None is the only image. Raises :class:`Ambiguous` too."""
        if name is None:
            if len(self._images) > 1:
                listed = ", ".join(list(self.names())[:_LISTED])
                raise Ambiguous(
                    f"{self.description} has {len(self._images)} images: {listed}", hint="add :REPO:TAG"
                )
            if not self._images:
                raise NotFound(f"{self.description} has no image")
            return self._manifest_of(self._images[0]).descriptor()
        for image in self._images:
            if any(_full(tag) == name for tag in image.tags or ()):
                return self._manifest_of(image).descriptor()
            if name.startswith("sha256:"):
                manifest = self._manifest_of(image)
                if str(manifest.digest) == name or (manifest.config and str(manifest.config.digest) == name):
                    return manifest.descriptor()
        raise NotFound(
            f"{self.description} has no image {name}",
            hint=f"it has {', '.join(list(self.names())[:_LISTED]) or 'images without names'}",
        )

    def _manifest_of(self, image: _SavedImage) -> Manifest:
        with self._lock:
            known = self._made.get(image.config)
            if known is None:
                known = self._made[image.config] = self._make(image)
                self._manifests[known.digest] = known
            return known

    def _make(self, image: _SavedImage) -> Manifest:
        raw = read(self._tree, image.config, _LARGEST_CONFIG)
        try:
            config = ImageConfig.parse(raw)
        except InvalidManifest as error:
            raise ContentError(f"{shown(image.config)} of {self._tree.path}: {error.message}") from error
        layers = image.layers or ()
        if len(config.diff_ids) != len(layers):
            raise ContentError(
                f"{self._tree.path} has {len(layers)} layers for {config.digest}, whose config lists"
                f" {len(config.diff_ids)}"
            )
        self._configs[config.digest] = raw
        self._files[config.digest] = image.config
        described = [
            self._layer(name, diff_id) for name, diff_id in zip(layers, config.diff_ids, strict=True)
        ]
        document = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": Descriptor(media_types.OCI_CONFIG, config.digest, len(raw)),
            "layers": described,
        }
        return parse_manifest(encode(document), media_types.OCI_MANIFEST)

    def _layer(self, name: str, diff_id: Digest) -> Descriptor:
        known = self._layers.get(diff_id)
        if known is not None:
            return known
        with self._tree.open(name) as file, storage_errors("read", self._tree.path):
            beginning = file.read(4)
        with self._tree.open(name) as file, storage_errors("read", self._tree.path):
            if beginning.startswith(_GZIP) or beginning == _ZSTD:
                kind = media_types.OCI_LAYER_ZSTD if beginning == _ZSTD else media_types.OCI_LAYER_GZIP
                hasher = diff_id.hasher()
                size = 0
                while chunk := file.read(_CHUNK):
                    hasher.update(chunk)
                    size += len(chunk)
                found = Descriptor(kind, Digest(diff_id.algorithm, hasher.hexdigest()), size)
                self._files[found.digest] = name
            else:
                found = self._compressed.add(file, self._tree.size(name) or 0, diff_id)
        self._layers[diff_id] = found
        return found

    def manifest(self, descriptor: Descriptor) -> Image | Index:
        found = self._manifests.get(descriptor.digest)
        if not isinstance(found, Image):
            raise NotFound(f"{self.description} has no manifest {descriptor.digest}")
        return found

    def read_blob(self, descriptor: Descriptor) -> bytes:
        known = self._configs.get(descriptor.digest)
        if known is not None:
            return known
        raw = read(self._tree, self._file(descriptor), _LARGEST_CONFIG)
        verifier = Verifier(descriptor.digest, descriptor.size)
        verifier.update(raw)
        verifier.finish()
        return raw

    def _file(self, descriptor: Descriptor) -> str:
        found = self._files.get(descriptor.digest)
        if found is None:
            raise NotFound(f"{self.description} has no blob {descriptor.digest}")
        return found

    def blob(self, descriptor: Descriptor) -> BlobContent:
        if self._compressed.size(str(descriptor.digest)) is not None:
            return FileContent(self._compressed, str(descriptor.digest), descriptor)
        return FileContent(self._tree, self._file(descriptor), descriptor)

    def referrers(self, digest: Digest) -> list[Descriptor]:
        """Return nothing: such an archive has images alone."""
        return []

    def attached_names(self, digest: Digest) -> list[str]:
        """Return nothing, as above."""
        return []

    def close(self) -> None:
        self._compressed.close()
        self._tree.close()


def _full(tag: str) -> str:
    """Return a name as ``docker save`` writes it, in full."""
    try:
        return str(Reference.parse(tag).or_latest())
    except InvalidReference:
        return tag  # of a tool with names of its own
