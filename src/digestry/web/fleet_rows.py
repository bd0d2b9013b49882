"""Containers that agents reported, as rows of a page."""

from __future__ import annotations

from dataclasses import dataclass

from digestry.catalog.fleet.run_pages import RunCursor
from digestry.catalog.fleet.selection import Asker
from digestry.model.fleet_answers import FleetImage, FleetRun, FleetRuns
from digestry.web.visit import SignInNeeded, Visit


@dataclass(frozen=True, slots=True)
class RunRow:
    """A container, and the image that it runs or ran; None if it is no longer known."""

    run: FleetRun
    image: FleetImage | None


def asker_of(visit: Visit) -> Asker:
    """Return what the visitor may know of what runs.

    Raises :class:`SignInNeeded` for an anonymous visitor who may know of nothing.
    """
    visitor = visit.visitor
    if visitor.identity.anonymous and not visitor.audits_anything():
        raise SignInNeeded
    return Asker(visitor.audits_everything(), visitor.audits, visitor.may_see)


def rows_of(page: FleetRuns) -> tuple[RunRow, ...]:
    """Return the rows of a page of runs."""
    images = {image.number: image for image in page.images}
    return tuple(RunRow(run, images.get(run.image)) for run in page.runs)


def run_cursor(text: str) -> RunCursor | None:
    """Return the position that a page's address has; None for the first page, and for a text that is none."""
    try:
        return RunCursor.parse(text) if text else None
    except ValueError:
        return None
