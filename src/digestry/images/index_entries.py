"""The entries of an index that is put together from images and other indexes."""

from __future__ import annotations

from collections.abc import Callable

from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.image_config import ImageConfig
from digestry.model.manifest import Image, Index
from digestry.model.platform import Platform


def index_entries(manifest: Image | Index, read_config: Callable[[Descriptor], bytes]) -> list[Descriptor]:
    """Return the entries of ``manifest`` for an index: an image's own entry, or all entries of an index.

    An image's entry has the platform that its config names, unless that is incomplete. Raises
    :class:`InvalidManifest` for an invalid config, and as ``read_config`` does.
    """
    if isinstance(manifest, Index):
        return [_entry(child, child.platform) for child in manifest.manifests]
    platform = None
    config = manifest.config
    if config.media_type in media_types.IMAGE_CONFIGS:
        found = ImageConfig.parse(read_config(config), algorithm=config.digest.algorithm).platform
        platform = found if found.is_stated else None
    return [_entry(manifest.descriptor(), platform, manifest.artifact_type if platform is None else None)]


def _entry(descriptor: Descriptor, platform: Platform | None, artifact_type: str | None = None) -> Descriptor:
    return Descriptor(
        descriptor.media_type,
        descriptor.digest,
        descriptor.size,
        annotations=descriptor.annotations,
        platform=platform,
        artifact_type=descriptor.artifact_type or artifact_type,
    )
