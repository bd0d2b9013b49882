"""The endpoints ``/metrics``, ``/livez``, ``/readyz`` and ``/healthz``."""

from __future__ import annotations

from typing import Final

import msgspec

from digestry.registry.access.rules import Rule
from digestry.registry.error_responses import ErrorResponse, not_allowed
from digestry.registry.exchange import JSON, Exchange
from digestry.registry.observability.health import ADVICE, OK
from digestry.registry.service import Service

METRICS: Final = "/metrics"
LIVE: Final = "/livez"
READY: Final = "/readyz"
READY_TOO: Final = "/healthz"


async def handle_health(service: Service, exchange: Exchange, path: str) -> None:
    """Answer 200 with the checks, or 503 with those that failed. No login is required."""
    if exchange.method not in {"GET", "HEAD"}:
        raise not_allowed(exchange.method, "GET, HEAD")
    checks = {} if path == LIVE else await service.health.checks()
    good = all(result == OK or name in ADVICE for name, result in checks.items())
    body = msgspec.json.encode({"status": OK if good else "unavailable", "checks": checks})
    headers = [("Content-Type", JSON), ("Cache-Control", "no-store")]
    await exchange.answer(200 if good else 503, headers, body)


async def handle_metrics(service: Service, exchange: Exchange) -> None:
    """Answer a scrape with the metrics."""
    if not service.config.metrics.enabled:
        raise ErrorResponse(404, "UNSUPPORTED", "this registry tells no metrics: its configuration says so")
    if exchange.method not in {"GET", "HEAD"}:
        raise not_allowed(exchange.method, "GET, HEAD")
    _require(service, exchange)
    await service.observer.publish()
    async with service.scrape.turn:
        body, content_type = await service.disk(service.scrape.text, exchange.header(b"accept") or "")
    await exchange.answer(200, [("Content-Type", content_type), ("Cache-Control", "no-store")], body)


def _require(service: Service, exchange: Exchange) -> None:
    """Check the right to read the metrics. Raises :class:`ErrorResponse` 401 or 403."""
    access = service.config.access
    identity = exchange.principal.identity
    who = service.config.metrics.who
    if not access.enabled:
        return
    allowed = Rule(who, (), frozenset()).is_for(identity) if who else _administers_all(access.rules, exchange)
    if allowed:
        return
    if identity.anonymous:
        raise service.gate.unauthorized(exchange, "log in to read the metrics")
    text = f"{identity.name} may not read the metrics: no rule of this registry allows it"
    raise ErrorResponse(403, "DENIED", text)


def _administers_all(rules: tuple[Rule, ...], exchange: Exchange) -> bool:
    session = exchange.principal
    # A token that was asked for one repository is not good for all of them.
    return session.grants is None and any(
        "admin" in rule.actions and "**" in rule.repositories and rule.is_for(session.identity)
        for rule in rules
    )
