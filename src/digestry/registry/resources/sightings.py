"""Sightings: reported by audits, and listed for users who may audit a repository (docs/http-api.md)."""

from __future__ import annotations

from typing import Final

import msgspec

from digestry.catalog.sightings import BATCH, merged
from digestry.errors import InvalidReference
from digestry.model.descriptor import decode_hook
from digestry.model.digest import Digest
from digestry.model.json_types import prepared
from digestry.model.reference import check_repository
from digestry.model.sightings import (
    LARGEST_REQUEST,
    MOST_SIGHTINGS,
    SightingReport,
    SightingsReceipt,
    SightingsRequest,
)
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.exchange import Exchange
from digestry.registry.service import Service

_PAGE: Final = 100
_MOST: Final = 1000

_decoder: Final = msgspec.json.Decoder(prepared(SightingsRequest), dec_hook=decode_hook)


async def note_sightings(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Record sightings of running images.

    The answer has only the number of digests that are unknown, or that the principal may not pull.
    """
    body = await exchange.read(LARGEST_REQUEST, patience=service.config.patience)
    entries = await service.executors.run(_parse, body)
    hidden = service.gate.hidden(exchange, {entry.repository for entry in entries})
    seen = [entry for entry in entries if entry.repository not in hidden]
    result = SightingsReceipt(unknown=len(entries) - len(seen))
    at, actor = service.now(), exchange.principal.identity.name
    # In parts: a push that waits for the writer's thread need not wait for all of them.
    for start in range(0, len(seen), BATCH):
        part = seen[start : start + BATCH]
        result += await service.executors.write(
            service.stores.catalog.sightings.note, part, at=at, actor=actor
        )
    counts = {"noted": result.noted, "unknown": result.unknown}
    if result.refused:
        counts["refused"] = result.refused
    exchange.record_audit_event(events=(), **counts)
    await exchange.json(counts)


def _parse(body: bytes) -> list[SightingReport]:
    try:
        entries = _decoder.decode(body).sightings
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ErrorResponse(
            400, "UNSUPPORTED", f"the body does not have the required form: {error}"
        ) from error
    if len(entries) > MOST_SIGHTINGS:
        raise ErrorResponse(
            400,
            "UNSUPPORTED",
            f"{len(entries)} sightings in one request; {MOST_SIGHTINGS} are the most",
            detail={"limit": MOST_SIGHTINGS},
        )
    for position, entry in enumerate(entries):
        try:
            check_repository(entry.repository)
        except InvalidReference as error:
            raise ErrorResponse(400, "NAME_INVALID", f"sighting {position}: {error.message}") from error
    return merged(entries)


async def list_sightings(service: Service, exchange: Exchange, name: str, text: str) -> None:
    """Answer with the places where a digest ran; empty, and never a 404, for one that was not seen."""
    digest = Digest.parse(text)
    limit = exchange.number("n", default=_PAGE, most=_MOST)
    await exchange.json(
        await service.executors.run(service.stores.queries.sightings.of, name, digest, limit=limit)
    )
