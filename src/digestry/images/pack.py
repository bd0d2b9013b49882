"""Packing a directory or a tar archive into an image, reproducibly: the same files make the same digest.

The layer is by default gzip of stored blocks, which no library has a say in: what deflate makes depends on
the build of zlib (docs/adr/0010-stored-gzip-layers.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from digestry.blobs.protocols import BlobReader, BlobWriter
from digestry.errors import InvalidConfiguration, NotFound
from digestry.fsio import storage_error
from digestry.images.archive_input import write_archive
from digestry.images.directory_archive import write_directory
from digestry.images.index_entries import index_entries
from digestry.images.layer_writer import LayerWriter
from digestry.images.limits import Limits
from digestry.images.recipe import BaseImage, Recipe, config_document
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Image, Index, encode, parse_manifest
from digestry.model.manifest_editing import entries_changed, new_index


@dataclass(frozen=True, slots=True)
class Packed:
    """What was made: the image's manifest, its config, its layer, and how many entries that has."""

    manifest: Descriptor
    config: Descriptor
    layer: Descriptor
    entries: int


def pack(
    source: Path | BinaryIO,
    recipe: Recipe,
    blobs: BlobWriter,
    *,
    base: BaseImage | None = None,
    limits: Limits | None = None,
) -> Packed:
    """Store an image of ``source`` in ``blobs``, and return what was made.

    ``source`` is a directory, whose content becomes the layer, or a tar archive, which becomes the layer as
    it is. The layer lies upon those of ``base``. ``limits`` bound what an archive may hold. Raises
    :class:`NotFound` for what is not there, :class:`InvalidConfiguration` for what an image cannot hold and
    for a bad ``recipe``, :class:`ContentError` and :class:`TooLarge` for an archive that cannot be a layer,
    :class:`Conflict` for a file that changes meanwhile, :class:`StorageError` for one that cannot be read.
    """
    below = [] if base is None else base.layers()
    config_document(recipe, base, Digest.of(b""))  # says what is wrong before anything is read
    layer, diff_id, count = _layer(source, recipe, blobs, limits)
    config = _put(blobs, media_types.OCI_CONFIG, encode(config_document(recipe, base, diff_id)))
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": config,
        "layers": [*below, layer],
    }
    annotations = {**({} if base is None else base.annotations()), **dict(recipe.annotations)}
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    return Packed(_put(blobs, media_types.OCI_MANIFEST, encode(document)), config, layer, count)


def pack_index(
    images: list[Packed],
    blobs: BlobWriter,
    read: Callable[[Descriptor], bytes],
    *,
    old: Index | None = None,
    annotations: tuple[tuple[str, str], ...] = (),
) -> Descriptor:
    """Store an index of packed images in ``blobs``, and return its descriptor; ``read`` reads from there.

    With ``old`` it is that index with these images, each in the place of one for the same platform. Raises
    :class:`InvalidConfiguration` for two images of one platform.
    """
    entries: list[Descriptor] = []
    for image in images:
        manifest = parse_manifest(read(image.manifest), image.manifest.media_type)
        entries += index_entries(manifest, read)
    platforms = [str(entry.platform) for entry in entries]
    for platform in platforms:
        if platforms.count(platform) > 1:
            raise InvalidConfiguration(f"{platform} is there twice", hint="an index has one image for each")
    if old is None:
        raw = new_index(entries, annotations=dict(annotations))
        return _put(blobs, media_types.OCI_INDEX, raw)
    return _put(blobs, old.media_type, entries_changed(old, add=entries))


def check_layers(base: Image, blobs: BlobReader) -> None:
    """Raise :class:`NotFound` if ``blobs`` lacks a layer of ``base`` that registries have."""
    for layer in base.layers:
        if blobs.stat(layer.digest) != layer.size and not media_types.is_foreign(layer.media_type):
            raise NotFound(f"{layer.digest}, a layer of {base.digest}, is not in the local store")


def _put(blobs: BlobWriter, media_type: str, content: bytes) -> Descriptor:
    return Descriptor(media_type, blobs.put(content), len(content))


def _layer(
    source: Path | BinaryIO, recipe: Recipe, blobs: BlobWriter, limits: Limits | None
) -> tuple[Descriptor, Digest, int]:
    with blobs.begin() as ingest, LayerWriter(ingest.write, recipe.compression, recipe.level) as writer:
        if not isinstance(source, Path):
            count = write_archive(source, "standard input", writer.write, limits)
        elif not source.exists() or source.is_dir():
            count = write_directory(source, recipe.time, writer.write)
        else:
            try:
                opened = source.open("rb")
            except OSError as error:
                raise storage_error("open", source, error) from error
            with opened as file:
                count = write_archive(file, str(source), writer.write, limits)
        layer, diff_id = writer.finish()
        ingest.commit(layer.digest, layer.size)
    return layer, diff_id, count
