"""What is not in the distribution-spec itself (docs/http-api.md).

``_oci/tag-history`` is the draft of opencontainers/distribution-spec#606; ``_digestry`` is what no
draft has: the whole journal, who holds a digest, a repository's advisories.
"""

from __future__ import annotations

from typing import Any, Final

from digestry.catalog import clock
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.history import TAG_EVENT, TAG_OBSERVED, TAG_TIMESTAMP, JournalPage, TagEvent
from digestry.model.reference import check_tag
from digestry.registry.error_responses import ErrorResponse, not_allowed
from digestry.registry.exchange import Exchange
from digestry.registry.resources import redaction, sightings, tag_history
from digestry.registry.resources.referrers import describe, index
from digestry.registry.resources.tag_history import time_parameter
from digestry.registry.service import Service

_PAGE: Final = 100
_MOST: Final = 1000

_DISCOVERY: Final = {
    "extensions": [
        {
            "name": "_oci",
            "description": "Where a tag has pointed, newest first, deletions included.",
            "url": "https://github.com/opencontainers/distribution-spec/pull/606",
            "endpoints": ["_oci/tag-history/<tag>", "_oci/ext/discover"],
        },
        {
            "name": "_digestry",
            "description": "The journal, who holds a digest, advisories, what runs where, many at once.",
            "url": "docs/http-api.md",
            "endpoints": [
                "_digestry/journal",
                "_digestry/holders/<digest>",
                "_digestry/advisories",
                "_digestry/tag/<tag>",
                "_digestry/tags",
                "_digestry/whose/<digest>",
                "_digestry/digests/<prefix>",
                "_digestry/restore/<tag>",
                "_digestry/resolve",
                "_digestry/sightings",
                "_digestry/sightings/<digest>",
            ],
        },
    ]
}


async def handle_discover(exchange: Exchange) -> None:
    """Which extensions this registry has (distribution-spec, extensions/_oci.md)."""
    _only_get(exchange)
    await exchange.json(_DISCOVERY)


async def handle_tag_history(service: Service, exchange: Exchange, name: str, tag: str) -> None:
    """Where a tag has pointed. Never a 404: a tag without history has an empty one."""
    _only_get(exchange)
    check_tag(tag)
    limit = exchange.number("n", default=_PAGE, most=_MOST)
    digest = exchange.parameter("digest")
    events = await service.disk(
        service.catalog.journal,
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
    body = index([_history_entry(event) for event in page])
    origin = service.origin(name, exchange.principal)
    if origin:
        body["annotations"] = {TAG_OBSERVED: origin}  # an empty history is not a whole one there
    await exchange.json(body, media_type=media_types.OCI_INDEX, headers=links)


def _history_entry(event: TagEvent) -> dict[str, Any]:
    gone = event.event == "deleted"
    annotations = {TAG_TIMESTAMP: _timestamp(event), TAG_EVENT: "deleted" if gone else "created"}
    if event.observed_in:
        annotations[TAG_OBSERVED] = event.observed_in
    return {
        "mediaType": event.media_type,
        "digest": str(event.from_digest if gone else event.to_digest),
        "size": event.size,
        "annotations": annotations,
    }


def _timestamp(event: TagEvent) -> str:
    return clock.to_rfc3339(clock.from_datetime(event.at))


async def handle_digestry(service: Service, exchange: Exchange, name: str, what: str) -> None:
    """``_digestry/<what>``."""
    resource, _, rest = what.partition("/")
    if resource == "restore" and rest:
        await tag_history.handle_restore(service, exchange, name, rest)
        return
    _only_get(exchange)
    if resource == "journal" and not rest:
        await _journal(service, exchange, name)
    elif resource == "holders" and rest:
        holders = await service.disk(service.catalog.holders, name, Digest.parse(rest))
        await exchange.json(holders)
    elif resource == "advisories" and not rest:
        await _advisories(service, exchange, name)
    elif resource == "tag" and rest:
        await tag_history.handle_tag(service, exchange, name, rest)
    elif resource == "tags" and not rest:
        await tag_history.handle_tags(service, exchange, name)
    elif resource == "whose" and rest:
        await tag_history.handle_whose(service, exchange, name, rest)
    elif resource == "digests" and rest:
        await tag_history.handle_digests(service, exchange, name, rest)
    elif resource == "sightings" and rest:
        await sightings.handle_of(service, exchange, name, rest)
    else:
        raise ErrorResponse(404, "UNSUPPORTED", "there is no such extension; see /v2/_oci/ext/discover")


async def _advisories(service: Service, exchange: Exchange, name: str) -> None:
    after = exchange.parameter("last")
    limit = max(1, exchange.number("n", default=_PAGE, most=_MOST))
    page = await service.disk(
        service.catalog.advisories,
        name,
        media_types.OPENVEX,
        after=None if after is None else str(Digest.parse(after)),
        limit=limit,
    )
    links = [exchange.next_page(n=limit, last=str(page.rows[-1].digest))] if page.more else []
    advisories = [{**describe(row), "subject": str(row.subject)} for row in page.rows]
    await exchange.json({"repository": name, "advisories": advisories}, headers=links)


async def _journal(service: Service, exchange: Exchange, name: str) -> None:
    tag = exchange.parameter("tag")
    audits = exchange.may_audit
    cursor = redaction.cursor(exchange, audits=audits)
    since = time_parameter(exchange, "since")
    limit = exchange.number("n", default=_PAGE, most=_MOST)
    events = await service.disk(
        service.catalog.journal,
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
    told = tuple(redaction.event(entry, audits=audits) for entry in page)
    await exchange.json(JournalPage(repository=name, entries=told), headers=links)


def _only_get(exchange: Exchange) -> None:
    if exchange.method not in {"GET", "HEAD"}:
        raise not_allowed(exchange.method, "GET, HEAD")
