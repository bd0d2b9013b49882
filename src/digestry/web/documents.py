"""The documents that images are made of, as pages show them: manifests, configs, and the platforms in them.

A document never changes, so that what was read of one is kept for the next page.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from digestry.catalog.image_summaries import ImageRow
from digestry.catalog.tag_pages import ListedTag
from digestry.errors import ContentError, InvalidManifest, StorageError
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.image_config import ImageConfig
from digestry.model.manifest import Image, Index, parse_manifest
from digestry.web.host import Host

LARGEST: Final = 4 << 20
"""The largest document in bytes that a page reads."""
_KEPT: Final = 20_000
_SECONDS: Final = 0.4
"""A list spends so long on documents that it has not seen yet; the next request goes on from there."""


class Platforms:
    """The platforms of images, read from their documents, and kept. Thread-safe."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def of_each(self, host: Host, images: Sequence[ListedTag | ImageRow]) -> dict[str, tuple[str, ...]]:
        """Return the platforms of ``images`` by their digests, of those that can be read in time."""
        end = time.monotonic() + _SECONDS
        found: dict[str, tuple[str, ...]] = {}
        for image in images:
            known = self._get(image.digest)
            if known is None and time.monotonic() < end:
                known = _platforms(host, image)
                self._put(image.digest, known)
            if known is not None:
                found[image.digest] = known
        return found

    def _get(self, digest: str) -> tuple[str, ...] | None:
        with self._lock:
            known = self._known.get(digest)
            if known is not None:
                self._known.move_to_end(digest)
            return known

    def _put(self, digest: str, platforms: tuple[str, ...]) -> None:
        with self._lock:
            self._known[digest] = platforms
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)


def _platforms(host: Host, image: ListedTag | ImageRow) -> tuple[str, ...]:
    """Return the platforms that an index lists, or that an image's config names; none if it cannot be
    read."""
    found = read_manifest(host, Digest.parse(image.digest), image.media_type, image.size)
    if isinstance(found, Index):
        return tuple(str(platform) for platform in found.platforms if not platform.is_unknown)
    if found is None:
        return ()
    config = read_config(host, found)
    return () if config is None or not config.platform.is_stated else (str(config.platform),)


def read_manifest(host: Host, digest: Digest, media_type: str, size: int) -> Image | Index | None:
    """Return a manifest or index; None if it cannot be read."""
    if size > LARGEST:
        return None
    try:
        return parse_manifest(host.content(digest, size), media_type, algorithm=digest.algorithm)
    except (InvalidManifest, ContentError, StorageError):
        return None


def read_config(host: Host, image: Image) -> ImageConfig | None:
    """Return an image's config; None if it is another kind of document, or cannot be read."""
    config = image.config
    if config.media_type not in media_types.IMAGE_CONFIGS or config.size > LARGEST:
        return None
    try:
        return ImageConfig.parse(host.content(config.digest, config.size), algorithm=config.digest.algorithm)
    except (InvalidManifest, ContentError, StorageError):
        return None
