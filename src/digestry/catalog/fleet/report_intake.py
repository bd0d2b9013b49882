"""The intake of reports: what one report changes, in one transaction.

A report costs nothing for what runs on: a heartbeat changes its agent's row, and one for each source.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Row, insert

from digestry.catalog import clock
from digestry.catalog.fleet import agents, images, run_rows
from digestry.catalog.fleet.container_runs import ContainerRuns, Described, Run
from digestry.catalog.fleet.image_relations import relate_images
from digestry.catalog.fleet.intake_limits import usage_after
from digestry.catalog.fleet.report_checks import check_report, runs_of
from digestry.catalog.fleet.report_times import ReportTimes, clock_ahead
from digestry.catalog.fleet_schema import fleet_gaps
from digestry.model.fleet import (
    Entry,
    FleetReceipt,
    FleetReport,
    Gap,
    RunReport,
    Snapshot,
    SourceReport,
    Started,
    Stopped,
    event_of_start,
    written_time_of_start,
)

_RELATED_AT_ONCE: Final = 100
"""The most new images that one report looks up in the registry's graph."""


def record_report(
    connection: Connection, report: FleetReport, *, actor: str, came_at: int, now: int
) -> FleetReceipt:
    """Record what is new in ``report``, which ``actor`` sent, and return its receipt.

    ``came_at`` is when it came: its times are corrected by that. Raises :class:`CallerError` for a report
    that is no whole one, :class:`Forbidden` for an agent of another user or place.
    """
    check_report(report)
    agent, new = agents.lock_agent(connection, report, actor=actor, now=now)
    last = report.first + len(report.entries) - 1
    fresh = report.entries[max(0, agent.sequence + 1 - report.first) :]
    measured = clock.from_datetime(report.sent_at) - came_at
    stated = None if report.ahead is None else int(report.ahead * clock.SECOND)
    ahead = clock_ahead(measured, None if new else agent.clock_offset, stated)
    times = ReportTimes(now, ahead)
    noted = measured if stated is None else ahead
    lost = _lost_numbers(report, last, agent.sequence)
    reception = _Reception(connection, report, agent.number, times, whole=not lost and not report.behind)
    reception.record(fresh)
    usage = usage_after(connection, agent, runs=reception.new_runs, images=reception.new_images, now=now)
    received = max(agent.sequence, last)
    agents.update_agent(
        connection, agent.number, report, actor=actor, sequence=received, ahead=noted, usage=usage, now=now
    )
    return FleetReceipt(received=received, time=clock.to_datetime(now), resynchronize=lost)


def _lost_numbers(report: FleetReport, last: int, received: int) -> bool:
    """Return whether entries before the report's are not there, or the agent's numbers have begun anew."""
    if not report.entries and report.first <= 1:
        return False  # a heartbeat that says nothing of numbers
    return report.first > received + 1 or last < received


@dataclass(slots=True)
class _Reception:
    """One report while it is recorded."""

    connection: Connection
    report: FleetReport
    agent: int
    times: ReportTimes
    whole: bool
    """Whether no entry is lost, or waits in the agent's buffer: an end may be among them."""
    images: Mapping[str, int] = field(default_factory=dict)
    """The numbers of the images' rows, by their keys in the report."""
    snapshots: dict[tuple[str, str], list[Run]] = field(default_factory=dict)
    """What the snapshots have, which are not whole yet, by their sources and IDs."""
    gaps: list[dict[str, object]] = field(default_factory=list)
    new_runs: int = 0
    new_images: int = 0
    """How many rows were made."""

    def record(self, fresh: Sequence[Entry]) -> None:
        """Record the entries that are new, and the states of the sources."""
        self._store_images(fresh)
        names = {entry.source for entry in fresh} | {state.source for state in self.report.sources}
        rows = agents.lock_sources(
            self.connection, self.report.place, names, agent=self.agent, now=self.times.now
        )
        by_source: dict[str, list[Entry]] = defaultdict(list)
        for entry in fresh:
            by_source[entry.source].append(entry)
        states = {state.source: state for state in self.report.sources}
        for name in sorted(names):
            self._record_source(rows[name], by_source.get(name, []), states.get(name))
        if self.gaps:
            self.connection.execute(insert(fleet_gaps), self.gaps)

    def _store_images(self, fresh: Sequence[Entry]) -> None:
        used = {run.image for run in runs_of(self.report)} if fresh else set()
        used_images = (self.report.images[key] for key in used)
        rows, new = images.store_images(self.connection, used_images, self.times.now)
        self.new_images = len(new)
        # The others are looked up by the upkeep, so that other writers do not wait for long.
        relate_images(self.connection, new[:_RELATED_AT_ONCE], self.times.now)
        self.images = {key: rows[images.hash_of(self.report.images[key])] for key in used}

    def _record_source(self, row: Row[Any], entries: Sequence[Entry], state: SourceReport | None) -> None:
        runs = self._load(row, entries)
        impossible = self.times.impossible
        for entry in entries:
            self._record(entry, row.number, runs)
        if entries:
            self.new_runs += run_rows.store(
                self.connection, row.number, runs, agent=self.agent, now=self.times.now
            )
        for (source, snapshot), listed in self.snapshots.items():
            if source == row.source:
                run_rows.note_named(self.connection, row.number, snapshot, listed, now=self.times.now)
        if self.times.impossible > impossible:
            self._note_impossible(row.number, self.times.impossible - impossible)
        self._update_source(row, runs, state, self._time_of(entries[-1]) if entries else self.times.now)

    def _time_of(self, entry: Entry) -> int:
        match entry:
            case Started(run=run):
                return self.times.at(run.started_at)
            case Gap(until=until):
                return self.times.at(until)
            case _:
                return self.times.at(entry.at)

    def _load(self, row: Row[Any], entries: Sequence[Entry]) -> ContainerRuns:
        keys, containers, whole = set(), set(), False
        for entry in entries:
            if isinstance(entry, Stopped):
                keys.add((entry.container, entry.instance))
                containers.add(entry.container)
            elif isinstance(entry, Started | Snapshot):
                for run in (entry.run,) if isinstance(entry, Started) else entry.runs:
                    keys.add((run.container, run.instance))
                    containers.add(run.container)
                whole = whole or (isinstance(entry, Snapshot) and entry.last)
        return run_rows.load(self.connection, row, keys=keys, containers=containers, whole=whole)

    def _time_named(self, instance: str) -> int | None:
        """Return the time that a start is named by, of its event or the engine's own, if it is."""
        at = event_of_start(instance)
        at = written_time_of_start(instance) if at is None else at
        return None if at is None else self.times.corrected(at)

    def _record(self, entry: Entry, source: int, runs: ContainerRuns) -> None:
        match entry:
            case Started(run=run):
                runs.started(run.container, run.instance, self.times.at(run.started_at), self._described(run))
            case Stopped():
                at = self.times.at(entry.at)
                after = at if entry.after is None else min(at, self.times.at(entry.after, instead=at))
                # Nobody saw an end that has a time before it, even if both are the same.
                after = min(after, at - 1) if entry.after is not None else after
                runs.stopped(
                    entry.container, entry.instance, at, after, started_at=self._time_named(entry.instance)
                )
            case Snapshot():
                self._record_snapshot(entry, source, runs)
            case Gap():
                until = self.times.at(entry.until)
                from_at = min(until, self.times.at(entry.from_, instead=until))
                self._note_gap(source, from_at, until, entry.reason)

    def _record_snapshot(self, entry: Snapshot, source: int, runs: ContainerRuns) -> None:
        at = self.times.at(entry.at)
        listed = self.snapshots.setdefault((entry.source, entry.id), [])
        listed += [
            runs.listed(
                run.container,
                run.instance,
                # Of a run that is there, the first report's start stays.
                at if runs.has(run.container, run.instance) else self.times.at(run.started_at, instead=at),
                self._described(run),
                at=at,
            )
            for run in entry.runs
        ]
        if entry.last:
            named = run_rows.named_before(self.connection, source, entry.id)
            runs.complete(at, named, listed)
            run_rows.forget_named(self.connection, source, entry.id)
            del self.snapshots[entry.source, entry.id]

    def _described(self, run: RunReport) -> Described:
        return Described(self.images[run.image], run.name, run.namespace, run.node, run.workload)

    def _note_impossible(self, source: int, count: int) -> None:
        times = "a time that is" if count == 1 else f"{count} times that are"
        reason = f"the report had {times} before there were containers, or in the future; others were taken"
        self._note_gap(source, self.times.now, self.times.now, reason)

    def _note_gap(self, source: int, from_at: int, until_at: int, reason: str) -> None:
        self.gaps.append({"source": source, "from_at": from_at, "until_at": until_at, "reason": reason})

    def _update_source(
        self, row: Row[Any], runs: ContainerRuns, state: SourceReport | None, latest: int
    ) -> None:
        problem, problem_at = row.problem, row.problem_at
        if state is not None:
            if state.confirmed_at is not None and self.whole:
                runs.confirm(self.times.at(state.confirmed_at, instead=0))
            problem = state.problem
            problem_at = None if not problem else problem_at or self.times.now
        agents.update_source(
            self.connection,
            row.number,
            agent=self.agent,
            confirmed_at=runs.confirmed_at or latest,
            opened=runs.opened,
            snapshot_at=runs.snapshot_at,
            problem=problem,
            problem_at=problem_at,
        )
