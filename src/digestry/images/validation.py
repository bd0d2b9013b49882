"""The validation of an image: every byte that it is made of is read and checked, and so is its structure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import BinaryIO, Final, Protocol, cast

from digestry.blobs.bounded_read import SMALL
from digestry.blobs.verify import Verifier
from digestry.client.repository import Repository
from digestry.errors import (
    ContentError,
    InvalidManifest,
    NotFound,
    ProtocolViolation,
    RemoteNotFound,
    TooLarge,
)
from digestry.images.chunk_file import ChunkFile
from digestry.images.layer_stream import LayerStream
from digestry.images.store import ImageStore
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.image_config import ImageConfig
from digestry.model.manifest import DEEPEST, MOST_MANIFESTS, Image, Index

_CHUNK: Final = 1 << 20
_FREE: Final = 4 << 30
_RATIO: Final = 250
"""Bytes that may come of each byte of a layer, beyond ``_FREE``."""
_ABOUT_CONTENT: Final = (ContentError, NotFound, RemoteNotFound, ProtocolViolation, InvalidManifest, TooLarge)
"""The errors of an image itself, not of the connection to it."""
_LAYERS: Final = frozenset({
    media_types.OCI_LAYER,
    media_types.OCI_LAYER_GZIP,
    media_types.OCI_LAYER_ZSTD,
    media_types.DOCKER_LAYER,
    media_types.DOCKER_LAYER_GZIP,
    media_types.DOCKER_LAYER_ZSTD,
})  # fmt: skip
"""Layers that can be inflated, so that their ``diff_ids`` can be checked."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error of ``digest``, which is a part (``index``, ``manifest``, ``config``, ``layer``)."""

    digest: Digest
    part: str
    message: str


@dataclass(frozen=True, slots=True)
class NotChecked:
    """Content that was not read, and the reason."""

    digest: Digest
    reason: str


@dataclass(slots=True)
class Validation:
    """The result of a validation: what was read, and the errors. It is valid if ``problems`` is empty.

    ``bytes`` are those that were read. ``not_checked`` are the parts that could not be read.
    """

    digest: Digest
    manifests: int = 0
    blobs: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    not_checked: list[NotChecked] = field(default_factory=list)


class ImageContent(Protocol):
    """A place where an image's content is: a repository, or the local store."""

    def manifest(self, descriptor: Descriptor) -> Image | Index:
        """Return a manifest, verified. Raises an error about the content, or about the way to it."""
        ...

    def is_absent(self, descriptor: Descriptor) -> str:
        """Return why an entry of an index need not be here; empty if it must be."""
        ...

    def open(self, descriptor: Descriptor) -> AbstractContextManager[BinaryIO]:
        """Open a blob. Its bytes are not verified yet."""
        ...


class StoredContent:
    """The content of the local store."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    def manifest(self, descriptor: Descriptor) -> Image | Index:
        return self._store.manifest(descriptor)

    def is_absent(self, descriptor: Descriptor) -> str:
        return "" if self._store.blobs.stat(descriptor.digest) is not None else "it was not pulled"

    def open(self, descriptor: Descriptor) -> AbstractContextManager[BinaryIO]:
        return self._store.blobs.open(descriptor.digest)


class RemoteContent:
    """The content of a repository."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def manifest(self, descriptor: Descriptor) -> Image | Index:
        return self._repository.pull_manifest(str(descriptor.digest))

    def is_absent(self, descriptor: Descriptor) -> str:
        return ""

    def open(self, descriptor: Descriptor) -> AbstractContextManager[BinaryIO]:
        return cast("BinaryIO", ChunkFile(self._repository.stream_blob(descriptor)))


def validate(
    content: ImageContent,
    top: Descriptor,
    *,
    layers: bool = True,
    moved: Callable[[int], None] = lambda _: None,
) -> Validation:
    """Return the errors of the image or index ``top``, every part of which is read once.

    Without ``layers`` these are not read. ``moved`` is called with the number of further bytes. Raises the
    errors of access to the content: :class:`~digestry.errors.Unreachable`,
    :class:`~digestry.errors.StorageError`.
    """
    run = _Run(content, Validation(top.digest), layers, moved)
    manifest = run.read_manifest(top)
    if manifest is not None:
        run.check(manifest, 0)
    return run.found


@dataclass(slots=True)
class _Run:
    content: ImageContent
    found: Validation
    layers: bool
    moved: Callable[[int], None]
    seen: set[Digest] = field(default_factory=set)
    read: set[tuple[Digest, Digest | None]] = field(default_factory=set)

    def problem(self, digest: Digest, part: str, message: str) -> None:
        self.found.problems.append(Problem(digest, part, message))

    def count(self, size: int) -> None:
        self.found.bytes += size
        self.moved(size)

    def read_manifest(self, descriptor: Descriptor) -> Image | Index | None:
        part = "index" if descriptor.media_type in media_types.INDEXES else "manifest"
        try:
            manifest = self.content.manifest(descriptor)
        except _ABOUT_CONTENT as error:
            self.problem(descriptor.digest, part, error.message)
            return None
        self.found.manifests += 1
        self.count(manifest.size)
        if manifest.size != descriptor.size:
            message = f"it has {manifest.size} bytes, and is listed with {descriptor.size}"
            self.problem(descriptor.digest, part, message)
        if manifest.media_type != descriptor.media_type:
            message = f"it is {manifest.media_type}, and is listed as {descriptor.media_type}"
            self.problem(descriptor.digest, part, message)
        return manifest

    def check(self, manifest: Image | Index, depth: int, entry: Descriptor | None = None) -> None:
        self.seen.add(manifest.digest)
        if isinstance(manifest, Image):
            self.check_image(manifest, entry)
            return
        if depth > DEEPEST:
            self.problem(manifest.digest, "index", f"there are more than {DEEPEST} indexes in each other")
            return
        for child in manifest.manifests:
            if child.digest in self.seen:
                continue
            absent = self.content.is_absent(child)
            if child.media_type not in media_types.MANIFESTS:
                self.check_listed_blob(child)
            elif absent:
                self.found.not_checked.append(NotChecked(child.digest, absent))
            elif len(self.seen) >= MOST_MANIFESTS:
                self.problem(manifest.digest, "index", f"it has more than {MOST_MANIFESTS} manifests")
                return
            else:
                inner = self.read_manifest(child)
                if inner is not None:
                    self.check(inner, depth + 1, child)

    def check_listed_blob(self, entry: Descriptor) -> None:
        """Check what an index lists that is no manifest: a blob, as in BuildKit's caches."""
        if not self.layers:
            self.found.not_checked.append(NotChecked(entry.digest, "layers are not read"))
            return
        try:
            with self.content.open(entry) as file:
                for _ in self.verified(file, entry):
                    pass
        except (NotFound, RemoteNotFound):
            reason = f"{entry.media_type} is no manifest, and there is no blob of that digest"
            self.found.not_checked.append(NotChecked(entry.digest, reason))
        except _ABOUT_CONTENT as error:
            self.problem(entry.digest, "layer", error.message)

    def check_image(self, image: Image, entry: Descriptor | None) -> None:
        config = self.read_config(image)
        diff_ids: tuple[Digest | None, ...] = (None,) * len(image.layers)
        if config is not None:
            self.check_platform(config, entry)
            if len(config.diff_ids) == len(image.layers):
                diff_ids = config.diff_ids
            else:
                message = f"it has {len(config.diff_ids)} diff_ids for {len(image.layers)} layers"
                self.problem(config.digest, "config", message)
            if config.rootfs_type != "layers":
                self.problem(config.digest, "config", "the type of its rootfs is not layers")
            filled = sum(not step.empty_layer for step in config.history)
            if config.history and filled != len(image.layers):
                message = f"its history has {filled} steps with a layer, for {len(image.layers)} layers"
                self.problem(config.digest, "config", message)
        for layer, diff_id in zip(image.layers, diff_ids, strict=True):
            self.check_layer(layer, diff_id)

    def read_config(self, image: Image) -> ImageConfig | None:
        """Return the config of an image, read and checked; None for an artifact's, or one that is wrong."""
        config = image.config
        try:
            if config.size > SMALL:
                raise TooLarge(f"it has {config.size} bytes, more than {SMALL}", limit=SMALL)
            with self.content.open(config) as file:
                raw = b"".join(self.verified(file, config))
            if config.media_type not in media_types.IMAGE_CONFIGS:
                return None
            return ImageConfig.parse(raw, algorithm=config.digest.algorithm)
        except _ABOUT_CONTENT as error:
            self.problem(config.digest, "config", error.message)
            return None

    def verified(self, file: BinaryIO, descriptor: Descriptor) -> Iterator[bytes]:
        verifier = Verifier(descriptor.digest, descriptor.size)
        while chunk := file.read(_CHUNK):
            verifier.update(chunk)
            self.count(len(chunk))
            yield chunk
        verifier.finish()
        self.found.blobs += 1

    def check_platform(self, config: ImageConfig, entry: Descriptor | None) -> None:
        stated = None if entry is None else entry.platform
        if stated is None or not stated.is_stated or not config.platform.is_stated:
            return
        if (stated.os, stated.architecture) != (config.platform.os, config.platform.architecture):
            message = f"it is for {config.platform}, and its index lists it for {stated}"
            self.problem(config.digest, "config", message)

    def check_layer(self, layer: Descriptor, diff_id: Digest | None) -> None:
        if (layer.digest, diff_id) in self.read:
            return
        self.read.add((layer.digest, diff_id))
        if media_types.is_foreign(layer.media_type) and layer.urls:
            reason = "its licence keeps it out of registries"
            self.found.not_checked.append(NotChecked(layer.digest, reason))
            return
        if not self.layers:
            self.found.not_checked.append(NotChecked(layer.digest, "layers are not read"))
            return
        try:
            with self.content.open(layer) as file:
                if diff_id is not None and layer.media_type in _LAYERS:
                    LayerStream(file, layer, diff_id, _bound(layer)).finish()
                    self.count(layer.size)
                    self.found.blobs += 1
                else:
                    for _ in self.verified(file, layer):
                        pass
        except _ABOUT_CONTENT as error:
            self.problem(layer.digest, "layer", error.message)


def _bound(layer: Descriptor) -> Callable[[int], None]:
    """Return a function that counts the inflated bytes of a layer. Raises :class:`TooLarge` for a bomb."""
    most = _FREE + _RATIO * layer.size
    came = 0

    def taken(count: int) -> None:
        nonlocal came
        came += count
        if came > most:
            raise TooLarge(f"it has {layer.size} bytes, and inflates to more than {most}", limit=most)

    return taken


def content_of(source: ImageStore | Repository) -> ImageContent:
    """Return the content of the local store, or of a repository."""
    return StoredContent(source) if isinstance(source, ImageStore) else RemoteContent(source)
