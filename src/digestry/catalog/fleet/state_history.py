"""How many containers ran over time, by the state that their images have now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, func, literal, select

from digestry.catalog.fleet.selection import Asker, ImageFilter, chosen
from digestry.catalog.fleet_schema import fleet_images, fleet_runs

STEPS: Final = 96
"""The equal steps that a time is shown in."""


@dataclass(frozen=True, slots=True)
class StateCount:
    """The containers that ran at the time ``at`` (microseconds since 1970), by the state of their images."""

    at: int
    containers: Mapping[str, int]


def state_history(connection: Connection, asker: Asker, *, since: int, now: int) -> list[StateCount]:
    """Return the containers at the end of each of :data:`STEPS` steps from ``since`` to ``now``, of the
    images that ``asker`` may know of.

    What runs now is counted, and from there back what started and ended: runs that ended before are not read.
    A container in a silent place has no end, and so is counted.
    """
    length = max(1, -(-(now - since) // STEPS))
    numbers = chosen(connection, ImageFilter(), asker)
    mine: list[ColumnElement[bool]] = [] if numbers is None else [fleet_runs.c.image.in_(numbers)]
    current: Counter[str] = Counter()
    for row in connection.execute(_counted(None, [*mine, fleet_runs.c.ended_at.is_(None)])):
        current[row.state] += row.runs
    changes: dict[int, Counter[str]] = {step: Counter() for step in range(STEPS)}
    for at, direction in ((fleet_runs.c.started_at, 1), (fleet_runs.c.ended_at, -1)):
        place = (at - literal(since)) // literal(length)
        for row in connection.execute(_counted(place, [*mine, at > since, at <= now])):
            changes[min(int(row.step), STEPS - 1)][row.state] += direction * row.runs
    found = []
    for step in reversed(range(STEPS)):
        counts = {state: number for state, number in current.items() if number > 0}
        found.append(StateCount(min(since + (step + 1) * length, now), counts))
        current.subtract(changes[step])
    return found[::-1]


def _counted(step: Any, conditions: list[ColumnElement[bool]]) -> Any:
    """Return the SELECT that counts runs by the state of their images and, unless it is None, by a step."""
    by = [] if step is None else [step.label("step")]
    inner = select(fleet_runs.c.image, *by).where(*conditions).subquery()
    columns = [fleet_images.c.state, *([] if step is None else [inner.c.step])]
    joined = select(*columns, func.count().label("runs")).join_from(
        inner, fleet_images, fleet_images.c.number == inner.c.image
    )
    return joined.group_by(*columns)
