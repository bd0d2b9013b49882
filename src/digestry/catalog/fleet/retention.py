"""The end of what is known of the fleet: old runs, agents and sources that are gone, images that nothing ran.

Each transaction removes a limited number of rows, so that no report waits long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, delete, exists, func, select, update

from digestry.catalog import clock, dialect
from digestry.catalog.database import Database
from digestry.catalog.fleet.run_counts import RunChanges
from digestry.catalog.fleet_schema import (
    fleet_agents,
    fleet_early_ends,
    fleet_gaps,
    fleet_image_digests,
    fleet_image_vulnerabilities,
    fleet_images,
    fleet_runs,
    fleet_snapshot_runs,
    fleet_sources,
)
from digestry.catalog.transactions import retried

_BATCH: Final = 2000
_SOURCES: Final = 100
_UNFINISHED: Final = 24 * 3600 * clock.SECOND
"""For so long ends wait for their starts, and snapshots for their last parts."""
_UNUSED: Final = 24 * 3600 * clock.SECOND
"""An image without runs is kept for so long after it was first reported."""


class FleetRetention:
    """Removes what is older than a time. Thread-safe; each method blocks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def prune(self, *, keep: int | None, now: int, stopped: Callable[[], bool] = bool) -> int:
        """Remove what ended, or was confirmed last, ``keep`` microseconds before ``now``; return how many
        runs that were. None keeps all but what no question finds.

        Stops early, with consistent rows, once ``stopped`` returns True.
        """
        runs = 0
        if keep is not None:
            before = now - keep
            runs += self._all(lambda: self._drop_ended_runs(before), stopped)
            runs += self._all(lambda: self._drop_runs_of_sources(before), stopped)
            self._all(lambda: self._drop(fleet_gaps, fleet_gaps.c.until_at < before), stopped)
            self._all(lambda: self._drop_sources(before), stopped)
            self._all(lambda: self._drop_agents(before), stopped)
        ends = fleet_early_ends.c.received_at < now - _UNFINISHED
        self._all(lambda: self._drop(fleet_early_ends, ends), stopped)
        parts = fleet_snapshot_runs.c.received_at < now - _UNFINISHED
        self._all(lambda: self._drop(fleet_snapshot_runs, parts), stopped)
        self._all(lambda: self._drop_images(now - _UNUSED), stopped)
        return runs

    def _all(self, drop: Callable[[], int], stopped: Callable[[], bool]) -> int:
        removed = 0
        while not stopped():
            some = drop()
            removed += some
            if some < _BATCH:
                break
        return removed

    @retried
    def _drop(self, table: Table, condition: ColumnElement[bool]) -> int:
        with self._database.write(durable=False) as connection:
            row_id = dialect.of(connection).row_id(table)
            query = select(row_id).select_from(table).where(condition).limit(_BATCH)
            return _delete(connection, table, list(connection.execute(query.with_for_update()).scalars()))

    @retried
    def _drop_ended_runs(self, before: int) -> int:
        with self._database.write(durable=False) as connection:
            return _delete_runs(connection, fleet_runs.c.ended_at < before)

    @retried
    def _drop_runs_of_sources(self, before: int) -> int:
        """Remove runs of the sources that were confirmed last before that time."""
        any_run = exists().where(fleet_runs.c.source == fleet_sources.c.number).correlate(fleet_sources)
        gone = select(fleet_sources.c.number).where(fleet_sources.c.confirmed_at < before, any_run)
        with self._database.write(durable=False) as connection:
            # Locked, so that no report counts runs meanwhile.
            sources = gone.order_by(fleet_sources.c.place, fleet_sources.c.source).limit(_SOURCES)
            numbers = list(connection.execute(sources.with_for_update()).scalars())
            removed = _delete_runs(connection, fleet_runs.c.source.in_(numbers))
            still = fleet_runs.c.ended_at.is_(None) & (fleet_runs.c.source == fleet_sources.c.number)
            left = select(func.count()).select_from(fleet_runs).where(still).scalar_subquery()
            of_these = fleet_sources.c.number.in_(numbers)
            connection.execute(update(fleet_sources).where(of_these).values(running=left))
            return removed

    @retried
    def _drop_sources(self, before: int) -> int:
        runs = exists().where(fleet_runs.c.source == fleet_sources.c.number).correlate(fleet_sources)
        query = select(fleet_sources.c.number).where(fleet_sources.c.confirmed_at < before, ~runs)
        with self._database.write(durable=False) as connection:
            # Locked, so that no report adds a run meanwhile.
            numbers = list(
                connection.execute(query.limit(_BATCH).with_for_update(skip_locked=True)).scalars()
            )
            unused = fleet_sources.c.number.in_(numbers) & ~runs
            for table in (fleet_gaps, fleet_early_ends):
                connection.execute(delete(table).where(table.c.source.in_(numbers)))
            return connection.execute(delete(fleet_sources).where(unused)).rowcount

    @retried
    def _drop_agents(self, before: int) -> int:
        used = exists().where(fleet_sources.c.agent == fleet_agents.c.number).correlate(fleet_agents)
        with self._database.write(durable=False) as connection:
            old = (fleet_agents.c.last_at < before) & ~used
            return connection.execute(delete(fleet_agents).where(old)).rowcount

    @retried
    def _drop_images(self, before: int) -> int:
        running, ended = (
            exists().where(fleet_runs.c.image == fleet_images.c.number, condition).correlate(fleet_images)
            for condition in (fleet_runs.c.ended_at.is_(None), fleet_runs.c.ended_at.is_not(None))
        )
        unused = ~running & ~ended
        query = select(fleet_images.c.number).where(fleet_images.c.first_at < before, unused)
        with self._database.write(durable=False) as connection:
            # A report locks the images of its runs: those are left, or it makes them anew.
            numbers = list(
                connection.execute(query.limit(_BATCH).with_for_update(skip_locked=True)).scalars()
            )
            still = select(fleet_images.c.number).where(fleet_images.c.number.in_(numbers), unused)
            found = list(connection.execute(still).scalars())
            for table in (fleet_image_digests, fleet_image_vulnerabilities):
                connection.execute(delete(table).where(table.c.image.in_(found)))
            return connection.execute(delete(fleet_images).where(fleet_images.c.number.in_(found))).rowcount


def _delete_runs(connection: Connection, condition: ColumnElement[bool]) -> int:
    columns = fleet_runs.c.image, fleet_runs.c.started_at, fleet_runs.c.ended_at
    row_id = dialect.of(connection).row_id(fleet_runs).label("row_id")
    query = select(row_id, *columns).where(condition).limit(_BATCH).with_for_update()
    rows = connection.execute(query).all()
    changes = RunChanges()
    for row in rows:
        changes.add_run(row.image, row.started_at, row.ended_at, times=-1)
    changes.note(connection)
    return _delete(connection, fleet_runs, [row.row_id for row in rows])


def _delete(connection: Connection, table: Table, rows: list[Any]) -> int:
    if not rows:
        return 0
    spoken = dialect.of(connection)
    return connection.execute(
        delete(table).where(spoken.row_id(table).in_(spoken.bulk_row_ids(rows)))
    ).rowcount
