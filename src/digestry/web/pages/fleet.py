"""The fleet: what runs by state over time, the affected containers with their way out, and the places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from digestry.catalog.fleet.places import PlaceCursor
from digestry.catalog.fleet.run_pages import RunFilter
from digestry.catalog.fleet.selection import ImageFilter
from digestry.model.fleet_answers import FleetPlaces, FleetSummary
from digestry.web.fleet_picture import FleetPicture, Group, draw_states, groups_of
from digestry.web.fleet_rows import RunRow, asker_of, rows_of, run_cursor
from digestry.web.page import Page
from digestry.web.visit import Visit

_ROWS: Final = 50
_DAY: Final = 86_400_000_000
_PERIODS: Final[Mapping[str, int]] = {
    "day": _DAY,
    "week": 7 * _DAY,
    "month": 30 * _DAY,
    "year": 365 * _DAY,
}


@dataclass(frozen=True, slots=True)
class FleetView:
    """What the page shows. ``affected`` are some affected containers of ``affected_total``; ``after`` and
    ``next_after`` are positions among them, and ``places_after`` one among the places.

    ``places`` are the sources with their agents, the longest silent first; None for visitors who may not
    audit everything.
    """

    summary: FleetSummary
    groups: Mapping[Group, int]
    picture: FleetPicture
    periods: tuple[str, ...]
    last: str
    affected: tuple[RunRow, ...]
    affected_total: int
    after: str
    next_after: str
    places: FleetPlaces | None
    places_after: str


def show(visit: Visit) -> Page:
    """Show what the visitor may know of what runs. Raises :class:`SignInNeeded`."""
    asker = asker_of(visit)
    fleet, now = visit.catalog.fleet, visit.host.now()
    last = visit.parameter("last")
    last = last if last in _PERIODS else "day"
    since = now - _PERIODS[last]
    summary = fleet.summary(asker, now=now)
    after = run_cursor(visit.parameter("after"))
    affected = fleet.runs(RunFilter(ImageFilter(state="affected")), asker, now=now, limit=_ROWS, after=after)
    places, places_after = None, _place_cursor(visit.parameter("places"))
    if asker.everything:
        places = fleet.places(now=now, limit=_ROWS, after=places_after)
    view = FleetView(
        summary=summary,
        groups=groups_of({str(state): number for state, number in summary.containers.items()}),
        picture=draw_states(fleet.state_history(asker, since=since, now=now), since=since),
        periods=tuple(_PERIODS),
        last=last,
        affected=rows_of(affected),
        affected_total=affected.total,
        after="" if after is None else str(after),
        next_after=affected.next,
        places=places,
        places_after="" if places_after is None else str(places_after),
    )
    return Page("fleet.html", "Fleet", view, section="/fleet")


def _place_cursor(text: str) -> PlaceCursor | None:
    try:
        return PlaceCursor.parse(text) if text else None
    except ValueError:
        return None
