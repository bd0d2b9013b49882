"""Dispatch of a request about an upstream's repository."""

from __future__ import annotations

from digestry.model.digest import Digest
from digestry.registry.exchange import Exchange
from digestry.registry.pull_through import blobs, lists, manifests
from digestry.registry.pull_through.mirror import UpstreamRepository
from digestry.registry.pull_through.mirrors import read_only
from digestry.registry.resources import blobs as own_blobs
from digestry.registry.resources import manifests as own_manifests
from digestry.registry.service import Service


async def handle(
    service: Service, exchange: Exchange, repository: UpstreamRepository, resource: str, last: str
) -> None:
    """Answer one request. All changes except DELETE are refused with 405."""
    method = exchange.scope["method"]
    reading = method in {"GET", "HEAD"}
    match resource:
        case "manifests" if reading:
            await manifests.get(service, exchange, repository, last)
        case "manifests" if method == "DELETE":
            await own_manifests.handle(service, exchange, repository.local_name, last)
        case "blobs" if reading and last != "uploads":
            await blobs.get(service, exchange, repository, Digest.parse(last))
        case "blobs" if method == "DELETE" and last != "uploads":
            await own_blobs.handle(service, exchange, repository.local_name, last)
        case "tags" if reading and last == "list":
            await lists.tags(service, exchange, repository)
        case "referrers" if reading:
            await lists.referring(service, exchange, repository, Digest.parse(last))
        case _:
            raise read_only(repository.mirror.config, repository.local_name)
