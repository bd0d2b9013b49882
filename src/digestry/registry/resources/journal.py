"""The journal of a repository: ``_digestry/journal``, and the draft ``_oci/tag-history``."""

from __future__ import annotations

from typing import Final

from digestry.catalog import clock
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.history import TAG_OBSERVED, JournalPage, TagEvent, tag_history_entry
from digestry.model.reference import check_tag
from digestry.registry.exchange import Exchange
from digestry.registry.resources import redaction
from digestry.registry.resources.referrers import index
from digestry.registry.resources.tag_history import time_parameter
from digestry.registry.service import Service

_PAGE: Final = 100
_MOST: Final = 1000


async def get_journal(service: Service, exchange: Exchange, name: str, _: str) -> None:
    """Answer with a page of a repository's journal, newest first."""
    tag = exchange.parameter("tag")
    audits = exchange.may_audit
    cursor = redaction.cursor(exchange, audits=audits)
    since = time_parameter(exchange, "since")
    limit = exchange.number("n", default=_PAGE, most=_MOST)
    events = await service.executors.run(
        service.stores.queries.journal,
        name,
        tag=None if tag is None else check_tag(tag),
        before_sequence=cursor.sequence,
        before=cursor.time,
        since=None if since is None else since - 1,
        until=time_parameter(exchange, "until", last=True),
        limit=limit + 1,
    )
    page = events[:limit]
    links = []
    if limit > 0 and len(events) > limit:
        before = redaction.position(page[-1].sequence, page[-1].at, audits=audits)
        links.append(exchange.next_page(n=limit, before=before))
    entries = tuple(redaction.event(entry, audits=audits) for entry in page)
    await exchange.json(JournalPage(repository=name, entries=entries), headers=links)


async def get_tag_history(service: Service, exchange: Exchange, name: str, tag: str) -> None:
    """Answer with where a tag pointed; empty, and never a 404, for a tag without history."""
    check_tag(tag)
    limit = exchange.number("n", default=_PAGE, most=_MOST)
    digest = exchange.parameter("digest")
    events = await service.executors.run(
        service.stores.queries.journal,
        name,
        tag=tag,
        digest=None if digest is None else str(Digest.parse(digest)),
        before=time_parameter(exchange, "before"),
        since=time_parameter(exchange, "since"),
        limit=limit + 1,
    )
    page = events[:limit]
    links = []
    if limit > 0 and len(events) > limit:
        # No two entries have the same time (catalog/journal.py), so that it can be the cursor.
        links.append(exchange.next_page(n=limit, before=_timestamp(page[-1])))
    body = index([tag_history_entry(event) for event in page])
    origin = await service.origin(name, exchange.principal)
    if origin:
        body["annotations"] = {TAG_OBSERVED: origin}  # an empty history is not a whole one there
    await exchange.json(body, media_type=media_types.OCI_INDEX, headers=links)


def _timestamp(event: TagEvent) -> str:
    return clock.to_rfc3339(clock.from_datetime(event.at))
