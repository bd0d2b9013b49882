"""Blobs that a push omits because a HEAD of them was answered by the default mirror.

A name without a repository here belongs to the default mirror until a push to it: a client that first checks
for its blobs gets the answers for upstream's blobs, and sends only the others, and the manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from digestry.errors import DigestryError
from digestry.model.digest import Digest
from digestry.registry.exchange import Exchange
from digestry.registry.resources import upstream_blobs
from digestry.registry.service import Service

_MOST: Final = 256


async def link_expected(service: Service, exchange: Exchange, name: str, digests: Sequence[str]) -> bool:
    """Link the blobs ``digests`` that the default mirror's repository of that name has into repository
    ``name``; whether it has all of them now. The client must be allowed to pull them there."""
    repository = None if service.mirrors is None else service.mirrors.default_repository(name)
    if (
        repository is None
        or len(digests) > _MOST
        or "pull" not in exchange.principal.allowed(repository.local_name)
    ):
        return False
    try:
        for digest in map(Digest.parse, digests):
            await upstream_blobs.fetch(service, repository, digest)
            size = await service.executors.write(
                service.stores.catalog.mount_blob, name, digest, source=repository.local_name
            )
            if size is None:
                return False
    except DigestryError:
        return False  # the push is answered with the missing blobs
    return True
