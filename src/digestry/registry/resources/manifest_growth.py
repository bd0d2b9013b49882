"""Whether a manifest extends another one: all its content, and more, as an added signature does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from digestry.catalog import signature_tags
from digestry.errors import ContentError, InvalidManifest
from digestry.model import media_types
from digestry.model.descriptor import Descriptor, encode_hook
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from digestry.registry.service import Service
from digestry.registry.stores import ContentDamaged


async def extended(
    service: Service, name: str, manifest: Manifest, tags: Sequence[str]
) -> frozenset[tuple[str, str]]:
    """Return those of ``tags`` that collect signatures, each with the digest that it points to, if
    ``manifest`` has all of that, and more.

    "All" means its layers, or its manifests, with their annotations (a signature may be in one), and its own
    annotations. An image is not a collection of signatures, with any tag.
    """
    found = {
        (tag, there.digest): (Digest.parse(there.digest), there.size, there.media_type)
        for tag in dict.fromkeys(tags)
        if signature_tags.is_about(tag)
        and (there := await service.stores.read_cache.manifest(name, tag)) is not None
        and not signature_tags.names(tag, there.digest)
    }
    if not found:
        return frozenset()
    grown = await service.executors.run(_grown_from, service, manifest, set(found.values()))
    return frozenset(digest for digest, earlier in found.items() if earlier in grown)


def _grown_from(
    service: Service, manifest: Manifest, earlier: Iterable[tuple[Digest, int, str]]
) -> set[tuple[Digest, int, str]]:
    has = _entries(manifest)
    result = set()
    for digest, size, media_type in earlier:
        try:
            before = Manifest.parse(service.stores.read(digest, size), media_type, algorithm=digest.algorithm)
        except (ContentDamaged, ContentError, InvalidManifest):
            continue  # its content is not known
        if _collects(before) and _keeps_metadata(before, manifest) and _entries(before) < has:
            result.add((digest, size, media_type))
    return result


def _collects(manifest: Manifest) -> bool:
    """Return whether the manifest is a collection. An artifact without layers is not: it is its config."""
    if manifest.is_index:
        return True
    return bool(manifest.layers) and not any(
        media_types.is_image_layer(layer.media_type) for layer in manifest.layers
    )


def _keeps_metadata(before: Manifest, manifest: Manifest) -> bool:
    return (
        before.is_index == manifest.is_index
        and before.artifact_type == manifest.artifact_type
        and before.subject in {None, manifest.subject}
        and before.annotations.items() <= manifest.annotations.items()
    )


def _entries(manifest: Manifest) -> Counter[bytes]:
    return Counter(_plain(entry) for entry in (*manifest.layers, *manifest.manifests))


def _plain(entry: Descriptor) -> bytes:
    return msgspec.json.encode(entry, enc_hook=encode_hook, order="sorted")
