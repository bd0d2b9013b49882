"""The age of tags, and the overrides of minimum ages: ``_digestry/age`` and ``_digestry/age-overrides``."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

import msgspec

from digestry.catalog import clock
from digestry.catalog.age_overrides import AgeOverride
from digestry.catalog.age_policy import AgeRule
from digestry.model import age_answers
from digestry.model.age_answers import AgeOverrideList, AgeOverrideRequest, OverrideEntry
from digestry.model.digest import Digest
from digestry.model.json_types import prepared
from digestry.model.reference import check_tag
from digestry.model.timestamps import parse_rfc3339
from digestry.registry.error_responses import (
    ErrorResponse,
    bad_parameter,
    manifest_unknown,
    name_unknown,
)
from digestry.registry.exchange import Exchange
from digestry.registry.service import Service

_LARGEST: Final = 64 << 10
_LONGEST: Final = 3650 * 86400
_LENGTH: Final = re.compile(r"([0-9]{1,9})(s|min|h|d|w)?", re.ASCII)
_UNITS: Final = {None: 1, "s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


async def get_age(service: Service, exchange: Exchange, name: str, tag: str) -> None:
    """Answer with what a tag resolves to under ``min-age``, or else under this registry's own rule for it."""
    check_tag(tag)
    rule = service.config.ages.rule(name, tag)
    text = exchange.parameter("min-age")
    if text is not None:
        rule = AgeRule(_length(text) * clock.SECOND)
    if not await service.executors.run(service.stores.queries.has_repository, name):
        raise name_unknown(name)
    now = service.now()
    found = await service.executors.run(service.stores.catalog.tag_ages.tag, name, tag, rule, now)
    if found.aged.refusal == "absent":
        raise manifest_unknown(tag, name)
    current = found.record.current
    body = age_answers.answer(name, tag, found.aged, current=current, basis=found.basis, now=now)
    await exchange.json(body)


def _length(text: str) -> int:
    found = _LENGTH.fullmatch(text)
    seconds = None if found is None else int(found[1]) * _UNITS[found[2]]
    if seconds is None or seconds > _LONGEST:
        raise bad_parameter("min-age", text, "seconds are required, or such as 7d, 12h or 30min")
    return seconds


async def list_overrides(service: Service, exchange: Exchange, name: str, _: str) -> None:
    """Answer with a repository's overrides that are in force; with ``ended=true``, the others too."""
    ended = exchange.parameter("ended")
    if ended not in {None, "true", "false"}:
        raise bad_parameter("ended", ended or "", "true or false is required")
    if not await service.executors.run(service.stores.queries.has_repository, name):
        raise name_unknown(name)
    rows = await service.executors.run(service.stores.catalog.age_overrides.of, name, ended=ended == "true")
    audits = exchange.may_audit
    entries = tuple(entry_of(row, audits=audits) for row in rows)
    await exchange.json(AgeOverrideList(repository=name, overrides=entries))


async def allow(service: Service, exchange: Exchange, name: str, _: str) -> None:
    """Let a digest through before its minimum age."""
    raw = await exchange.read(_LARGEST, patience=service.config.patience)
    try:
        wanted = msgspec.json.decode(raw, type=prepared(AgeOverrideRequest))
        ends = None if wanted.until is None else clock.from_datetime(parse_rfc3339(wanted.until).last)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ErrorResponse(400, "UNSUPPORTED", f"the body is not an override: {error}") from error
    if wanted.tag:
        check_tag(wanted.tag)
    digest = Digest.parse(wanted.digest) if wanted.digest else None
    exchange.record_audit_event(
        action="allow-young", tag=wanted.tag, digest=wanted.digest, reason=wanted.reason
    )
    made, event = await service.executors.write(
        service.stores.catalog.age_overrides.allow,
        name,
        tag=wanted.tag,
        digest=digest,
        ends_at=ends,
        origin=replace(exchange.origin, reason=wanted.reason),
    )
    exchange.record_audit_event(digest=made.digest, number=made.number, sequence=event.sequence)
    await exchange.json(entry_of(made, audits=exchange.may_audit))


async def revoke(service: Service, exchange: Exchange, name: str, number: str) -> None:
    """End an override."""
    if not (number.isascii() and number.isdigit() and len(number) < 18):
        raise bad_parameter("number", number, "a number of an override is required")
    reason = exchange.parameter("reason") or ""
    exchange.record_audit_event(action="revoke-young", number=int(number), reason=reason)
    ended, event = await service.executors.write(
        service.stores.catalog.age_overrides.revoke,
        name,
        int(number),
        origin=replace(exchange.origin, reason=reason),
    )
    exchange.record_audit_event(digest=ended.digest, tag=ended.tag, sequence=event.sequence)
    await exchange.json(entry_of(ended, audits=exchange.may_audit))


def entry_of(row: AgeOverride, *, audits: bool) -> OverrideEntry:
    """Return the wire form of an override; with the actor for who ``audits``."""
    return OverrideEntry(
        number=row.number,
        repository=row.repository,
        reason=row.reason,
        created=clock.to_datetime(row.created_at),
        tag=row.tag,
        digest=row.digest,
        actor=row.actor if audits else "",
        until=None if row.ends_at is None else clock.to_datetime(row.ends_at),
        ended=None if row.ended_at is None else clock.to_datetime(row.ended_at),
    )
