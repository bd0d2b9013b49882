"""The base of the API, ``/v2/``, and the answers to unknown paths."""

from __future__ import annotations

from digestry.registry.error_responses import ErrorResponse
from digestry.registry.exchange import Exchange
from digestry.registry.service import Service


async def get_base(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Answer with an empty object: this registry speaks the distribution-spec's API."""
    await exchange.respond(200, [("Content-Type", "application/json")], b"{}")


async def refuse_extension(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Raise :class:`ErrorResponse` 404 for an extension that this registry does not have."""
    raise ErrorResponse(404, "UNSUPPORTED", "there is no such extension; see /v2/_oci/ext/discover")
