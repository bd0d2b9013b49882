"""The handlers of requests about an upstream's repository, which fetch missing content."""

from __future__ import annotations

from digestry.model.digest import Digest
from digestry.registry.exchange import Exchange
from digestry.registry.pull_through.mirror import UpstreamRepository
from digestry.registry.resources import upstream_blobs, upstream_lists, upstream_manifests
from digestry.registry.resources.blobs import delete_blob as delete_own_blob
from digestry.registry.resources.manifests import delete_manifest as delete_own_manifest
from digestry.registry.service import Service

Repository = UpstreamRepository

get_manifest = upstream_manifests.get
list_tags = upstream_lists.tags


async def delete_manifest(service: Service, exchange: Exchange, repository: Repository, target: str) -> None:
    """Delete the cached tag or manifest."""
    await delete_own_manifest(service, exchange, repository.local_name, target)


async def get_blob(service: Service, exchange: Exchange, repository: Repository, digest: str) -> None:
    """Answer with a blob, sent on while it comes in."""
    await upstream_blobs.get(service, exchange, repository, Digest.parse(digest))


async def delete_blob(service: Service, exchange: Exchange, repository: Repository, digest: str) -> None:
    """Delete the cached blob from the repository."""
    await delete_own_blob(service, exchange, repository.local_name, digest)


async def list_referrers(service: Service, exchange: Exchange, repository: Repository, digest: str) -> None:
    """Answer with the referrers of a digest."""
    await upstream_lists.referring(service, exchange, repository, Digest.parse(digest))
