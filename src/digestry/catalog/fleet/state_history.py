"""How many containers ran over time, by the state that their images have now."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, func, literal, select

from digestry.catalog.fleet import run_counts
from digestry.catalog.fleet.selection import Asker, ImageFilter, chosen
from digestry.catalog.fleet_schema import fleet_images, fleet_runs

STEPS: Final = 96
"""The equal steps that a time is shown in, at the least."""


@dataclass(frozen=True, slots=True)
class StateCount:
    """The containers that ran at the time ``at`` (microseconds since 1970), by the state of their images."""

    at: int
    containers: Mapping[str, int]


def state_history(connection: Connection, asker: Asker, *, since: int, now: int) -> list[StateCount]:
    """Return the containers at the end of each of :data:`STEPS` steps from ``since`` to ``now``, of the
    images that ``asker`` may know of. Steps of a quarter of a day or more are rounded down to whole ones, or
    to whole days, of which the last one may have a part: so there are up to twice as many.

    What runs now is counted, and from there back what started and ended: runs that ended before are not read.
    A container in a silent place has no end, and so is counted.
    """
    length = max(1, -(-(now - since) // STEPS))
    numbers = chosen(connection, ImageFilter(), asker)
    mine: list[ColumnElement[bool]] = [] if numbers is None else [fleet_runs.c.image.in_(numbers)]
    current: Counter[str] = Counter()
    for row in connection.execute(_counted(None, [*mine, fleet_runs.c.ended_at.is_(None)])):
        current[row.state] += int(row.runs)
    steps = STEPS
    if length < run_counts.QUARTER:
        changes = _of_runs(connection, mine, since, now, length)
    else:
        unit = run_counts.QUARTER if length < run_counts.DAY else run_counts.DAY
        length -= length % unit
        since -= since % unit
        steps = -(-(now - since) // length)
        changes = _of_counts(connection, numbers, unit, since, length)
    found = []
    for step in reversed(range(steps)):
        counts = {state: number for state, number in current.items() if number > 0}
        found.append(StateCount(min(since + (step + 1) * length, now), counts))
        current.subtract(changes[step])
    return found[::-1]


def _of_runs(
    connection: Connection, mine: list[ColumnElement[bool]], since: int, now: int, length: int
) -> Mapping[int, Counter[str]]:
    """Return how many more containers run in each step than before it, by the states of their images."""
    changes: dict[int, Counter[str]] = defaultdict(Counter)
    for at, direction in ((fleet_runs.c.started_at, 1), (fleet_runs.c.ended_at, -1)):
        place = (at - literal(since)) // literal(length)
        for row in connection.execute(_counted(place, [*mine, at > since, at <= now])):
            changes[min(int(row.step), STEPS - 1)][row.state] += direction * int(row.runs)
    return changes


def _of_counts(
    connection: Connection, images: Select[Any] | None, unit: int, since: int, length: int
) -> Mapping[int, Counter[str]]:
    """Return the same of the counts in times of ``unit``, which ``since`` and ``length`` are multiples of."""
    counts = run_counts.counted(unit, images, since=since)
    place = ((counts.c.from_at - literal(since)) // literal(length)).label("step")
    more = func.sum(counts.c.started - counts.c.ended).label("more")
    # An image's counts are added up before its state is looked up.
    inner = select(place, counts.c.image, more).group_by(place, counts.c.image).subquery()
    query = (
        select(inner.c.step, fleet_images.c.state, func.sum(inner.c.more).label("more"))
        .join_from(inner, fleet_images, fleet_images.c.number == inner.c.image)
        .group_by(inner.c.step, fleet_images.c.state)
    )
    changes: dict[int, Counter[str]] = defaultdict(Counter)
    for row in connection.execute(query):
        changes[int(row.step)][row.state] += int(row.more)
    return changes


def _counted(step: ColumnElement[int] | None, conditions: list[ColumnElement[bool]]) -> Select[Any]:
    """Return the SELECT that counts runs by the state of their images and, unless it is None, by a step."""
    by = [] if step is None else [step.label("step")]
    # An image's runs are counted before its state is looked up.
    inner = select(fleet_runs.c.image, *by, func.count().label("runs")).where(*conditions)
    grouped = inner.group_by(fleet_runs.c.image, *by).subquery()
    columns = [fleet_images.c.state, *([] if step is None else [grouped.c.step])]
    joined = select(*columns, func.sum(grouped.c.runs).label("runs")).join_from(
        grouped, fleet_images, fleet_images.c.number == grouped.c.image
    )
    return joined.group_by(*columns)
