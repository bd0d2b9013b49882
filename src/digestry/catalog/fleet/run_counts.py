"""How many runs started and ended, by image, in quarters of a day and in days.

Questions about very many runs are answered from these counts, not from the runs. A count that all reports of
a popular image changed would have them wait for each other: so each transaction that changes runs notes what
it changes in a row of its own, and the upkeep adds these rows to the counts. The two together are exact at
any time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Subquery,
    Table,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    union_all,
)

from digestry.catalog import clock, dialect
from digestry.catalog.database import Database
from digestry.catalog.fleet_schema import fleet_run_changes, fleet_run_counts
from digestry.catalog.transactions import retried

DAY: Final = 86_400 * clock.SECOND
QUARTER: Final = DAY // 4
"""The times that runs are counted in, in microseconds: a change of the time of day is in all of them."""

_BATCH: Final = 2000
_NOTHING: Final = delete(fleet_run_counts).where(
    fleet_run_counts.c.length == bindparam("of_length"),
    fleet_run_counts.c.from_at == bindparam("of_time"),
    fleet_run_counts.c.image == bindparam("of_image"),
    fleet_run_counts.c.started == 0,
    fleet_run_counts.c.ended == 0,
)


class RunChanges:
    """What one transaction changes of the runs' starts and ends."""

    def __init__(self) -> None:
        self._counts: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])

    def add_run(self, image: int, started_at: int, ended_at: int | None, *, times: int = 1) -> None:
        """Count a run that is made; with ``times`` -1 one that is removed."""
        self._count(image, started_at, 0, times)
        self.add_end(image, ended_at, times=times)

    def add_end(self, image: int, ended_at: int | None, *, times: int = 1) -> None:
        """Count the end of a run, if it has one; with ``times`` -1 an end that was none."""
        if ended_at is not None:
            self._count(image, ended_at, 1, times)

    def _count(self, image: int, at: int, kind: int, times: int) -> None:
        self._counts[at - at % QUARTER, image][kind] += times

    def note(self, connection: Connection) -> None:
        """Leave them to the upkeep, with the transaction that changes the runs."""
        rows = [
            {"from_at": from_at, "image": image, "started": started, "ended": ended}
            for (from_at, image), (started, ended) in self._counts.items()
            if started or ended
        ]
        if rows:
            connection.execute(insert(fleet_run_changes), rows)


class FleetRunCounts:
    """The upkeep of the counts. Thread-safe; each method blocks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_changes(self, *, stopped: Callable[[], bool] = bool) -> int:
        """Add what transactions noted to the counts; return how many rows that were."""
        added = 0
        while not stopped():
            some = self._add_some()
            added += some
            if some < _BATCH:
                break
        return added

    @retried
    def _add_some(self) -> int:
        # The rows that this transaction deletes, and no other, are counted by it.
        first = select(fleet_run_changes.c.number).order_by(fleet_run_changes.c.number).limit(_BATCH)
        gone = delete(fleet_run_changes).where(fleet_run_changes.c.number.in_(first))
        columns = fleet_run_changes.c
        with self._database.write(durable=False) as connection:
            changes = connection.execute(
                gone.returning(columns.from_at, columns.image, columns.started, columns.ended)
            ).all()
            counts: dict[tuple[int, int, int], list[int]] = defaultdict(lambda: [0, 0])
            for row in changes:
                for length in (QUARTER, DAY):
                    count = counts[length, row.from_at - row.from_at % length, row.image]
                    count[0] += row.started
                    count[1] += row.ended
            keys = sorted(key for key, count in counts.items() if any(count))
            if keys:
                connection.execute(
                    dialect.of(connection).upserts.fleet_run_count,
                    [
                        {
                            "length": key[0],
                            "from_at": key[1],
                            "image": key[2],
                            "started": started,
                            "ended": ended,
                        }
                        for key in keys
                        for started, ended in (counts[key],)
                    ],
                )
            less = [key for key in keys if min(counts[key]) < 0]
            if less:
                connection.execute(
                    _NOTHING,
                    [dict(zip(("of_length", "of_time", "of_image"), key, strict=True)) for key in less],
                )
            return len(changes)


def counted(length: int, images: Select[Any] | None, *, since: int | None = None) -> Subquery:
    """Return the counts of ``images`` (of all without), in times of ``length``, from ``since`` on, a multiple
    of it: ``from_at``, ``image``, ``started``, ``ended``. A time and an image may have several rows."""
    parts = []
    for table, from_at, conditions in _tables(length):
        query = select(from_at.label("from_at"), table.c.image, table.c.started, table.c.ended)
        parts.append(query.where(*_wanted(table, conditions, images, since)))
    return union_all(*parts).subquery("counted")


def counted_by_time(length: int, images: Select[Any] | None) -> Subquery:
    """Return the counts of all ``images`` together: each ``from_at`` with what ``started`` and ``ended``."""
    parts = []
    for table, from_at, conditions in _tables(length):
        # Each apart: the rows of the counts are in this order, and a sum over both would sort them.
        sums = func.sum(table.c.started).label("started"), func.sum(table.c.ended).label("ended")
        query = select(from_at.label("from_at"), *sums).where(*_wanted(table, conditions, images, None))
        parts.append(query.group_by(from_at))
    both = union_all(*parts).subquery()
    sums = func.sum(both.c.started).label("started"), func.sum(both.c.ended).label("ended")
    return select(both.c.from_at, *sums).group_by(both.c.from_at).subquery("by_time")


def _tables(length: int) -> list[tuple[Table, ColumnElement[int], list[ColumnElement[bool]]]]:
    noted = (fleet_run_changes.c.from_at // literal(length)) * literal(length)
    return [
        (fleet_run_counts, fleet_run_counts.c.from_at, [fleet_run_counts.c.length == length]),
        (fleet_run_changes, noted, []),
    ]


def _wanted(
    table: Any, conditions: Iterable[ColumnElement[bool]], images: Select[Any] | None, since: int | None
) -> list[ColumnElement[bool]]:
    found = list(conditions)
    if images is not None:
        found.append(table.c.image.in_(images))
    if since is not None:
        found.append(table.c.from_at >= since)
    return found
