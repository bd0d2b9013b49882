"""What agents reported, for users who may audit: ``_digestry/fleet/…`` (docs/http-api.md)."""

from __future__ import annotations

from typing import Final

from digestry.catalog.fleet.run_pages import RunCursor, RunFilter
from digestry.catalog.fleet.selection import Asker, ImageFilter
from digestry.errors import InvalidReference
from digestry.model.digest import Digest
from digestry.model.fleet import LONGEST_TEXT
from digestry.model.fleet_answers import MOST_ROWS
from digestry.model.reference import Reference
from digestry.registry.error_responses import bad_parameter
from digestry.registry.exchange import Exchange
from digestry.registry.resources.tag_history import time_parameter
from digestry.registry.service import Service

NO_HOST: Final = "registry.invalid"
"""The host of an image's name without one: it is of this registry."""

_PAGE: Final = 100


async def list_runs(service: Service, exchange: Exchange, _: str, __: str) -> None:
    """Answer with a page of runs, those that run first, then the latest first."""
    ever = _flag(exchange, "ever")
    after = exchange.parameter("after")
    try:
        cursor = None if not after else RunCursor.parse(after)
    except ValueError as error:
        raise bad_parameter("after", str(after), "it must be the next of a page before") from error
    answer = await service.executors.run(
        service.stores.catalog.fleet.runs,
        RunFilter(
            images=image_filter(exchange, ever=ever),
            place=exchange.parameter("place") or "",
            at=time_parameter(exchange, "at", last=True),
            ever=ever,
        ),
        asker(exchange),
        now=service.now(),
        limit=exchange.number("n", default=_PAGE, most=MOST_ROWS),
        after=cursor,
        with_reports=_flag(exchange, "with-images"),
    )
    await exchange.json(answer)


def asker(exchange: Exchange) -> Asker:
    """Return what the sender of a request may know of."""
    principal = exchange.principal
    return Asker(principal.audits_everything(), principal.audits)


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
        state=exchange.parameter("state") or "",
        ever=ever,
    )


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
