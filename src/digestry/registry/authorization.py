"""Authorize requests: check that the principal has the rights that a route requires."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from digestry.model.reference import check_repository
from digestry.registry.access.rules import Rule
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.exchange import Exchange
from digestry.registry.route import Access
from digestry.registry.service import Service

_RIGHTS: Final = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}
_TAKES: Final = frozenset({"POST", "PUT", "PATCH"})

_check_repository: Final = functools.lru_cache(4096)(check_repository)
"""The same few names are requested repeatedly."""


def allowed(service: Service, exchange: Exchange, name: str, right: str) -> Service:
    """Return the service that answers a request about a repository: an empty one if it is hidden.

    Raises :class:`ErrorResponse` 401 or 403 for a request that the rules do not allow, :class:`StorageFull`
    for a request that would store something while only deletions have room.
    """
    _check_repository(name)
    exchange.repository = name
    visible = service.gate.require(exchange, name, right)
    if exchange.scope["method"] in _TAKES:
        service.executors.reserve.check()
    return service if visible else service.hidden()


def _right(right: str) -> Access:
    return Access(right, lambda service, exchange, name: allowed(service, exchange, name, right))


def _by_method(service: Service, exchange: Exchange, name: str) -> Service:
    return allowed(service, exchange, name, _RIGHTS.get(exchange.scope["method"], "push"))


def _audit(service: Service, exchange: Exchange, name: str) -> Service:
    found = allowed(service, exchange, name, "pull")
    service.gate.require_audit(exchange, name)
    return found


def _registry(name: str, require: Callable[[Service, Exchange], None]) -> Access:
    def check(service: Service, exchange: Exchange, _: str) -> Service:
        require(service, exchange)
        return service

    return Access(name, check)


def check_metrics(service: Service, *_: str) -> None:
    """Raise :class:`ErrorResponse` 404 if the configuration turns the metrics off."""
    if not service.config.metrics.enabled:
        raise ErrorResponse(
            404, "UNSUPPORTED", "this registry does not publish metrics: its configuration says so"
        )


def check_log(service: Service, *_: str) -> None:
    """Raise :class:`ErrorResponse` 404 if the configuration turns the transparency log off."""
    if not service.config.transparency.enabled:
        raise ErrorResponse(
            404, "UNSUPPORTED", "this registry has no transparency log: its configuration says so"
        )


def _log_reader(service: Service, exchange: Exchange) -> None:
    """Raise :class:`ErrorResponse` 401 for a client that may not read the transparency log.

    The log shows nothing that not everybody may read: who gets an answer from ``/v2/`` reads it.
    """
    check_log(service)
    if not service.config.transparency.anonymous:
        service.gate.require_login(exchange)


def check_witness(service: Service, *_: str) -> None:
    """Raise :class:`ErrorResponse` 404 if this registry is the witness of no log."""
    if not service.config.transparency.witnessed:
        raise ErrorResponse(404, "UNSUPPORTED", "this registry is the witness of no log")


def _witness(service: Service, _: Exchange) -> None:
    # The signature on the checkpoint says who asks (tlog-witness).
    check_witness(service)
    service.executors.reserve.check()


def _opener(service: Service, exchange: Exchange, name: str) -> Service:
    check_log(service)
    return allowed(service, exchange, name, "pull")


def _metrics_reader(service: Service, exchange: Exchange) -> None:
    """Raise :class:`ErrorResponse` 401 or 403 for a client that may not read the metrics."""
    check_metrics(service)
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
    principal = exchange.principal
    # A token for one repository is not valid for all of them.
    return principal.grants is None and any(
        "admin" in rule.actions and "**" in rule.repositories and rule.is_for(principal.identity)
        for rule in rules
    )


PULL: Final = _right("pull")
PUSH: Final = _right("push")
DELETE: Final = _right("delete")
MOVE_TAG: Final = _right("move-tag")
AUDIT: Final = Access("audit", _audit)
BY_METHOD: Final = Access("by method", _by_method)
"""For methods that a route does not have: pull, delete or push, as the method says."""
LOGIN: Final = _registry("login", lambda service, exchange: service.gate.require_login(exchange))
CATALOG: Final = _registry("catalog", lambda service, exchange: service.gate.require_catalog(exchange))
READER: Final = _registry(
    "reader", lambda service, exchange: service.gate.require_reader(exchange, "log in to ask about images")
)
NAME: Final = _registry(
    "name", lambda service, exchange: service.gate.require_name(exchange, "log in to report what runs")
)
AGENT: Final = _registry("agent", lambda service, exchange: service.gate.require_agent(exchange))
AUDITOR: Final = _registry("auditor", lambda service, exchange: service.gate.require_auditor(exchange))
LOG: Final = _registry("log", _log_reader)
OPENINGS: Final = Access("pull", _opener)
WITNESS: Final = _registry("", _witness)
WITNESSED: Final = _registry("", lambda service, _: check_witness(service))
METRICS: Final = _registry("metrics", _metrics_reader)
