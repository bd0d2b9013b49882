"""Digests: which begin with a prefix (``_digestry/digests``), and which manifests hold one (``holders``)."""

from __future__ import annotations

from typing import Final

from digestry.model.digest import Digest
from digestry.model.digest_prefix import DigestPrefix
from digestry.model.history import DigestsWithPrefix
from digestry.registry.access.principal import Principal
from digestry.registry.error_responses import name_unknown
from digestry.registry.exchange import Exchange
from digestry.registry.service import Service

_MOST_DIGESTS: Final = 20


async def get_holders(service: Service, exchange: Exchange, name: str, text: str) -> None:
    """Answer with the manifests that are a digest, have it as their config, or list one of those."""
    await exchange.json(await service.executors.run(service.stores.queries.holders, name, Digest.parse(text)))


async def list_digests(service: Service, exchange: Exchange, name: str, text: str) -> None:
    """Answer with the digests that a repository has or had and that begin with a prefix."""
    prefix = DigestPrefix.parse(text)
    found = await service.executors.run(
        service.stores.queries.digest_prefixes.in_repository, name, prefix, limit=_MOST_DIGESTS + 1
    )
    if not found and not await service.executors.run(service.stores.queries.has_repository, name):
        raise name_unknown(name)
    await exchange.json(_beginning(prefix, found))


async def list_digests_anywhere(service: Service, exchange: Exchange, _: str, text: str) -> None:
    """As :func:`list_digests`, over all repositories that the principal may see."""
    prefix = DigestPrefix.parse(text)
    found = await service.executors.run(
        _beginning_anywhere, service, exchange.principal, prefix, _MOST_DIGESTS + 1
    )
    await exchange.json(_beginning(prefix, found))


def _beginning(prefix: DigestPrefix, found: list[Digest]) -> DigestsWithPrefix:
    return DigestsWithPrefix(str(prefix), tuple(found[:_MOST_DIGESTS]), more=len(found) > _MOST_DIGESTS)


def _beginning_anywhere(
    service: Service, principal: Principal, prefix: DigestPrefix, limit: int
) -> list[Digest]:
    """Return the first ``limit`` digests in repositories that ``principal`` may see, and of what agents
    reported for one who may audit everything. Blocks."""
    found: set[Digest] = set()
    if principal.audits_everything():
        found.update(service.stores.catalog.digest_prefixes.reported(prefix, limit=limit))
    for name in service.stores.catalog.digest_prefixes.repositories(prefix):
        if principal.may_see(name):
            found.update(service.stores.queries.digest_prefixes.in_repository(name, prefix, limit=limit))
    return sorted(found)[:limit]
