"""The agents and what they look at, the longest silent first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, exists, select, tuple_

from digestry.catalog import clock, dialect
from digestry.catalog.fleet.silence import agent_silent, source_silent
from digestry.catalog.fleet_schema import fleet_agents, fleet_gaps, fleet_sources
from digestry.model.fleet_answers import MOST_ROWS, FleetAgent, FleetGap, FleetPlaces, FleetSource


@dataclass(frozen=True, slots=True)
class PlaceCursor:
    """Where a page ended: after the source with ``number``, which was confirmed at ``confirmed_at``."""

    confirmed_at: int
    number: int

    def __str__(self) -> str:
        return f"{self.confirmed_at}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> PlaceCursor:
        """Return the cursor that ``text`` is. Raises ValueError."""
        at, _, number = text.partition(".")
        if not (text.isascii() and at.isdigit() and number.isdigit()) or max(len(at), len(number)) > 18:
            raise ValueError(f"{text!r} is no cursor of places")
        return cls(int(at), int(number))


def page_of_places(
    connection: Connection,
    *,
    now: int,
    limit: int,
    place: str = "",
    silent: bool = False,
    after: PlaceCursor | None = None,
) -> FleetPlaces:
    """Return a page of sources, with their agents and gaps; with ``silent`` only those of which nobody knows
    what runs there now. With the first page come the agents that have no source."""
    query = (
        select(fleet_sources, source_silent(now).label("silent"))
        .outerjoin(fleet_agents, fleet_agents.c.number == fleet_sources.c.agent)
        .order_by(fleet_sources.c.confirmed_at, fleet_sources.c.number)
    )
    if place:
        query = query.where(_within(fleet_sources.c.place, place))
    if silent:
        query = query.where(source_silent(now))
    if after is not None:
        order = tuple_(fleet_sources.c.confirmed_at, fleet_sources.c.number)
        query = query.where(order > tuple_(after.confirmed_at, after.number))
    rows = connection.execute(query.limit(limit + 1)).all()
    page = rows[:limit]
    last = page[-1] if page and len(rows) > limit else None
    return FleetPlaces(
        agents=_agents(connection, page, now, place=place, silent=silent, first=after is None),
        sources=_sources(page),
        gaps=_gaps(connection, page),
        next="" if last is None else str(PlaceCursor(last.confirmed_at, last.number)),
    )


def _within(column: ColumnElement[str], place: str) -> ColumnElement[bool]:
    found: ColumnElement[bool] = (column == place) | column.startswith(f"{place}/", autoescape=True)
    return found


def _agents(
    connection: Connection, page: Iterable[Row[Any]], now: int, *, place: str, silent: bool, first: bool
) -> tuple[FleetAgent, ...]:
    places = dialect.of(connection).bulk_keys(sorted({(row.place, "") for row in page}), str)
    listed: ColumnElement[bool] = fleet_agents.c.place.in_(select(places.first).select_from(places.table))
    if first:
        has_source = exists().where(fleet_sources.c.place == fleet_agents.c.place).correlate(fleet_agents)
        alone: ColumnElement[bool] = ~has_source
        if place:
            alone &= _within(fleet_agents.c.place, place)
        if silent:
            alone &= agent_silent(now)
        listed |= alone
    query = select(fleet_agents, agent_silent(now).label("silent")).where(listed)
    query = query.order_by(fleet_agents.c.last_at, fleet_agents.c.number).limit(2 * MOST_ROWS)
    return tuple(
        FleetAgent(
            id=row.id,
            place=row.place,
            version=row.version,
            user=row.actor,
            first=clock.to_datetime(row.first_at),
            last=clock.to_datetime(row.last_at),
            interval=row.interval,
            clock_ahead=row.clock_offset / clock.SECOND,
            silent=bool(row.silent),
            stopped=None if row.stopped_at is None else clock.to_datetime(row.stopped_at),
        )
        for row in connection.execute(query)
    )


def _sources(page: Iterable[Row[Any]]) -> tuple[FleetSource, ...]:
    return tuple(
        FleetSource(
            place=row.place,
            source=row.source,
            confirmed=clock.to_datetime(row.confirmed_at),
            running=row.running,
            silent=bool(row.silent),
            problem=row.problem,
            problem_since=None if row.problem_at is None else clock.to_datetime(row.problem_at),
        )
        for row in page
    )


def _gaps(connection: Connection, page: Iterable[Row[Any]]) -> tuple[FleetGap, ...]:
    names = {row.number: row for row in page}
    keys = dialect.of(connection).bulk_keys([(number, "") for number in sorted(names)], int)
    query = (
        select(fleet_gaps)
        .join_from(keys.table, fleet_gaps, fleet_gaps.c.source == keys.first)
        .order_by(fleet_gaps.c.until_at.desc(), fleet_gaps.c.number.desc())
        .limit(MOST_ROWS)
    )
    return tuple(
        FleetGap(
            place=names[row.source].place,
            source=names[row.source].source,
            from_=clock.to_datetime(row.from_at),
            until=clock.to_datetime(row.until_at),
            reason=row.reason,
        )
        for row in connection.execute(query)
    )
