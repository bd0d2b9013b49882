"""The health of one worker process: ``/livez``, ``/readyz`` and ``/healthz``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from digestry.registry.exchange import JSON, Exchange
from digestry.registry.observability.health import ADVICE, OK
from digestry.registry.service import Service

_STOPPING: Final = {"stopping": "requests are still answered, and no new clients should come"}


async def get_alive(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Answer 200: this process answers."""
    await _answer(exchange, {})


async def get_ready(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Answer 200 with the checks; 503 with the failed ones, or once the server is about to stop."""
    await _answer(exchange, _STOPPING if service.draining() else await service.health.checks())


async def _answer(exchange: Exchange, checks: Mapping[str, str]) -> None:
    good = all(result == OK or name in ADVICE for name, result in checks.items())
    body = msgspec.json.encode({"status": OK if good else "unavailable", "checks": checks})
    headers = [("Content-Type", JSON), ("Cache-Control", "no-store")]
    await exchange.respond(200 if good else 503, headers, body)
