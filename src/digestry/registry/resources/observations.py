"""What was observed in other registries: ``_digestry/observations`` and ``_digestry/observed``."""

from __future__ import annotations

from typing import Final

from digestry.catalog import clock
from digestry.model.observations import ObservedTag
from digestry.model.reference import check_tag
from digestry.registry.error_responses import name_unknown
from digestry.registry.exchange import Exchange
from digestry.registry.observation_report import MOST_MOVES, report, span_of
from digestry.registry.resources.fleet import asker
from digestry.registry.resources.tag_history import time_parameter
from digestry.registry.service import Service

_PAGE: Final = 100
_MOST: Final = 1000
_WEEK: Final = 7 * 86_400 * clock.SECOND


async def list_observations(service: Service, exchange: Exchange, name: str, tag: str) -> None:
    """Answer with a page of what was observed of a tag, newest first; empty if it never was."""
    check_tag(tag)
    limit = max(1, exchange.number("n", default=_PAGE, most=_MOST))
    before = exchange.number("before", default=0, most=1 << 62)
    queries = service.stores.queries
    spans = await service.executors.run(
        queries.observations.spans, name, tag, before=before or None, limit=limit + 1
    )
    if not spans and not await service.executors.run(queries.has_repository, name):
        raise name_unknown(name)
    now = service.now()
    headers = [exchange.next_page(n=limit, before=spans[limit - 1].number)] if len(spans) > limit else []
    found = tuple(span_of(span, now) for span in spans[:limit])
    await exchange.json(ObservedTag(repository=name, tag=tag, spans=found), headers=headers)


async def get_report(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Answer with what moved since a time, and what is not known, of the repositories that the client may
    pull from."""
    now = service.now()
    since = time_parameter(exchange, "since")
    principal = exchange.principal
    answer = await service.executors.run(
        report,
        service.stores.catalog,
        service.config,
        since=now - _WEEK if since is None else since,
        now=now,
        moves=max(1, exchange.number("n", default=MOST_MOVES, most=MOST_MOVES)),
        visible=lambda name: "pull" in principal.allowed(name),
        audited=principal.audits,
        asker=asker(exchange),
    )
    await exchange.json(answer)
