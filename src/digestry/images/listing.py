"""The listing of the local store: one row for each name, damaged images included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from digestry.errors import ContentError, NotFound
from digestry.images.store import ImageStore
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.image_config import ImageConfig
from digestry.model.platform import Platform, by_preference
from digestry.model.reference import Reference

NO_NAME = "<none>"
_FEW: Final = 8
"""Images whose content is looked for file by file."""


class StoredImage(msgspec.Struct, frozen=True):
    """An image of the local store under one of its names. ``size`` is in bytes of the content that is here.

    ``image_id`` and ``created`` are of the image for this machine's platform, or else of the first one that
    is here. ``platforms`` are those that are here, ``absent`` those of an index that are not.
    """

    name: str
    tag: str | None
    digest: Digest
    media_type: str
    size: int
    image_id: Digest | None = None
    created: str | None = None
    platforms: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


class DamagedImage(msgspec.Struct, frozen=True):
    """An image of the local store that cannot be read, and the reason."""

    name: str
    digest: Digest
    reason: str


def list_images(store: ImageStore) -> list[StoredImage | DamagedImage]:
    """Return a row for each tag, and for each digest without a tag in its repository.

    Raises :class:`ContentError` if the layout's index is damaged.
    """
    every = store.entries()
    # The store gives each tag's image a name by its digest too: such names need not be read.
    tags = [(entry, entry.reference) for entry in every if entry.name and "@" not in entry.name]
    tagged = {
        f"{known.name}@{entry.descriptor.digest}"
        for entry, known in tags
        if known is not None and known.tag is not None
    }
    read = iter(tags)
    entries = [
        next(read) if entry.name and "@" not in entry.name else (entry, entry.reference)
        for entry in every
        if entry.name not in tagged or not entry.name.endswith(str(entry.descriptor.digest))
    ]
    is_here = store.presence() if len(entries) > _FEW else lambda digest: store.blobs.stat(digest) is not None
    described: dict[Digest, StoredImage | DamagedImage] = {}
    rows: list[StoredImage | DamagedImage] = []
    for entry, known in entries:
        digest = entry.descriptor.digest
        if known is not None and known.tag is None and f"{known.name}@{digest}" in tagged:
            continue
        found = described.get(digest)
        if found is None:
            found = described[digest] = _describe(store, entry.descriptor, is_here)
        rows.append(_under_name(found, entry.name or NO_NAME, known))
    return rows


def _under_name(
    image: StoredImage | DamagedImage, name: str, known: Reference | None
) -> StoredImage | DamagedImage:
    """Return the row of ``image`` for one of its names, which ``known`` is if it is an image's."""
    if isinstance(image, DamagedImage):
        return DamagedImage(name, image.digest, image.reason)
    if known is None:
        return msgspec.structs.replace(image, name=name, tag=None)
    return msgspec.structs.replace(image, name=known.name, tag=known.tag)


def _describe(
    store: ImageStore, descriptor: Descriptor, is_here: Callable[[Digest], bool]
) -> StoredImage | DamagedImage:
    """Return the row of the image ``descriptor``, without a name."""
    try:
        manifest = store.manifest(descriptor)
        sizes: dict[Digest, int] = {}
        configs: list[ImageConfig] = []
        for image in store.present_images(manifest):
            config = store.stated_config(image)
            if config is not None:
                configs.append(config)  # it was read, so that it is here
                sizes[image.config.digest] = image.config.size
            for blob in image.blobs():
                if blob.digest not in sizes and is_here(blob.digest):
                    sizes[blob.digest] = blob.size
        absent = tuple(
            str(child.platform)
            for child in manifest.manifests
            if child.platform and not is_here(child.digest)
        )
    except (ContentError, NotFound) as error:
        return DamagedImage("", descriptor.digest, error.message)
    several = len(configs) > 1
    best = by_preference([config.platform for config in configs], Platform.of_host()) if several else []
    shown = configs[best[0]] if best else next(iter(configs), None)
    return StoredImage(
        name="",
        tag=None,
        digest=descriptor.digest,
        media_type=manifest.media_type,
        size=sum(sizes.values()),
        image_id=shown.digest if shown else None,
        created=shown.created if shown else None,
        platforms=tuple(str(config.platform) for config in configs),
        absent=absent,
    )
