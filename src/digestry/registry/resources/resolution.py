"""Bulk queries about many images: ``POST /v2/_digestry/resolve`` (docs/http-api.md)."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import msgspec
from msgspec import structs

from digestry.catalog.resolution import Piece
from digestry.errors import InvalidReference, StorageError
from digestry.model.descriptor import decode_hook, encode_hook
from digestry.model.json_types import prepared
from digestry.model.reference import check_repository, check_tag
from digestry.model.resolution import (
    LARGEST_REQUEST,
    MOST_QUERIES,
    MOST_THINGS,
    Resolution,
    Resolutions,
    ResolveRequest,
)
from digestry.registry.access.principal import Principal
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.exchange import JSON, Exchange
from digestry.registry.resources import redaction
from digestry.registry.service import Service
from digestry.registry.stores import ContentDamaged

log: Final = logging.getLogger("digestry.registry")

_LARGEST_PIECE: Final = 128 << 10
_MOST_CONTENTS: Final = 8 << 20
_decoder: Final = msgspec.json.Decoder(prepared(ResolveRequest), dec_hook=decode_hook)
_encoder: Final = msgspec.json.Encoder(enc_hook=encode_hook)


async def resolve(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Answer many queries at once. An unknown digest or tag has an empty answer, and never a 404."""
    body = await exchange.read(LARGEST_REQUEST, patience=service.config.patience)
    # Decoding, looking and encoding are each too long for the event loop.
    request = await service.executors.run(_parse, body)
    names = await _canonical(service, exchange.principal, [query.repository for query in request.queries])
    hidden = service.gate.hidden(exchange, set(names))
    # No repository has the empty name: a hidden repository is answered as an absent one.
    names = ["" if name in hidden else name for name in names]
    mirrored = await _mirrored(service, exchange.principal, set(names))
    answer = await service.executors.run(_answer, service, request, names, mirrored, exchange.principal)
    await exchange.respond(200, [("Content-Type", JSON)], answer)


async def _canonical(service: Service, principal: Principal, names: list[str]) -> list[str]:
    """Return the repositories that ``names`` mean. All are looked up together."""
    if service.mirrors is None:
        return names
    distinct = list(dict.fromkeys(names))
    found = await asyncio.gather(*(service.canonical_repository(name, principal) for name in distinct))
    canonical = dict(zip(distinct, found, strict=True))
    return [canonical[name] for name in names]


async def _mirrored(service: Service, principal: Principal, names: set[str]) -> set[str]:
    """Return those of ``names`` that are another registry's. All are looked up together."""
    if service.mirrors is None:
        return set()
    distinct = list(names)
    origins = await asyncio.gather(*(service.origin(name, principal) for name in distinct))
    return {name for name, origin in zip(distinct, origins, strict=True) if origin}


def _answer(
    service: Service,
    request: ResolveRequest,
    names: list[str],
    mirrored: set[str],
    principal: Principal,
) -> bytes:
    """Return the response's body.

    ``names`` are the repositories of the queries, as this registry calls them; ``mirrored`` are those that
    belong to an upstream.
    """
    audited = {name for name in names if principal.audits(name)}
    queries = [
        query if query.repository == name else structs.replace(query, repository=name)
        for query, name in zip(request.queries, names, strict=True)
    ]
    found = service.stores.catalog.resolve(queries, contents=request.contents, visible=principal.may_see)
    ages, policy, now = service.stores.catalog.tag_ages, service.config.ages, service.now()
    resolutions = tuple(
        _with_requested_name(
            ages.with_served(answer if answer.repository in audited else _withheld(answer), policy, now),
            query.repository,
            mirrored=answer.repository in mirrored,
        )
        for answer, query in zip(found.resolutions, request.queries, strict=False)
    )
    return _encoder.encode(Resolutions(resolutions, _contents(service, found.pieces)))


def _withheld(answer: Resolution) -> Resolution:
    tags = tuple(
        structs.replace(tag, events=tuple(redaction.event(event, audits=False) for event in tag.events))
        for tag in answer.tags
    )
    return structs.replace(answer, tags=tags)


def _with_requested_name(answer: Resolution, name: str, *, mirrored: bool) -> Resolution:
    """Return an answer with the repository's name as in the query.

    The tags and referrers of a mirrored repository need a request to upstream: clients get them by the single
    requests.
    """
    if mirrored:
        return structs.replace(answer, repository=name, tags=(), referrers={}, upstream=True)
    return answer if answer.repository == name else structs.replace(answer, repository=name)


def _parse(body: bytes) -> ResolveRequest:
    try:
        request = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ErrorResponse(
            400, "UNSUPPORTED", f"the body does not have the required form: {error}"
        ) from error
    if len(request.queries) > MOST_QUERIES:
        raise ErrorResponse(
            400,
            "UNSUPPORTED",
            f"{len(request.queries)} repositories in one request; {MOST_QUERIES} are the most",
            detail={"limit": MOST_QUERIES},
        )
    things = sum(query.things for query in request.queries)
    if things > MOST_THINGS:
        raise ErrorResponse(
            400,
            "UNSUPPORTED",
            f"{things} digests, tags and prefixes in one request; {MOST_THINGS} are the most",
            detail={"limit": MOST_THINGS},
        )
    for position, query in enumerate(request.queries):
        try:
            check_repository(query.repository)
            for tag in query.tags:
                check_tag(tag)
        except InvalidReference as error:
            raise ErrorResponse(400, "NAME_INVALID", f"query {position}: {error.message}") from error
    return request


def _contents(service: Service, pieces: list[Piece]) -> dict[str, str]:
    """Return small contents as text, as many as one answer has room for."""
    contents: dict[str, str] = {}
    left = _MOST_CONTENTS
    for piece in pieces:
        if piece.size > min(_LARGEST_PIECE, left):
            continue
        try:
            contents[str(piece.digest)] = service.stores.read(piece.digest, piece.size).decode()
        except UnicodeDecodeError:
            continue  # JSON has no bytes
        except ContentDamaged as error:
            service.quarantine_in_background(error)
            continue
        except StorageError as error:
            log.error("%s", error.message)
            continue
        left -= piece.size
    return contents
