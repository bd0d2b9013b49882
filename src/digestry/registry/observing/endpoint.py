"""``/metrics``: all worker processes' counts in one, and how the store is, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from digestry.registry.access.rules import Rule
from digestry.registry.exchange import Exchange
from digestry.registry.problems import Problem, not_allowed

if TYPE_CHECKING:
    from digestry.registry.service import Service

PATH: Final = "/metrics"


async def handle(service: Service, exchange: Exchange) -> None:
    """Answers a scrape."""
    if not service.config.metrics.enabled:
        raise Problem(404, "UNSUPPORTED", "this registry tells no metrics: its configuration says so")
    if exchange.method not in {"GET", "HEAD"}:
        raise not_allowed(exchange.method, "GET, HEAD")
    _require(service, exchange)
    await service.observer.publish(service)
    async with service.scrape.turn:
        body, content_type = await service.disk(service.scrape.text, exchange.header(b"accept") or "")
    await exchange.answer(200, [("Content-Type", content_type), ("Cache-Control", "no-store")], body)


def _require(service: Service, exchange: Exchange) -> None:
    """Raises :class:`Problem` 401 or 403 for who may not read the metrics."""
    access = service.config.access
    identity = exchange.asker.identity
    who = service.config.metrics.who
    if not access.enabled:
        return
    allowed = Rule(who, (), frozenset()).is_for(identity) if who else _administers_all(access.rules, exchange)
    if allowed:
        return
    if identity.anonymous:
        raise service.gate.unauthorized(exchange, "log in to read the metrics")
    text = f"{identity.name} may not read the metrics: no rule of this registry allows it"
    raise Problem(403, "DENIED", text)


def _administers_all(rules: tuple[Rule, ...], exchange: Exchange) -> bool:
    session = exchange.asker
    # A token that was asked for one repository is not good for all of them.
    return session.grants is None and any(
        "admin" in rule.actions and "**" in rule.repositories and rule.is_for(session.identity)
        for rule in rules
    )
