"""The history of tags: ``_digestry/tag``, ``tags``, ``whose`` and ``restore``."""

from __future__ import annotations

import datetime
from typing import Final

from msgspec import structs

from digestry.catalog import clock
from digestry.catalog.tag_moves import Expected
from digestry.errors import NotFound
from digestry.model.digest import Digest
from digestry.model.history import Restored, TagAsOf, TagsAsOf, TagsForDigest, TagSpan
from digestry.model.reference import check_tag
from digestry.model.timestamps import parse_rfc3339, rfc3339
from digestry.registry.access.principal import Principal
from digestry.registry.error_responses import (
    ErrorResponse,
    bad_parameter,
    manifest_unknown,
    name_unknown,
)
from digestry.registry.exchange import Exchange
from digestry.registry.resources import redaction
from digestry.registry.resources.conditional import expectation
from digestry.registry.resources.redaction import Cursor
from digestry.registry.service import Service

_PAGE: Final = 100
_MOST: Final = 1000


def time_parameter(exchange: Exchange, name: str, *, last: bool = False) -> int | None:
    """Return a query parameter that is a time, in microseconds since 1970; None if it is not given.

    Of a whole second it is the first microsecond, or the ``last``.
    """
    value = exchange.parameter(name)
    if value is None:
        return None
    try:
        found = parse_rfc3339(value)
    except ValueError as error:
        raise bad_parameter(
            name, value, "it must be a time as RFC 3339 has it, such as 2026-11-21T10:02:03.000004Z"
        ) from error
    return clock.from_datetime(found.last if last else found.first)


async def _moment(service: Service, exchange: Exchange, name: str) -> int:
    """Return the time ``at``; without it the present, or the newest entry's time if that is later."""
    at = time_parameter(exchange, "at", last=True)
    if at is not None:
        return at
    return max(service.now(), await service.executors.run(service.stores.queries.tag_history.latest, name))


async def get_tag(service: Service, exchange: Exchange, name: str, tag: str) -> None:
    """Answer with the digest that a tag pointed to at the time ``at``, or points to now."""
    check_tag(tag)
    moment = await _moment(service, exchange, name)
    span = await service.executors.run(service.stores.queries.tag_history.tag_at, name, tag, moment)
    if span is None:
        if not await service.executors.run(service.stores.queries.has_repository, name):
            raise name_unknown(name)
        raise ErrorResponse(
            404,
            "MANIFEST_UNKNOWN",
            f"there was no tag {tag} in {name} at {clock.to_rfc3339(moment)}",
            detail={"reference": tag},
        )
    span = redaction.span(span, audits=exchange.may_audit)
    await exchange.json(TagAsOf(repository=name, at=clock.to_datetime(moment), span=span))


async def list_tags_at(service: Service, exchange: Exchange, name: str, _: str) -> None:
    """Answer with the tags at the time ``at``, or now, in pages of ``n`` after ``last``."""
    moment = await _moment(service, exchange, name)
    limit = max(1, exchange.number("n", default=_PAGE, most=_MOST))
    after = exchange.parameter("last") or ""
    spans = await service.executors.run(
        service.stores.queries.tag_history.tags_at, name, moment, after=after, limit=limit + 1
    )
    if (
        not spans
        and not after
        and not await service.executors.run(service.stores.queries.has_repository, name)
    ):
        raise name_unknown(name)
    page = spans[:limit]
    # The next page is of the same moment, also when this one was "now".
    links = (
        [exchange.next_page(n=limit, last=page[-1].tag, at=clock.to_rfc3339(moment))]
        if len(spans) > limit
        else []
    )
    redacted = tuple(redaction.span(span, audits=exchange.may_audit) for span in page)
    body = TagsAsOf(repository=name, at=clock.to_datetime(moment), tags=redacted)
    await exchange.json(body, headers=links)


async def list_tags_for_digest(service: Service, exchange: Exchange, name: str, text: str) -> None:
    """Answer with the tags that point, or pointed, to a digest or to an index that holds it, in pages of
    ``n``."""
    digest = Digest.parse(text)
    audits = exchange.may_audit
    cursor = redaction.cursor(exchange, audits=audits)
    limit = max(1, exchange.number("n", default=_PAGE, most=_MOST))
    spans = await service.executors.run(
        service.stores.queries.tag_history.tags_for_digest,
        name,
        digest,
        before=cursor.sequence,
        before_time=cursor.time,
        layers=_with_layers(exchange),
        limit=limit + 1,
    )
    page = spans[:limit]
    links = []
    if len(spans) > limit:
        before = redaction.position(page[-1].sequence, page[-1].since, audits=audits)
        links.append(exchange.next_page(n=limit, before=before))
    redacted = tuple(redaction.span(span, audits=audits) for span in page)
    await exchange.json(TagsForDigest(digest=digest, spans=redacted), headers=links)


async def list_tags_for_digest_anywhere(service: Service, exchange: Exchange, _: str, text: str) -> None:
    """As :func:`list_tags_for_digest`, over all repositories that the principal may see."""
    digest = Digest.parse(text)
    principal = exchange.principal
    audits = principal.audits_everything()
    cursor = redaction.cursor(exchange, audits=audits)
    limit = max(1, exchange.number("n", default=_PAGE, most=_MOST))
    page, more = await service.executors.run(
        _anywhere, service, principal, digest, cursor, limit, layers=_with_layers(exchange)
    )
    links = []
    if more:
        links.append(exchange.next_page(n=limit, before=rfc3339(page[-1].since)))
    redacted = tuple(redaction.span(span, audits=principal.audits(span.repository)) for span in page)
    await exchange.json(TagsForDigest(digest=digest, spans=redacted), headers=links)


def _with_layers(exchange: Exchange) -> bool:
    """Return whether a digest may be a layer's, too: ``layers=true``."""
    text = exchange.parameter("layers")
    if text not in {None, "true", "false"}:
        raise bad_parameter("layers", text or "", "true or false is required")
    return text == "true"


def _anywhere(
    service: Service, principal: Principal, digest: Digest, cursor: Cursor, limit: int, *, layers: bool
) -> tuple[list[TagSpan], bool]:
    """Return the newest ``limit`` spans in repositories that ``principal`` may see, and whether there are
    more. Blocks.

    Two repositories may have moves of one time: all that began at the time of the last span are returned, so
    that a page ends between two times.
    """
    catalog = service.stores.catalog
    before = cursor.time if cursor.sequence is None else catalog.tag_history.time_of(cursor.sequence)
    found: list[TagSpan] = []
    page = 0
    for name in catalog.repositories_of(digest, layers=layers):
        if not principal.may_see(name):
            continue
        spans = service.stores.queries.tag_history.tags_for_digest(
            name, digest, before_time=before, layers=layers, limit=limit + 1
        )
        found += (structs.replace(span, repository=name) for span in spans)
        found.sort(key=_time, reverse=True)
        page = min(limit, len(found))
        while page < len(found) and found[page].since == found[page - 1].since:
            page += 1
        del found[page + 1 :]
    return found[:page], len(found) > page


def _time(span: TagSpan) -> tuple[datetime.datetime, str]:
    return span.since, span.repository


async def restore_tag(service: Service, exchange: Exchange, name: str, tag: str) -> None:
    """Point a tag back at the digest ``to``, which it had, or at the one that it had at the time ``at``."""
    check_tag(tag)
    to, at = exchange.parameter("to"), time_parameter(exchange, "at", last=True)
    wanted = at if to is None else Digest.parse(to)
    if wanted is None or (to is not None and at is not None):
        raise ErrorResponse(400, "UNSUPPORTED", "either to=<digest> or at=<time> is required")
    restored = await restore(service, exchange, name, tag, wanted, expected=expectation(exchange))
    headers = [("Docker-Content-Digest", str(restored.to_digest)), ("ETag", f'"{restored.to_digest}"')]
    if restored.event is not None:
        redacted = redaction.event(restored.event, audits=exchange.may_audit)
        restored = structs.replace(restored, event=redacted)
    await exchange.json(restored, headers=headers)


async def restore(
    service: Service, exchange: Exchange, name: str, tag: str, wanted: Digest | int, *, expected: Expected
) -> Restored:
    """Point a tag back at a digest that it had, or at the one that it had at a time (microseconds since
    1970), and record that. Raises :class:`ErrorResponse`, and as :meth:`Catalog.restore_tag` does."""
    exchange.record_audit_event(action="restore-tag", tag=tag)
    try:
        restored = await service.executors.write(
            service.stores.catalog.restore_tag,
            name,
            tag,
            wanted,
            origin=exchange.origin,
            expected=expected,
        )
    except NotFound as error:
        if not await service.executors.run(service.stores.queries.has_repository, name):
            raise
        problem = manifest_unknown(tag, name)
        hint = f" ({error.hint})" if error.hint else ""
        raise ErrorResponse(404, problem.code, f"{error.message}{hint}", detail=problem.detail) from error
    exchange.record_audit_event(
        digest=restored.to_digest, events=[] if restored.event is None else [restored.event]
    )
    return restored
