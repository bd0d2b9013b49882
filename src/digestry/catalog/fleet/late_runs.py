"""Runs that are committed late: on PostgreSQL after runs with higher numbers.

A run gets its number before its transaction commits, so several nodes may commit them in another order.
Whoever reads the runs after the highest number so far remembers which lower ones were not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, func, or_, select

from digestry.catalog import clock
from digestry.catalog.fleet_schema import fleet_runs

_AWAITED: Final = 600 * clock.SECOND
"""For how long a number is awaited: far longer than a transaction lasts. Its transaction has failed then."""
_MOST_RANGES: Final = 2000
_EACH: Final = 200


class MissingRuns(msgspec.Struct, frozen=True, array_like=True):
    """Numbers from ``first`` to ``last`` that no run had at the time ``since`` (microseconds since 1970)."""

    first: int
    last: int
    since: int


def missing_between(connection: Connection, after: int, last: int, now: int) -> list[MissingRuns]:
    """Return the numbers after ``after``, to ``last``, that no run has."""
    between = (fleet_runs.c.number > after) & (fleet_runs.c.number <= last)
    if (
        connection.execute(select(func.count()).select_from(fleet_runs).where(between)).scalar()
        == last - after
    ):
        return []
    before = func.lag(fleet_runs.c.number, 1, after).over(order_by=fleet_runs.c.number).label("before")
    steps = select(fleet_runs.c.number, before).where(between).subquery()
    holes = select(steps).where(steps.c.number > steps.c.before + 1).order_by(steps.c.number)
    return [MissingRuns(row.before + 1, row.number - 1, now) for row in connection.execute(holes)]


def there_by_now(connection: Connection, missing: Sequence[MissingRuns]) -> list[int]:
    """Return the numbers among ``missing`` that runs have now."""
    found: list[int] = []
    for start in range(0, len(missing), _EACH):
        some = missing[start : start + _EACH]
        inside = (fleet_runs.c.number.between(one.first, one.last) for one in some)
        found += connection.execute(select(fleet_runs.c.number).where(or_(*inside))).scalars()
    return sorted(found)


def still_awaited(missing: Iterable[MissingRuns], there: Sequence[int], now: int) -> tuple[MissingRuns, ...]:
    """Return what of ``missing`` is awaited at ``now``: neither ``there`` nor too long ago."""
    found: list[MissingRuns] = []
    for one in missing:
        if now - one.since > _AWAITED:
            continue
        first = one.first
        for number in (number for number in there if one.first <= number <= one.last):
            if first < number:
                found.append(MissingRuns(first, number - 1, one.since))
            first = number + 1
        if first <= one.last:
            found.append(MissingRuns(first, one.last, one.since))
    return tuple(found[-_MOST_RANGES:])
