"""What agents reported, for users who may audit: ``_digestry/fleet/…`` (docs/http-api.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar, get_args

from digestry.catalog import clock
from digestry.catalog.fleet.changes import ChangeCursor
from digestry.catalog.fleet.places import PlaceCursor
from digestry.catalog.fleet.run_pages import RunCursor, RunFilter
from digestry.catalog.fleet.selection import Asker, ImageFilter
from digestry.errors import InvalidReference
from digestry.model.digest import Digest
from digestry.model.fleet import LONGEST_TEXT
from digestry.model.fleet_answers import MOST_ROWS, FleetState
from digestry.model.reference import Reference
from digestry.registry.error_responses import ErrorResponse, bad_parameter
from digestry.registry.exchange import Exchange
from digestry.registry.resources.tag_history import time_parameter
from digestry.registry.service import Service

NO_HOST: Final = "registry.invalid"
"""The host of an image's name without one: it is of this registry."""

_PAGE: Final = 100
_STATES: Final[tuple[str, ...]] = get_args(FleetState)
_DAY: Final = 86_400 * clock.SECOND

_Cursor = TypeVar("_Cursor")


async def list_runs(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Answer with a page of runs, those that run first, then the latest first."""
    answer = await service.executors.run(
        service.stores.catalog.fleet.runs,
        _choice(exchange),
        asker(exchange),
        now=service.now(),
        limit=exchange.number("n", default=_PAGE, most=MOST_ROWS),
        after=_after(exchange, RunCursor.parse),
        with_reports=_flag(exchange, "with-images"),
    )
    await exchange.json(answer)


async def list_changes(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Answer with a page of what started and ended in a time, the oldest first."""
    now = service.now()
    since, until = time_parameter(exchange, "since"), time_parameter(exchange, "until", last=True)
    answer = await service.executors.run(
        service.stores.catalog.fleet.changes,
        _choice(exchange),
        asker(exchange),
        since=now - _DAY if since is None else since,
        until=(now if until is None else until) + 1,
        now=now,
        limit=exchange.number("n", default=_PAGE, most=MOST_ROWS),
        after=_after(exchange, ChangeCursor.parse),
    )
    await exchange.json(answer)


async def list_places(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Answer with a page of the agents and what they look at, the longest silent first."""
    principal = exchange.principal
    if not principal.audits_everything():
        raise ErrorResponse(
            403,
            "DENIED",
            f"{principal.identity.name} may not see all places: no rule of this registry allows it to audit"
            " every repository",
            detail={"action": "audit"},
        )
    answer = await service.executors.run(
        service.stores.catalog.fleet.places,
        now=service.now(),
        limit=exchange.number("n", default=_PAGE, most=MOST_ROWS),
        place=exchange.parameter("place") or "",
        silent=_flag(exchange, "silent"),
        after=_after(exchange, PlaceCursor.parse),
    )
    await exchange.json(answer)


async def get_summary(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Answer with the fleet in numbers."""
    answer = await service.executors.run(
        service.stores.catalog.fleet.summary, asker(exchange), now=service.now()
    )
    await exchange.json(answer)


async def get_timeline(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Answer with how many containers of some images ran over time, and when the last one ended."""
    choice = replace(_choice(exchange), images=image_filter(exchange, ever=True))
    if choice.images.everything:
        raise bad_parameter("digest", "", "a digest, a reference or a vulnerability is required")
    answer = await service.executors.run(
        service.stores.catalog.fleet.timeline, choice, asker(exchange), now=service.now()
    )
    await exchange.json(answer)


def _choice(exchange: Exchange) -> RunFilter:
    ever = _flag(exchange, "ever")
    return RunFilter(
        images=image_filter(exchange, ever=ever),
        place=exchange.parameter("place") or "",
        at=time_parameter(exchange, "at", last=True),
        ever=ever,
    )


def _after(exchange: Exchange, parse: Callable[[str], _Cursor]) -> _Cursor | None:
    """Return where the page before ended; None for the first page."""
    value = exchange.parameter("after")
    if not value:
        return None
    try:
        return parse(value)
    except ValueError as error:
        raise bad_parameter("after", value, "it must be the next of a page before") from error


def asker(exchange: Exchange) -> Asker:
    """Return what the sender of a request may know of."""
    principal = exchange.principal
    return Asker(principal.audits_everything(), principal.audits, principal.may_see)


def image_filter(exchange: Exchange, *, ever: bool = False) -> ImageFilter:
    """Return the choice of images that a request's parameters make. Raises :class:`ErrorResponse`."""
    digest, name = exchange.parameter("digest"), exchange.parameter("reference")
    reference = None if name is None else _reference(name)
    here = {NO_HOST, str(exchange.host or exchange.header(b"host") or "")}
    return ImageFilter(
        digest=None if digest is None else Digest.parse(digest),
        reference=reference,
        own=reference is None or reference.host in here,
        vulnerability=(exchange.parameter("vulnerability") or "")[:LONGEST_TEXT],
        state=_state(exchange),
        ever=ever,
    )


def _state(exchange: Exchange) -> str:
    state = exchange.parameter("state") or ""
    if state and state not in _STATES:
        raise bad_parameter("state", state, f"it is one of {', '.join(_STATES)}")
    return state


def _reference(name: str) -> Reference:
    try:
        return Reference.parse(name, default_host=NO_HOST)
    except InvalidReference as error:
        raise bad_parameter("reference", name, error.message) from error


def _flag(exchange: Exchange, name: str) -> bool:
    value = exchange.parameter(name)
    if value not in {None, "0", "1"}:
        raise bad_parameter(name, str(value), "0 or 1 is required")
    return value == "1"
