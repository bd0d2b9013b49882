"""Pages of changes: what started and what ended in a time, the oldest first."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sqlalchemy import ColumnElement, Connection, Row, func, select, true, tuple_

from digestry.catalog import clock
from digestry.catalog.fleet.run_pages import (
    MOST_COUNTED,
    RunFilter,
    as_run,
    images_of,
    run_conditions,
    run_rows,
)
from digestry.catalog.fleet.selection import Asker
from digestry.catalog.fleet_schema import fleet_runs
from digestry.model.fleet_answers import FleetChange, FleetChanges

_Kind: TypeAlias = Literal["started", "stopped"]
_Change: TypeAlias = tuple[int, _Kind, int, Row[Any]]


@dataclass(frozen=True, slots=True)
class ChangeCursor:
    """Where a page ended: after the start, or the end, at ``at`` of the run with ``number``."""

    at: int
    kind: _Kind
    number: int

    def __str__(self) -> str:
        return f"{self.kind}.{self.at}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> ChangeCursor:
        """Return the cursor that ``text`` is. Raises ValueError."""
        kind, at, number = text.split(".")
        if not (at.isascii() and at.isdigit() and number.isascii() and number.isdigit()):
            raise ValueError(f"{text!r} is no cursor of changes")
        if len(at) > 18 or len(number) > 18:
            raise ValueError(f"{text!r} is no cursor of changes")
        if kind == "started":
            return cls(int(at), "started", int(number))
        if kind == "stopped":
            return cls(int(at), "stopped", int(number))
        raise ValueError(f"{text!r} is no cursor of changes")


def page_of_changes(
    connection: Connection,
    choice: RunFilter,
    asker: Asker,
    *,
    since: int,
    until: int,
    now: int,
    limit: int,
    after: ChangeCursor | None = None,
) -> FleetChanges:
    """Return a page of the starts and ends, from ``since`` on and before ``until``, of the chosen runs that
    ``asker`` may know of. ``at`` and ``ever`` of the choice do not matter."""
    mine = run_conditions(connection, RunFilter(choice.images, choice.place), asker)
    sides = [
        _side(connection, mine, kind, since, until, now=now, limit=limit + 1, after=after)
        for kind in ("started", "stopped")
    ]
    found = list(itertools.islice(heapq.merge(*sides, key=lambda change: change[:3]), limit + 1))
    page = found[:limit]
    following = ""
    if page and len(found) > limit:
        at, kind, number, _ = page[-1]
        following = str(ChangeCursor(at, kind, number))
    return FleetChanges(
        changes=tuple(FleetChange(clock.to_datetime(at), kind, as_run(row)) for at, kind, _, row in page),
        images=images_of(connection, {row.image for *_, row in page}, asker),
        total=sum(
            _count(connection, (*mine, *_between(kind, since, until))) for kind in ("started", "stopped")
        ),
        next=following,
        limited=not asker.everything,
    )


def _between(kind: str, since: int, until: int) -> tuple[ColumnElement[bool], ...]:
    at = fleet_runs.c.started_at if kind == "started" else fleet_runs.c.ended_at
    return at >= since, at < until


def _side(
    connection: Connection,
    mine: tuple[ColumnElement[bool], ...],
    kind: _Kind,
    since: int,
    until: int,
    *,
    now: int,
    limit: int,
    after: ChangeCursor | None,
) -> Iterator[_Change]:
    at = fleet_runs.c.started_at if kind == "started" else fleet_runs.c.ended_at
    query = select(fleet_runs.c.number).where(*mine, *_between(kind, since, until))
    if after is not None and after.kind == kind:
        query = query.where(tuple_(at, fleet_runs.c.number) > tuple_(after.at, after.number))
    elif after is not None:
        query = query.where(at >= after.at if kind == "stopped" else at > after.at)
    order = at, fleet_runs.c.number
    rows = run_rows(query.order_by(*order).limit(limit), now).order_by(*order)
    for row in connection.execute(rows):
        yield (row.started_at if kind == "started" else row.ended_at), kind, row.number, row


def _count(connection: Connection, conditions: tuple[ColumnElement[bool], ...]) -> int:
    inner = select(true().label("one")).select_from(fleet_runs).where(*conditions).limit(MOST_COUNTED)
    return int(connection.execute(select(func.count()).select_from(inner.subquery())).scalar_one())
