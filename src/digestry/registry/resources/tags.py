"""Tags and repositories: ``/v2/<name>/tags/list``, ``/v2/_catalog``."""

from __future__ import annotations

from typing import Final

from digestry.registry.access.principal import EVERYBODY, Principal
from digestry.registry.exchange import Exchange
from digestry.registry.service import Service

MOST_TAGS: Final = 100_000
_MOST_REPOSITORIES: Final = 10_000
_REPOSITORIES: Final = 1000
_BATCH: Final = 1000
_AT_ONCE: Final = 1000
"""A page of up to so many tags is read on the event loop: that takes about half a millisecond."""


async def list_tags(service: Service, exchange: Exchange, name: str, _: str) -> None:
    """Answer with the tags of a repository, in the order of their bytes, in pages of ``n`` after ``last``."""
    limit = exchange.number("n", default=MOST_TAGS, most=MOST_TAGS)
    after = exchange.parameter("last") or ""
    names: list[str] | None = None
    if limit <= _AT_ONCE:
        names = await service.stores.read_cache.tags(name, after=after, limit=limit + 1)
    if names is None:  # too many for the event loop; or no such repository, which raises
        rows = await service.executors.run(service.stores.queries.tags, name, after=after, limit=limit + 1)
        names = [row.name for row in rows]
    page = names[:limit]
    more = limit > 0 and len(names) > limit
    links = [exchange.next_page(n=limit, last=page[-1])] if more else []
    await exchange.json({"name": name, "tags": page}, headers=links)


async def list_repositories(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Answer with the repositories, in the order of their bytes, in pages of ``n`` after ``last``."""
    limit = exchange.number("n", default=_REPOSITORIES, most=_MOST_REPOSITORIES)
    after = exchange.parameter("last") or ""
    names = await service.executors.run(_visible, service, exchange.principal, after, limit + 1)
    page = names[:limit]
    more = limit > 0 and len(names) > limit
    links = [exchange.next_page(n=limit, last=page[-1])] if more else []
    await exchange.json({"repositories": page}, headers=links)


def _visible(service: Service, principal: Principal, after: str, limit: int) -> list[str]:
    """Return the first ``limit`` repositories after ``after`` that ``principal`` may see. Blocks.

    It only reads names with the prefixes of the rules, so that the time does not show how many others there
    are.
    """
    batch = limit if principal is EVERYBODY else max(limit, _BATCH)
    found: list[str] = []
    for beginning in principal.seen_beginnings():
        last = after
        while True:
            names = service.stores.catalog.repositories(after=last, beginning=beginning, limit=batch)
            found += [name for name in names if principal.may_see(name)]
            if len(found) >= limit:
                return found[:limit]
            if len(names) < batch:
                break
            last = names[-1]
    return found
