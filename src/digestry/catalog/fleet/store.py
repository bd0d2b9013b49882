"""The fleet: records what agents report, and answers who ran what when."""

from __future__ import annotations

from collections.abc import Sequence

from digestry.catalog.database import Database
from digestry.catalog.fleet.changes import ChangeCursor, page_of_changes
from digestry.catalog.fleet.image_relations import ChooseChild, no_child, oldest_relations, relate_images
from digestry.catalog.fleet.places import PlaceCursor, page_of_places
from digestry.catalog.fleet.report_intake import record_report
from digestry.catalog.fleet.run_pages import RunCursor, RunFilter, page_of_runs
from digestry.catalog.fleet.selection import EVERYBODY, Asker
from digestry.catalog.fleet.state_history import StateCount, state_history
from digestry.catalog.fleet.summary import summarize
from digestry.catalog.fleet.timeline import timeline_of
from digestry.catalog.transactions import retried
from digestry.model.fleet import FleetReceipt, FleetReport
from digestry.model.fleet_answers import FleetChanges, FleetPlaces, FleetRuns, FleetSummary, FleetTimeline

_ALL = RunFilter()


class Fleet:
    """The runs that agents reported. Thread-safe; each method blocks, and raises :class:`StorageError`.

    Times are microseconds since 1970. ``asker`` is who may see the answer: without one it has everything.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @retried
    def record(self, report: FleetReport, *, actor: str, came_at: int, now: int) -> FleetReceipt:
        """Record what is new in a report that ``actor`` sent, and that came at ``came_at``; return its
        receipt.

        A report without entries may be lost with the machine's power. Raises :class:`CallerError`,
        :class:`Forbidden`.
        """
        with self._database.write(durable=bool(report.entries)) as connection:
            return record_report(connection, report, actor=actor, came_at=came_at, now=now)

    def runs(
        self,
        choice: RunFilter = _ALL,
        asker: Asker = EVERYBODY,
        *,
        now: int,
        limit: int,
        after: RunCursor | None = None,
        with_reports: bool = False,
    ) -> FleetRuns:
        """Return a page of runs, those that run first, then the latest first, with their images."""
        with self._database.read() as connection:
            return page_of_runs(
                connection, choice, asker, now=now, limit=limit, after=after, with_reports=with_reports
            )

    def changes(
        self,
        choice: RunFilter = _ALL,
        asker: Asker = EVERYBODY,
        *,
        since: int,
        until: int,
        now: int,
        limit: int,
        after: ChangeCursor | None = None,
    ) -> FleetChanges:
        """Return a page of what started and ended from ``since`` on and before ``until``, oldest first."""
        with self._database.read() as connection:
            return page_of_changes(
                connection, choice, asker, since=since, until=until, now=now, limit=limit, after=after
            )

    def places(
        self, *, now: int, limit: int, place: str = "", silent: bool = False, after: PlaceCursor | None = None
    ) -> FleetPlaces:
        """Return a page of sources with their agents, the longest silent first; with ``silent`` those
        alone. For who audits everything."""
        with self._database.read() as connection:
            return page_of_places(connection, now=now, limit=limit, place=place, silent=silent, after=after)

    def summary(self, asker: Asker = EVERYBODY, *, now: int) -> FleetSummary:
        """Return the fleet in numbers."""
        with self._database.read() as connection:
            return summarize(connection, asker, now=now)

    def timeline(self, choice: RunFilter, asker: Asker = EVERYBODY, *, now: int) -> FleetTimeline:
        """Return how many containers of the chosen images ran over time."""
        with self._database.read() as connection:
            return timeline_of(connection, choice, asker, now=now)

    def state_history(self, asker: Asker = EVERYBODY, *, since: int, now: int) -> list[StateCount]:
        """Return how many containers ran at equal steps from ``since`` to ``now``, by the state of their
        images now."""
        with self._database.read() as connection:
            return state_history(connection, asker, since=since, now=now)

    # -- what images are ------------------------------------------------------------------------

    def stale_images(self, before: int, *, limit: int) -> list[int]:
        """Return images that were looked up in the registry's graph last before that time, oldest first."""
        with self._database.read() as connection:
            return oldest_relations(connection, before, limit)

    @retried
    def relate(self, numbers: Sequence[int], *, now: int, choose: ChooseChild = no_child) -> int:
        """Look these images up in the registry's graph; return how many it knows.

        ``choose`` tells which manifest of an index is a platform's.
        """
        with self._database.write(durable=False) as connection:
            return relate_images(connection, numbers, now, choose)
