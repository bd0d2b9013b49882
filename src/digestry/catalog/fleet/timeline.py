"""How many containers of some images ran over time, and when the last one ended."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, case, func, literal, select

from digestry.catalog import clock
from digestry.catalog.fleet import run_counts
from digestry.catalog.fleet.run_pages import RunFilter, run_conditions
from digestry.catalog.fleet.selection import Asker, chosen
from digestry.catalog.fleet.silence import source_silent
from digestry.catalog.fleet_schema import fleet_agents, fleet_runs, fleet_sources
from digestry.model.fleet_answers import MOST_POINTS, FleetTimeline, TimelinePoint

_MOST_READ: Final = 100_000
"""Of more runs the counts are read, whose times are longer."""
_MOST_READ_OF_SHORT: Final = 500_000
"""Of a timeline whose steps are much shorter than the counts' times, more runs are read."""


def timeline_of(
    connection: Connection,
    choice: RunFilter,
    asker: Asker,
    *,
    now: int,
    most: int = MOST_POINTS,
    most_read: int = _MOST_READ,
    most_of_short: int = _MOST_READ_OF_SHORT,
) -> FleetTimeline:
    """Return the timeline of all runs of the chosen images that ``asker`` may know of.

    It has a point for each change, or at the most ``most`` points in equal steps. Of more runs than
    ``most_read``, or ``most_of_short`` within days or weeks, the steps are whole quarters of days.
    """
    mine = run_conditions(connection, RunFilter(choice.images, choice.place), asker)
    found: _Found | None = None
    if not choice.place:
        found = _of_counts(
            connection,
            mine,
            chosen(connection, choice.images, asker),
            now,
            most=most,
            most_read=most_read,
            most_of_short=most_of_short,
        )
    facts, changes = found or _of_runs(connection, mine, now, most)
    if facts is None:
        return FleetTimeline((), True, 0, 0, 0, limited=not asker.everything)
    times = sorted(at for at, change in changes.items() if change)
    counts = itertools.accumulate(changes[at] for at in times)
    last_end = None if facts.running else facts.last
    return FleetTimeline(
        points=tuple(
            TimelinePoint(clock.to_datetime(at), count) for at, count in zip(times, counts, strict=True)
        ),
        exact=facts.exact,
        running=facts.running,
        unknown=_unknown(connection, mine, now) if facts.running else 0,
        total=facts.total,
        first=clock.to_datetime(facts.first),
        last_end=None if last_end is None else clock.to_datetime(last_end),
        last_end_after=None if last_end is None else _earliest_end(connection, mine, last_end),
        limited=not asker.everything,
    )


@dataclass(frozen=True, slots=True)
class _Facts:
    """How many runs there are, and are not over; when the first one started, and when the last one ended."""

    total: int
    running: int
    first: int
    last: int | None
    exact: bool


_Conditions = tuple[ColumnElement[bool], ...]
_Found = tuple[_Facts | None, Mapping[int, int]]
"""The facts, None without runs, and by how many more run from a time on."""


def _of_runs(connection: Connection, mine: _Conditions, now: int, most: int) -> _Found:
    """Return what the runs themselves say."""
    # Apart, because each has an index of its own.
    parts = [(*mine, fleet_runs.c.ended_at.is_(None)), (*mine, fleet_runs.c.ended_at.is_not(None))]
    (running, *_), (ended, *_) = found = [_facts(connection, part) for part in parts]
    total = running + ended
    if not total:
        return None, {}
    first = min(started for _, started, _ in found if started is not None)
    facts = _Facts(total, running, first, found[1][2], total + ended <= most)
    end = now if running or facts.last is None else facts.last
    step = 1 if facts.exact else max(1, -(-(end - first) // (most - 1)))
    changes: Counter[int] = Counter()
    for part in parts:
        changes.update(dict(_grouped(connection, part, fleet_runs.c.started_at, first, step)))
    changes.subtract(dict(_grouped(connection, parts[1], fleet_runs.c.ended_at, first, step)))
    return facts, {first + at * step: change for at, change in changes.items()}


def _of_counts(
    connection: Connection,
    mine: _Conditions,
    images: Select[Any] | None,
    now: int,
    *,
    most: int,
    most_read: int,
    most_of_short: int,
) -> _Found | None:
    """Return what the counts of days, or of quarters of days, say; None where the runs are to be read."""
    days = run_counts.counted_by_time(run_counts.DAY, images)
    query = select(
        func.coalesce(func.sum(days.c.started), 0),
        func.coalesce(func.sum(days.c.ended), 0),
        func.min(case((days.c.started > 0, days.c.from_at))),
        func.max(case((days.c.ended > 0, days.c.from_at))),
    )
    total, ended, first_day, last_day = connection.execute(query).one()
    if total <= most_read or first_day is None:
        return None
    length = (now if total > ended or last_day is None else last_day) - first_day
    if length < most * run_counts.QUARTER // 2 and total <= most_of_short:
        return None
    running, first_running, _ = _facts(connection, (*mine, fleet_runs.c.ended_at.is_(None)))
    first = _within(connection, mine, func.min(fleet_runs.c.started_at), first_day)
    last = _within(connection, mine, func.max(fleet_runs.c.ended_at), last_day)
    if first is None or (ended and last is None):
        return None
    if first_running is not None:
        first = min(first, first_running)
    facts = _Facts(int(ended) + running, running, first, last, exact=False)
    end = now if running or last is None else last
    shortest = max(1, -(-(end - first) // (most - 2)))
    unit = run_counts.DAY if shortest > 2 * run_counts.QUARTER else run_counts.QUARTER
    step = -(-shortest // unit) * unit
    begin = first - first % unit
    counts = run_counts.counted_by_time(unit, images)
    place = (counts.c.from_at - literal(begin)) // literal(step)
    inner = select(place.label("step"), counts.c.started, counts.c.ended).subquery()
    by_step = select(inner.c.step, func.sum(inner.c.started - inner.c.ended).label("more"))
    changes: Counter[int] = Counter()
    for row in connection.execute(by_step.group_by(inner.c.step)):
        changes[min(begin + (int(row.step) + 1) * step, end)] += int(row.more)
    return facts, changes


def _within(connection: Connection, mine: _Conditions, what: Any, day: int | None) -> int | None:
    """Return the first start, or the last end, within a day."""
    if day is None:
        return None
    (at,) = what.clauses
    query = select(what).select_from(fleet_runs).where(*mine, at >= day, at < day + run_counts.DAY)
    found = connection.execute(query).scalar()
    return None if found is None else int(found)


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
