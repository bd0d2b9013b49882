"""The advisories of a repository: ``_digestry/advisories``."""

from __future__ import annotations

from typing import Final

from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.registry.exchange import Exchange
from digestry.registry.resources.referrers import describe
from digestry.registry.service import Service

_PAGE: Final = 100
_MOST: Final = 1000


async def list_advisories(service: Service, exchange: Exchange, name: str, _: str) -> None:
    """Answer with a page of the OpenVEX referrers of a repository, newest first, each with its subject."""
    after = exchange.parameter("last")
    limit = max(1, exchange.number("n", default=_PAGE, most=_MOST))
    page = await service.executors.run(
        service.stores.queries.advisories,
        name,
        media_types.OPENVEX,
        after=None if after is None else str(Digest.parse(after)),
        limit=limit,
    )
    links = [exchange.next_page(n=limit, last=str(page.rows[-1].digest))] if page.more else []
    advisories = [{**describe(row), "subject": str(row.subject)} for row in page.rows]
    await exchange.json({"repository": name, "advisories": advisories}, headers=links)
