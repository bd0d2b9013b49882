"""Whether a manifest has all that another one has, and more: a signature that is added to others."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from digestry.catalog import signatures
from digestry.errors import ContentError, InvalidManifest
from digestry.model.descriptor import Descriptor, encode_hook
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from digestry.registry.service import Damaged, Service


async def extended(service: Service, name: str, manifest: Manifest, tags: Sequence[str]) -> frozenset[str]:
    """Return the digests of what ``tags`` that collect signatures point to, if ``manifest`` has all of it.

    All are its layers, or its manifests, with what is said of each: a signature may be in an annotation.
    """
    about = [tag for tag in dict.fromkeys(tags) if signatures.is_about(tag)]
    found = [there for tag in about if (there := service.hot.manifest(name, tag)) is not None]
    if not found:
        return frozenset()
    earlier = [(Digest.parse(there.digest), there.size, there.media_type) for there in found]
    return await service.disk(_extended, service, manifest, earlier)


def _extended(
    service: Service, manifest: Manifest, earlier: Sequence[tuple[Digest, int, str]]
) -> frozenset[str]:
    has = _entries(manifest)
    result = set()
    for digest, size, media_type in earlier:
        try:
            before = Manifest.parse(service.read(digest, size), media_type, algorithm=digest.algorithm)
        except (Damaged, ContentError, InvalidManifest):
            continue  # what it had cannot be told
        if before.is_index == manifest.is_index and _entries(before) <= has:
            result.add(str(digest))
    return frozenset(result)


def _entries(manifest: Manifest) -> set[bytes]:
    return {_plain(entry) for entry in (*manifest.layers, *manifest.manifests)}


def _plain(entry: Descriptor) -> bytes:
    return msgspec.json.encode(entry, enc_hook=encode_hook, order="sorted")
