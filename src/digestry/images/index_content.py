"""The parts of an image or index, in the place that has them: manifests, configs, and what an index lists."""

from __future__ import annotations

from collections.abc import Callable

from digestry.errors import ContentError, InvalidManifest, NotFound, RemoteNotFound, SizeMismatch, TooLarge
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.image_config import ImageConfig
from digestry.model.manifest import DEEPEST, MOST_MANIFESTS, Image, Index, Manifest
from digestry.model.platform import Platform, by_preference


class IndexContent:
    """The content of a place: ``fetch`` returns the manifest of a descriptor, ``read_blob`` a small blob.

    Both are verified by the place, and their errors come through.
    """

    def __init__(
        self,
        fetch: Callable[[Descriptor], Image | Index],
        read_blob: Callable[[Descriptor], bytes],
    ) -> None:
        self._fetch = fetch
        self._read_blob = read_blob

    def pull(self, descriptor: Descriptor) -> Image | Index:
        """Return the manifest of ``descriptor``.

        Raises :class:`SizeMismatch` too, and :class:`ContentError` for an index that is listed as an image,
        or the other way round: who believes the list and who believes the content would take different ones.
        """
        manifest = self._fetch(descriptor)
        if manifest.size != descriptor.size:
            raise SizeMismatch(
                f"{descriptor.digest} should have {descriptor.size} bytes, and has {manifest.size}"
            )
        if descriptor.media_type in media_types.MANIFESTS and manifest.is_index is not (
            descriptor.media_type in media_types.INDEXES
        ):
            raise ContentError(
                f"{descriptor.digest} is listed as {descriptor.media_type}, and is {manifest.media_type}"
            )
        return manifest

    def manifest(self, descriptor: Descriptor) -> Image | Index | None:
        """Return the manifest of ``descriptor``; None if it is not there."""
        try:
            return self.pull(descriptor)
        except (NotFound, RemoteNotFound):
            return None

    def platform(self, image: Manifest) -> Platform | None:
        """Return the platform that an image's config names, which may be empty; None if there is no config.

        Raises :class:`ContentError` for a config that cannot be used.
        """
        if image.config is None or image.config.media_type not in media_types.IMAGE_CONFIGS:
            return None
        try:
            raw = self._read_blob(image.config)
            return ImageConfig.parse(raw, algorithm=image.config.digest.algorithm).platform
        except (NotFound, RemoteNotFound):
            return None
        except (InvalidManifest, TooLarge) as error:
            raise ContentError(f"the config of {image.digest} cannot be used: {error.message}") from error

    def check_platform(self, image: Image, platform: Platform, name: object) -> None:
        """Raise :class:`NotFound` about ``name`` if the image says that it is for another platform."""
        stated = self.platform(image)
        if stated is not None and stated.is_stated and not by_preference([stated], platform):
            raise NotFound(f"{name} is for {stated}, not for {platform}")


def all_manifests(
    top: Image | Index,
    pull: Callable[[Descriptor], Image | Index | None],
    skip: Callable[[Descriptor, str], None],
) -> list[Image | Index]:
    """Return the manifests below and including ``top``, children before the indexes that list them.

    A child for which ``pull`` returns None is left out. ``skip`` is called with each entry that is no
    manifest, and the reason. Raises :class:`ContentError` for too many.
    """
    found: dict[Digest, Image | Index] = {}

    def walk(manifest: Image | Index, depth: int) -> None:
        if depth > DEEPEST:
            raise ContentError(f"{top.digest} has more than {DEEPEST} indexes inside of each other")
        for entry in manifest.manifests:
            if entry.media_type not in media_types.MANIFESTS:
                skip(entry, f"{entry.media_type} is not a kind of manifest")
            elif entry.digest not in found:
                if len(found) >= MOST_MANIFESTS:
                    raise ContentError(f"{top.digest} lists more than {MOST_MANIFESTS} manifests")
                child = pull(entry)
                if child is not None:
                    walk(child, depth + 1)
        found.setdefault(manifest.digest, manifest)

    walk(top, 0)
    return list(found.values())
