"""The fleet: records what agents report, and answers who ran what when."""

from __future__ import annotations

from digestry.catalog.database import Database
from digestry.catalog.fleet.reporting import record_report
from digestry.catalog.fleet.run_pages import RunCursor, RunFilter, page_of_runs
from digestry.catalog.fleet.selection import EVERYBODY, Asker
from digestry.catalog.transactions import retried
from digestry.model.fleet import FleetReceipt, FleetReport
from digestry.model.fleet_answers import FleetRuns


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
        choice: RunFilter = RunFilter(),  # noqa: B008 - frozen
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
