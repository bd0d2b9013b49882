"""How many containers of some images ran over time, and when the last one ended."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, func, literal, select

from digestry.catalog import clock
from digestry.catalog.fleet.run_pages import RunFilter, run_conditions
from digestry.catalog.fleet.selection import Asker
from digestry.catalog.fleet.silence import source_silent
from digestry.catalog.fleet_schema import fleet_agents, fleet_runs, fleet_sources
from digestry.model.fleet_answers import MOST_POINTS, FleetTimeline, TimelinePoint


def timeline_of(
    connection: Connection, choice: RunFilter, asker: Asker, *, now: int, most: int = MOST_POINTS
) -> FleetTimeline:
    """Return the timeline of all runs of the chosen images that ``asker`` may know of.

    It has a point for each change, or ``most`` points in equal steps.
    """
    mine = run_conditions(connection, RunFilter(choice.images, choice.place), asker)
    # Apart, because each has an index of its own.
    parts = [(*mine, fleet_runs.c.ended_at.is_(None)), (*mine, fleet_runs.c.ended_at.is_not(None))]
    (running, *_), (ended, *_) = facts = [_facts(connection, part) for part in parts]
    total = running + ended
    if not total:
        return FleetTimeline((), True, 0, 0, 0, limited=not asker.everything)
    first = min(started for _, started, _ in facts if started is not None)
    last = facts[1][2]
    exact = total + ended <= most
    end = now if running or last is None else last
    step = 1 if exact else max(1, -(-(end - first) // (most - 1)))
    changes: Counter[int] = Counter()
    for part in parts:
        changes.update(dict(_grouped(connection, part, fleet_runs.c.started_at, first, step)))
    changes.subtract(dict(_grouped(connection, parts[1], fleet_runs.c.ended_at, first, step)))
    times = sorted(at for at, change in changes.items() if change)
    counts = itertools.accumulate(changes[at] for at in times)
    last_end = None if running else last
    return FleetTimeline(
        points=tuple(
            TimelinePoint(clock.to_datetime(first + at * step), count)
            for at, count in zip(times, counts, strict=True)
        ),
        exact=exact,
        running=running,
        unknown=_unknown(connection, mine, now) if running else 0,
        total=total,
        first=clock.to_datetime(first),
        last_end=None if last_end is None else clock.to_datetime(last_end),
        last_end_after=None if last_end is None else _earliest_end(connection, mine, last_end),
        limited=not asker.everything,
    )


def _facts(
    connection: Connection, conditions: Iterable[ColumnElement[bool]]
) -> tuple[int, int | None, int | None]:
    """Return how many runs there are, when the first one started, and when the last one ended."""
    query = select(func.count(), func.min(fleet_runs.c.started_at), func.max(fleet_runs.c.ended_at))
    row = connection.execute(query.select_from(fleet_runs).where(*conditions)).one()
    return int(row[0]), row[1], row[2]


def _grouped(
    connection: Connection, conditions: Iterable[ColumnElement[bool]], at: Any, first: int, step: int
) -> list[tuple[int, int]]:
    """Return how many runs have the time ``at`` in each step, by the step that ends with it."""
    place = ((at - literal(first)) + literal(step - 1)) // literal(step)
    inner = select(place.label("step")).select_from(fleet_runs).where(*conditions).subquery()
    query = select(inner.c.step, func.count().label("runs")).group_by(inner.c.step)
    return [(int(row.step), int(row.runs)) for row in connection.execute(query)]


def _unknown(connection: Connection, mine: Iterable[ColumnElement[bool]], now: int) -> int:
    query = (
        select(func.count(case((source_silent(now), 1))))
        .select_from(fleet_runs)
        .join(fleet_sources, fleet_sources.c.number == fleet_runs.c.source)
        .outerjoin(fleet_agents, fleet_agents.c.number == fleet_sources.c.agent)
        .where(*mine, fleet_runs.c.ended_at.is_(None))
    )
    return int(connection.execute(query).scalar_one())


def _earliest_end(connection: Connection, mine: Iterable[ColumnElement[bool]], last: int) -> Any:
    """Return the earliest time at which the last run may have ended: several may have the same end."""
    query = select(func.max(fleet_runs.c.ended_after)).where(*mine, fleet_runs.c.ended_at == last)
    return clock.to_datetime(int(connection.execute(query).scalar_one()))
