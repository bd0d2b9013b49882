"""The journal as a transparency log: checkpoint, tiles, bundles, keys and openings (docs/transparency.md)."""

from __future__ import annotations

import itertools
import logging
import math
from typing import Final

from digestry.catalog import clock
from digestry.catalog.transparency.damage import LogDamaged
from digestry.catalog.transparency.witnessing import Inconsistent, SizeDiffers
from digestry.model.digest import shown
from digestry.model.reference import check_tag
from digestry.registry.error_responses import ErrorResponse, bad_parameter
from digestry.registry.event_rates import EventRates
from digestry.registry.exchange import Exchange
from digestry.registry.service import Service
from digestry.translog.checkpoints import parse_checkpoint
from digestry.translog.cosignatures import SIZE_TYPE, origin_hash, parse_add_checkpoint
from digestry.translog.entries import Openings
from digestry.translog.log_keys import LogKey, LogKeys, declare
from digestry.translog.notes import InvalidNote, Note, parse_note, verified
from digestry.translog.tiles import Tile, parse_path

log: Final = logging.getLogger("digestry.registry")

_LARGEST_REQUEST: Final = 256 << 10
"""Room for 16 signatures of 5 kB each, which a note may have (signed-note), and the proof."""
_PAGE: Final = 100
_MOST: Final = 1000
_TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")
_BYTES: Final = ("Content-Type", "application/octet-stream")
_FRESH: Final = ("Cache-Control", "no-cache")
_FOR_EVER: Final = "max-age=31536000, immutable"


async def get_checkpoint(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Answer with the newest checkpoint, and the cosignatures that there are."""
    config = service.config.transparency
    quorum, keys = config.quorum, [key for witness in config.witnesses for key in witness.keys]
    found = await service.executors.run(service.stores.catalog.log.checkpoint, quorum=quorum, keys=keys)
    if found is None:
        if quorum and await service.executors.run(service.stores.catalog.log.checkpoint) is not None:
            raise ErrorResponse(
                503, "UNAVAILABLE", f"no checkpoint of this log has cosignatures of {quorum} witnesses yet"
            )
        raise ErrorResponse(404, "UNKNOWN", "the log of this registry was not signed yet")
    await exchange.respond(200, [_TEXT, _FRESH], found.served)


async def get_tile(service: Service, exchange: Exchange, _: str, path: str) -> None:
    """Answer with a tile of hashes, or a bundle of entries."""
    try:
        tile = parse_path(f"tile/{path}")
    except ValueError as error:
        raise ErrorResponse(400, "UNSUPPORTED", f"{path}: {error}") from error
    try:
        content, caching = await _content(service, tile)
    except LogDamaged as error:
        log.error("%s (%s)", error.message, error.hint)
        raise ErrorResponse(
            404,
            "UNKNOWN",
            f"{tile.path} of the signed log is damaged in this registry's catalog, and cannot be served",
            detail={"damaged": True},
        ) from error
    if content is None:
        raise ErrorResponse(404, "UNKNOWN", f"the log of this registry has no {tile.path} yet")
    await exchange.respond(200, [_BYTES, ("Cache-Control", caching)], content)


async def _content(service: Service, tile: Tile) -> tuple[bytes | None, str]:
    """Return a tile or bundle, None if there is none, and how it may be cached."""
    public = service.config.transparency.anonymous or not service.config.access.enabled
    caching = f"{'public' if public else 'private'}, {_FOR_EVER}"
    if tile.level is not None:
        return await service.executors.run(service.stores.catalog.log.tile, tile), caching
    bundle = await service.executors.run(service.stores.catalog.log.bundle, tile)
    if bundle is None:
        return None, caching
    if bundle.changed is not None:
        log.error(
            "entry %d of the log is not what was signed: its row of the journal was changed", bundle.changed
        )
        caching = "no-store"  # once it is put right, nobody has what was wrong
    return bundle.content, caching


async def get_keys(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Answer with the log's name, its keys, and its witnesses'."""
    found = await service.executors.run(service.stores.catalog.log.keys)
    if found is None:
        raise ErrorResponse(404, "UNKNOWN", "the log of this registry was not begun yet")
    config = service.config.transparency
    body = LogKeys(
        origin=found.origin,
        keys=tuple(
            LogKey(
                str(key.signer.verifier),
                clock.to_rfc3339(key.created_at),
                None if key.retired_at is None else clock.to_rfc3339(key.retired_at),
            )
            for key in found.keys
        ),
        earlier_origins=tuple(origin.name for origin in found.earlier),
        witnesses=tuple(str(key) for witness in config.witnesses for key in witness.keys),
        quorum=config.quorum,
        declarations=tuple(
            declare(old.signer, new.signer.verifier) for new, old in itertools.pairwise(found.keys)
        ),
        witness=await _witness_key(service),
    )
    await exchange.json(body, headers=[_FRESH])


async def _witness_key(service: Service) -> str:
    """Return the key with which this registry is a witness; empty if it is none."""
    name = service.config.transparency.witness_name
    if name is None or service.config.read_only:
        return ""
    return str(await service.executors.write(service.stores.catalog.witnessing.key, name, now=service.now()))


async def add_checkpoint(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Cosign a checkpoint of a log that this registry is a witness of (C2SP ``tlog-witness``)."""
    config = service.config.transparency
    body = await exchange.read(_LARGEST_REQUEST, patience=service.config.patience)
    try:
        asked = parse_add_checkpoint(body)
        note = parse_note(asked.note)
        checkpoint = parse_checkpoint(note.text)
    except InvalidNote as error:
        raise ErrorResponse(400, "UNSUPPORTED", error.message) from error
    logs = {witnessed.origin: witnessed.keys for witnessed in config.witnessed}
    origin = checkpoint.origin
    if origin not in logs:
        raise ErrorResponse(404, "UNKNOWN", f"this registry is no witness of the log {shown(origin)}")
    try:
        signatures = verified(note, logs[origin])
    except InvalidNote as error:
        raise ErrorResponse(403, "DENIED", error.message) from error
    if not signatures:
        raise ErrorResponse(403, "DENIED", f"no key of the log {shown(origin)} has signed the checkpoint")
    if asked.old_size > checkpoint.size:
        raise ErrorResponse(
            400,
            "UNSUPPORTED",
            f"the old size {asked.old_size} is above the checkpoint's, {checkpoint.size}",
        )
    exchange.record_audit_event(origin=origin, size=checkpoint.size)
    signed = Note(note.text, tuple(signatures.values()))
    witnessing = service.stores.catalog.witnessing
    wanted = config.witness_name or "", asked, checkpoint, signed
    try:
        signature = await service.executors.run(witnessing.check, *wanted, now=service.now())
        if signature is None:
            _admit(service.cosigned, origin)
            signature = await service.executors.write(witnessing.add, *wanted, now=service.now())
    except SizeDiffers as error:
        await exchange.respond(409, [("Content-Type", SIZE_TYPE)], f"{error.size}\n".encode())
        return
    except Inconsistent as error:
        # Anybody who has the checkpoint can send it with a wrong proof.
        if not service.contradicted.wait(origin):
            log.error(
                "the log %s does not continue what was cosigned before: %s; the checkpoint was %r",
                origin,
                error.message,
                str(signed),
            )
        raise ErrorResponse(422, "UNSUPPORTED", error.message) from error
    await exchange.respond(200, [_TEXT], signature.line.encode())


def _admit(cosigned: EventRates, origin: str) -> None:
    """Raise :class:`ErrorResponse` 429 if a log sends new checkpoints too often."""
    seconds = cosigned.wait(origin)
    if seconds:
        raise ErrorResponse(
            429,
            "TOOMANYREQUESTS",
            f"the log {shown(origin)} sends more checkpoints than this witness cosigns",
            headers={"Retry-After": str(math.ceil(seconds))},
        )


async def get_witnessed(service: Service, exchange: Exchange, _: str, path: str) -> None:
    """Answer with the last checkpoint of another log that was cosigned here."""
    hashed, slash, rest = path.partition("/")
    logs = {origin_hash(witnessed.origin): witnessed for witnessed in service.config.transparency.witnessed}
    if slash and rest == "checkpoint" and hashed in logs:
        seen = await service.executors.run(service.stores.catalog.witnessing.seen, logs[hashed].origin)
        if seen is not None:
            await exchange.respond(200, [_TEXT, _FRESH], seen.note.encode())
            return
    raise ErrorResponse(404, "UNKNOWN", "no checkpoint of that log was cosigned here")


async def get_openings(service: Service, exchange: Exchange, name: str, _: str) -> None:
    """Answer with the openings of a repository's leaves, by rising index."""
    tag = exchange.parameter("tag")
    index = _index(exchange, "index")
    limit = exchange.number("n", default=_PAGE, most=_MOST)
    found = await service.executors.run(
        service.stores.queries.log.openings,
        name,
        audits=exchange.may_audit,
        tag=None if tag is None else check_tag(tag),
        first=_index(exchange, "from") or 0,
        index=index,
        limit=limit + 1,
    )
    links = []
    if limit > 0 and len(found) > limit:
        links.append(exchange.next_page(**{"n": limit, "from": found[limit].index}))
    await exchange.json(Openings(repository=name, openings=tuple(found[:limit])), headers=links)


def _index(exchange: Exchange, name: str) -> int | None:
    value = exchange.parameter(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit()) or len(value) > 18:
        raise bad_parameter(name, value, "the index of an entry of the log is required, counted from 0")
    return int(value)
