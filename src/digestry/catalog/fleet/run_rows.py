"""The rows of runs that one report is about: read together, and written together.

Functions on a transaction, which has locked the runs' source.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Executable, Row, bindparam, delete, insert, select, union_all, update

from digestry.catalog import clock, dialect
from digestry.catalog.fleet.container_runs import ContainerRuns, EarlyEnd, Run, RunKey
from digestry.catalog.fleet.run_counts import RunChanges
from digestry.catalog.fleet_schema import LONGER_THAN, fleet_early_ends, fleet_runs, fleet_snapshot_runs
from digestry.model.fleet import EVENT_START

_DAY: Final = 86_400 * clock.SECOND
_COLUMNS: Final = (
    fleet_runs.c.number,
    fleet_runs.c.container,
    fleet_runs.c.instance,
    fleet_runs.c.image,
    fleet_runs.c.started_at,
    fleet_runs.c.ended_at,
    fleet_runs.c.ended_after,
)
_ENDED: Final = (
    update(fleet_runs)
    .where(fleet_runs.c.number == bindparam("run"))
    .values(
        ended_at=bindparam("at"),
        ended_after=bindparam("after"),
        longer_than=bindparam("longer"),
    )
)
# Apart: to write an instance, even the same, is to write the index by it.
_RENAMED: Final = (
    update(fleet_runs).where(fleet_runs.c.number == bindparam("run")).values(instance=bindparam("start"))
)
_AFTER_EVENT_START: Final = EVENT_START[:-1] + chr(ord(EVENT_START[-1]) + 1)


def load(
    connection: Connection,
    source: Row[Any],
    *,
    keys: Collection[RunKey],
    containers: Collection[str],
    whole: bool,
) -> ContainerRuns:
    """Read the runs of ``keys``, and those of ``containers`` that run; with ``whole`` all that run."""
    found = ContainerRuns(source.confirmed_at, source.snapshot_at)
    mine = fleet_runs.c.source == source.number
    if keys:
        wanted = dialect.of(connection).bulk_keys(sorted(keys), str)
        exact = (fleet_runs.c.container == wanted.first) & (fleet_runs.c.instance == wanted.second)
        of_event = (fleet_runs.c.instance >= EVENT_START) & (fleet_runs.c.instance < _AFTER_EVENT_START)
        # Another agent may know a start by its event or its time alone.
        also = (fleet_runs.c.container == wanted.first) & of_event
        queries = (select(*_COLUMNS).join_from(wanted.table, fleet_runs, mine & on) for on in (exact, also))
        _add(connection, found, union_all(*queries))
        same = (fleet_early_ends.c.container == wanted.first) & (fleet_early_ends.c.instance == wanted.second)
        ends = select(fleet_early_ends).join_from(
            wanted.table, fleet_early_ends, (fleet_early_ends.c.source == source.number) & same
        )
        for row in connection.execute(ends):
            found.early_ends[row.container, row.instance] = EarlyEnd(row.ended_at, row.ended_after)
        events = {name for name, instance in keys if not instance or instance.startswith(EVENT_START)}
        if events:
            others = dialect.of(connection).bulk_keys([(name, "") for name in sorted(events)], str)
            of_same = mine & (fleet_runs.c.container == others.first)
            _add(connection, found, select(*_COLUMNS).join_from(others.table, fleet_runs, of_same))
    running = mine & fleet_runs.c.ended_at.is_(None)
    if whole:
        _add(connection, found, select(*_COLUMNS).where(running))
    elif containers:
        names = dialect.of(connection).bulk_keys([(name, "") for name in sorted(containers)], str)
        of_name = running & (fleet_runs.c.container == names.first)
        _add(connection, found, select(*_COLUMNS).join_from(names.table, fleet_runs, of_name))
    return found


def _add(connection: Connection, found: ContainerRuns, query: Executable) -> None:
    for row in connection.execute(query):
        found.add(
            Run(
                row.container,
                row.instance,
                row.started_at,
                None,
                number=row.number,
                image=row.image,
                stored_end=row.ended_at,
                ended_at=row.ended_at,
                ended_after=row.ended_after,
            )
        )


def store(connection: Connection, source: int, found: ContainerRuns, *, agent: int, now: int) -> int:
    """Write what changed; return how many runs are new."""
    new, ended, renamed, changes = [], [], [], RunChanges()
    for run in found.runs.values():
        if not run.changed:
            continue
        if run.number is not None:
            changes.add_end(run.image, run.stored_end, times=-1)
            changes.add_end(run.image, run.ended_at)
            ended.append(
                {"run": run.number, "at": run.ended_at, "after": run.ended_after, "longer": _longer_than(run)}
            )
            if run.renamed:
                renamed.append({"run": run.number, "start": run.instance})
        elif run.described is not None:
            changes.add_run(run.described.image, run.started_at, run.ended_at)
            new.append(
                {
                    "source": source,
                    "container": run.container,
                    "instance": run.instance,
                    "image": run.described.image,
                    "agent": agent,
                    "name": run.described.name,
                    "namespace": run.described.namespace,
                    "node": run.described.node,
                    "workload": run.described.workload,
                    "started_at": run.started_at,
                    "ended_at": run.ended_at,
                    "ended_after": run.ended_after,
                    "longer_than": _longer_than(run),
                }
            )
    if new:
        connection.execute(insert(fleet_runs), new)
    if ended:
        connection.execute(_ENDED, ended)
    if renamed:
        connection.execute(_RENAMED, renamed)
    changes.note(connection)
    _store_early_ends(connection, source, found, now)
    return len(new)


def _longer_than(run: Run) -> int | None:
    if run.ended_at is None:
        return None
    took = run.ended_at - run.started_at
    return max((days for days in LONGER_THAN if took > days * _DAY), default=None)


def _store_early_ends(connection: Connection, source: int, found: ContainerRuns, now: int) -> None:
    rows = [
        {
            "source": source,
            "container": key[0],
            "instance": key[1],
            "ended_at": found.early_ends[key].ended_at,
            "ended_after": found.early_ends[key].ended_after,
            "received_at": now,
        }
        for key in sorted(found.new_ends & found.early_ends.keys())
    ]
    if rows:
        connection.execute(dialect.of(connection).upserts.fleet_early_end, rows)
    for container, instance in sorted(found.used_ends):
        connection.execute(
            delete(fleet_early_ends).where(
                fleet_early_ends.c.source == source,
                fleet_early_ends.c.container == container,
                fleet_early_ends.c.instance == instance,
            )
        )


def named_before(connection: Connection, source: int, snapshot: str) -> set[int]:
    """Return the numbers of the runs that the earlier parts of a snapshot named."""
    same = fleet_snapshot_runs.c.source == source, fleet_snapshot_runs.c.snapshot == snapshot
    return set(connection.execute(select(fleet_snapshot_runs.c.run).where(*same)).scalars())


def note_named(
    connection: Connection, source: int, snapshot: str, listed: Sequence[Run], *, now: int
) -> None:
    """Record which runs a part of a snapshot named, which are stored already."""
    if not listed:
        return
    wanted = dialect.of(connection).bulk_keys(sorted({run.key for run in listed}), str)
    same = (
        (fleet_runs.c.source == source)
        & (fleet_runs.c.container == wanted.first)
        & (fleet_runs.c.instance == wanted.second)
    )
    numbers = connection.execute(select(fleet_runs.c.number).join_from(wanted.table, fleet_runs, same))
    rows = [
        {"source": source, "snapshot": snapshot, "run": number, "received_at": now}
        for number in sorted(numbers.scalars())
    ]
    connection.execute(dialect.of(connection).upserts.fleet_snapshot_run, rows)


def forget_named(connection: Connection, source: int, snapshot: str) -> None:
    """Remove what :func:`note_named` recorded of a snapshot that is whole."""
    same = fleet_snapshot_runs.c.source == source, fleet_snapshot_runs.c.snapshot == snapshot
    connection.execute(delete(fleet_snapshot_runs).where(*same))
