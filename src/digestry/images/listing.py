"""The listing of the local store: one row for each name, damaged images included."""

from __future__ import annotations

import msgspec

from digestry.errors import ContentError, NotFound
from digestry.images.store import ImageStore
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.image_config import ImageConfig
from digestry.model.platform import Platform, by_preference
from digestry.model.reference import Reference

NO_NAME = "<none>"


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
    tags = {entry.name: entry.reference for entry in every if entry.name and "@" not in entry.name}
    by_digest = {
        (f"{known.name}@{entry.descriptor.digest}", entry.descriptor.digest)
        for entry in every
        if entry.name and (known := tags.get(entry.name)) is not None
    }
    entries = [
        (entry, tags[entry.name] if entry.name in tags else entry.reference)  # noqa: SIM401 - reads it
        for entry in every
        if (entry.name, entry.descriptor.digest) not in by_digest
    ]
    tagged = {
        (known.name, entry.descriptor.digest)
        for entry, known in entries
        if known is not None and known.tag is not None
    }
    described: dict[Digest, StoredImage | DamagedImage] = {}
    rows: list[StoredImage | DamagedImage] = []
    for entry, known in entries:
        digest = entry.descriptor.digest
        if known is not None and known.tag is None and (known.name, digest) in tagged:
            continue
        found = described.get(digest)
        if found is None:
            found = described[digest] = _describe(store, entry.descriptor)
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


def _describe(store: ImageStore, descriptor: Descriptor) -> StoredImage | DamagedImage:
    """Return the row of the image ``descriptor``, without a name."""
    try:
        manifest = store.manifest(descriptor)
        sizes: dict[Digest, int] = {}
        configs: list[ImageConfig] = []
        for image in store.present_images(manifest):
            sizes |= {
                blob.digest: blob.size for blob in image.blobs() if store.blobs.stat(blob.digest) is not None
            }
            config = store.stated_config(image)
            if config is not None:
                configs.append(config)
        absent = tuple(
            str(child.platform)
            for child in manifest.manifests
            if child.platform and not store.blobs.stat(child.digest)
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
