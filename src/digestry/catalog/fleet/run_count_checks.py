"""The comparison of the counts of runs with the runs, day by day, and the correction of what differs.

Every transaction that changes runs notes what it changes (:mod:`~digestry.catalog.fleet.run_counts`). A count
may still be wrong: a program of somebody else changed the runs, or a defect did. Each day is compared in one
statement, which sees the runs and the counts of one moment. A difference is noted as one more change: what
reports note meanwhile stays right beside it.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    case,
    delete,
    func,
    insert,
    literal,
    select,
    union_all,
    update,
)

from digestry.catalog.database import Database
from digestry.catalog.fleet.run_counts import DAY, QUARTER
from digestry.catalog.fleet_schema import (
    LONGER_THAN,
    fleet_run_changes,
    fleet_run_counts,
    fleet_runs,
)
from digestry.catalog.transactions import retried

_MOST_CORRECTED: Final = 5000


class FleetRunCountChecks:
    """The check of the counts. Thread-safe; each method blocks. One process at a time may call :meth:`check`,
    the one that adds changes to the counts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def next_day(self, after: int | None) -> int | None:
        """Return the first day after the day ``after`` that has runs or counts; None if there is none."""
        since = 0 if after is None else after + DAY
        firsts = [
            select(func.min(column).label("at")).where(column >= since)
            for column in (
                fleet_runs.c.started_at,
                fleet_runs.c.ended_at,
                fleet_run_counts.c.from_at,
                fleet_run_changes.c.from_at,
            )
        ]
        found = union_all(*firsts).subquery()
        with self._database.read() as connection:
            at = connection.execute(select(func.min(found.c.at))).scalar_one()
        return None if at is None else int(at) - int(at) % DAY

    def check(self, day: int) -> int:
        """Compare the counts of a day with its runs, and correct them; return how many were wrong."""
        return self._check_quarters(day) + self._check_days(day) + self._check_lengths(day)

    @retried
    def _check_quarters(self, day: int) -> int:
        with self._database.read() as connection:
            if connection.execute(_differences(day).limit(1)).first() is None:
                return 0
        names = ["from_at", "image", "started", "ended"]
        with self._database.write(durable=False) as connection:
            statement = insert(fleet_run_changes).from_select(names, _differences(day))
            return connection.execute(statement).rowcount

    @retried
    def _check_days(self, day: int) -> int:
        with self._database.read() as connection:
            if not connection.execute(_days_unlike_quarters(day)).all():
                return 0
        with self._database.write(durable=False) as connection:
            images = list(connection.execute(_days_unlike_quarters(day)).scalars())
            mine = fleet_run_counts.c.from_at == day, fleet_run_counts.c.image.in_(images)
            connection.execute(delete(fleet_run_counts).where(fleet_run_counts.c.length == DAY, *mine))
            summed = (
                _quarters(day)
                .with_only_columns(
                    literal(DAY).label("length"),
                    literal(day).label("day"),
                    fleet_run_counts.c.image,
                    func.sum(fleet_run_counts.c.started),
                    func.sum(fleet_run_counts.c.ended),
                )
                .where(fleet_run_counts.c.image.in_(images))
                .group_by(fleet_run_counts.c.image)
            )
            names = ["length", "from_at", "image", "started", "ended"]
            connection.execute(insert(fleet_run_counts).from_select(names, summed))
            return len(images)

    @retried
    def _check_lengths(self, day: int) -> int:
        """Correct ``longer_than`` of the runs that ended on a day."""
        with self._database.read() as connection:
            if _lengths_agree(connection, day):
                return 0
        with self._database.write(durable=False) as connection:
            ended = _within(fleet_runs.c.ended_at, day)
            right = _longer_than(fleet_runs.c.ended_at - fleet_runs.c.started_at)
            wrong = fleet_runs.c.longer_than.is_distinct_from(right)
            statement = update(fleet_runs).where(*ended, wrong).values(longer_than=right)
            return connection.execute(statement).rowcount


def _within(at: Column[Any], day: int) -> tuple[ColumnElement[bool], ...]:
    return at >= day, at < day + DAY


def _quarters(day: int) -> Select[Any]:
    found = select(fleet_run_counts).where(fleet_run_counts.c.length == QUARTER)
    return found.where(*_within(fleet_run_counts.c.from_at, day))


def _differences(day: int) -> Select[Any]:
    """Return the SELECT of what is missing in the counts of quarters, and their changes, of a day."""
    parts: list[Select[Any]] = []
    for at, is_start in ((fleet_runs.c.started_at, 1), (fleet_runs.c.ended_at, 0)):
        from_at = ((at // literal(QUARTER)) * literal(QUARTER)).label("from_at")
        columns = fleet_runs.c.image, literal(is_start).label("started"), literal(1 - is_start).label("ended")
        parts.append(select(from_at, *columns).where(*_within(at, day)))
    for table, of_quarters in (
        (fleet_run_counts, [fleet_run_counts.c.length == QUARTER]),
        (fleet_run_changes, []),
    ):
        counted = (-table.c.started).label("started"), (-table.c.ended).label("ended")
        part = select(table.c.from_at, table.c.image, *counted)
        parts.append(part.where(*of_quarters, *_within(table.c.from_at, day)))
    found = union_all(*parts).subquery()
    started, ended = func.sum(found.c.started), func.sum(found.c.ended)
    query = select(found.c.from_at, found.c.image, started.label("started"), ended.label("ended"))
    return query.group_by(found.c.from_at, found.c.image).having((started != 0) | (ended != 0))


def _days_unlike_quarters(day: int) -> Select[Any]:
    """Return the SELECT of the images of which a day's count is not the sum of its quarters'."""
    days = select(
        fleet_run_counts.c.image,
        (-fleet_run_counts.c.started).label("started"),
        (-fleet_run_counts.c.ended).label("ended"),
    ).where(fleet_run_counts.c.length == DAY, fleet_run_counts.c.from_at == day)
    columns = fleet_run_counts.c.image, fleet_run_counts.c.started, fleet_run_counts.c.ended
    found = union_all(days, _quarters(day).with_only_columns(*columns)).subquery()
    wrong = (func.sum(found.c.started) != 0) | (func.sum(found.c.ended) != 0)
    return select(found.c.image).group_by(found.c.image).having(wrong).limit(_MOST_CORRECTED)


def _longer_than(length: ColumnElement[int]) -> ColumnElement[int]:
    classes = sorted(LONGER_THAN, reverse=True)
    return case(*((length > days * DAY, literal(days)) for days in classes))


def _lengths_agree(connection: Connection, day: int) -> bool:
    """Return whether the index of long runs has those that it should have; both sides are in indices."""
    ended = _within(fleet_runs.c.ended_at, day)
    length = fleet_runs.c.ended_at - fleet_runs.c.started_at
    classes = _longer_than(length).label("longer")
    long = select(classes, fleet_runs.c.number).where(*ended, length > DAY).subquery()
    one = select(long.c.longer, func.count(), func.sum(long.c.number)).group_by(long.c.longer)
    of_class = fleet_runs.c.longer_than.in_(LONGER_THAN)
    other = select(fleet_runs.c.longer_than, func.count(), func.sum(fleet_runs.c.number))
    other = other.where(of_class, *ended).group_by(fleet_runs.c.longer_than)
    return {tuple(row) for row in connection.execute(one)} == {
        tuple(row) for row in connection.execute(other)
    }
