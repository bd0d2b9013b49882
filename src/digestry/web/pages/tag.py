"""A tag's history: every move as a picture and as a table, and what of it still runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from digestry.catalog import clock
from digestry.catalog.running_images import RunningImage
from digestry.catalog.tag_timeline import TagMove, TagTotals
from digestry.errors import NotFound
from digestry.web.page import Page
from digestry.web.timeline_picture import Picture, draw
from digestry.web.visit import Visit

_PAGE: Final = 50
_DAY: Final = 86_400_000_000
_PERIODS: Final[Mapping[str, int]] = {
    "day": _DAY,
    "week": 7 * _DAY,
    "month": 30 * _DAY,
    "year": 365 * _DAY,
}
_DIGITS: Final = 19


@dataclass(frozen=True, slots=True)
class MoveLine:
    """A move in the table: the tag came to ``digest``, or, deleted, it left it, at the time ``at``, and moved
    on at ``until``, None for the last move.

    ``who``, ``address`` and ``client`` are empty for visitors who may not know them; ``observed_in`` is the
    registry in which a mirror saw the move, which happened after ``not_before``, if that is known.
    ``present`` is whether the repository still has the digest.
    """

    event: str
    at: int
    until: int | None
    digest: str
    before: str
    who: str
    address: str
    client: str
    observed_in: str
    not_before: int | None
    present: bool
    current: bool
    running: RunningImage | None


@dataclass(frozen=True, slots=True)
class TagView:
    """What the page of a tag shows. ``periods`` are the names of the periods that are shorter than the whole
    history; ``last`` is the chosen one, empty for the whole.

    ``immovable`` is why a visitor who may push cannot move the tag here; empty if they can.
    ``still`` are moves to other digests than the current one that still run. ``next_before`` is the time that
    the next page's moves are before; 0 if there is none.
    """

    name: str
    tag: str
    totals: TagTotals
    picture: Picture
    moves: tuple[MoveLine, ...]
    still: tuple[MoveLine, ...]
    audits: bool
    pushes: bool
    immovable: str
    periods: tuple[str, ...]
    last: str
    before: int
    next_before: int
    pull: str


def show(visit: Visit) -> Page:
    """Show the history of a tag, also of one that was deleted. Raises :class:`NotFound`."""
    name, tag = visit.repository(), visit.path["tag"]
    audits = visit.visitor.audits(name)
    last, text = visit.parameter("last"), visit.parameter("before")
    last = last if last in _PERIODS else ""
    before = int(text) if text.isascii() and text.isdecimal() and len(text) < _DIGITS else 0
    now = visit.host.now()
    found = visit.catalog.browsing.timeline(
        name, tag, before=before or None, limit=_PAGE, last=_PERIODS.get(last), now=now, running=audits
    )
    if found is None:
        raise NotFound(f"there never was a tag {tag} in {name}")
    totals = found.totals
    immovable = visit.host.immovable(name)
    lines = tuple(_line(move, totals, found.present, found.running, audits=audits) for move in found.moves)
    seen = {line.digest: line for line in lines if line.running is not None and not line.current}
    view = TagView(
        name=name,
        tag=tag,
        totals=totals,
        picture=draw(found.period, current=totals.digest, running=seen),
        moves=lines,
        still=tuple(seen.values()),
        audits=audits,
        pushes="push" in visit.visitor.allowed(name) and not immovable,
        immovable=immovable if "push" in visit.visitor.allowed(name) else "",
        periods=tuple(period for period, length in _PERIODS.items() if now - totals.first_at > length),
        last=last,
        before=before,
        next_before=lines[-1].at if found.more else 0,
        pull=f"docker pull {visit.registry}/{name}:{tag}@{totals.digest}" if totals.digest else "",
    )
    return Page("tag.html", f"{name}:{tag}", view, section="/")


def _line(
    move: TagMove,
    totals: TagTotals,
    present: frozenset[str],
    running: Mapping[str, RunningImage],
    *,
    audits: bool,
) -> MoveLine:
    event = move.event
    digest = str(event.to_digest or event.from_digest)
    return MoveLine(
        event=event.event,
        at=clock.from_datetime(event.at),
        until=move.until,
        digest=digest,
        before="" if event.from_digest is None or event.to_digest is None else str(event.from_digest),
        who=event.actor if audits and not event.observed_in else "",
        address=event.address if audits else "",
        client=event.client if audits else "",
        observed_in=event.observed_in,
        not_before=None if event.not_before is None else clock.from_datetime(event.not_before),
        present=digest in present,
        current=digest == totals.digest,
        running=running.get(digest),
    )
