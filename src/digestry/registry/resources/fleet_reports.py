"""The reports of agents: ``POST _digestry/fleet/reports`` (docs/http-api.md)."""

from __future__ import annotations

from typing import Final

import msgspec

from digestry.model.descriptor import decode_hook
from digestry.model.fleet import LARGEST_REPORT, FleetReport, within
from digestry.model.json_types import prepared
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.exchange import Exchange
from digestry.registry.service import Service

_decoder: Final = msgspec.json.Decoder(prepared(FleetReport), dec_hook=decode_hook)


async def record_report(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Record what an agent reports; answer with the number up to which its entries are recorded for good."""
    came_at = service.now()
    body = await exchange.read(LARGEST_REPORT, patience=service.config.patience)
    report = await service.executors.run(_parse, body)
    principal = exchange.principal
    if principal.place is not None and not within(report.place, principal.place):
        raise ErrorResponse(
            403,
            "DENIED",
            f"the token of {principal.identity.name} reports for {principal.place}, not for {report.place}",
            detail={"place": principal.place},
        )
    # A heartbeat promises nothing that must outlive a loss of power.
    write = service.executors.write if report.entries else service.executors.write_volatile
    receipt = await write(
        service.stores.catalog.fleet.record,
        report,
        actor=principal.identity.name,
        came_at=came_at,
        now=service.now(),
    )
    await exchange.json(receipt)


def _parse(body: bytes) -> FleetReport:
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError) as error:
        raise ErrorResponse(400, "UNSUPPORTED", f"the body is not a report: {error}") from error
