"""The moves of one tag over time: a page of them, and what the tag pointed to in a whole period.

Functions on a transaction. Times are microseconds since 1970, and a digest is text here, as in the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, func, select

from digestry.catalog import journal as entries
from digestry.catalog.schema import journal
from digestry.catalog.tag_history import entry_at, next_move
from digestry.model.history import TagEvent

MOST_MARKS: Final = 96
"""The moves of a period that are all shown; more are counted in so many equal parts of it."""


@dataclass(frozen=True, slots=True)
class TagMove:
    """An entry of the journal, and when the tag moved on; ``until`` is None for its last move."""

    event: TagEvent
    until: int | None


@dataclass(frozen=True, slots=True)
class TagMark:
    """What a tag pointed to from ``at`` until the next mark: None for nothing.

    ``moves`` counts the moves that the mark stands for; 0 for what the tag pointed to before the period.
    """

    at: int
    digest: str | None
    moves: int


@dataclass(frozen=True, slots=True)
class TagPeriod:
    """What a tag pointed to from ``since`` until ``until``.

    Unless the period is ``exact``, it has a mark for each of its :data:`MOST_MARKS` parts with any move: at
    the last one.
    """

    since: int
    until: int
    marks: tuple[TagMark, ...]
    exact: bool

    @property
    def part(self) -> int:
        """Return the length of one of the parts."""
        return (self.until - self.since) // MOST_MARKS + 1


@dataclass(frozen=True, slots=True)
class TagTotals:
    """All moves of a tag: how many, when the first and the last one were, and the ``digest`` that it points
    to since; None if it was deleted."""

    moves: int
    first_at: int
    last_at: int
    digest: str | None


def totals(connection: Connection, repository: str, tag: str) -> TagTotals | None:
    """Return the totals of a tag; None if there never was one of that name."""
    query = select(func.count().label("moves"), func.min(journal.c.at), func.max(journal.c.at))
    moves, first_at, last_at = connection.execute(query.where(*_of(repository, tag))).one()
    last = entry_at(connection, repository, tag, last_at) if moves else None
    return None if last is None else TagTotals(moves, first_at, last_at, last.to_digest)


def moves(
    connection: Connection, repository: str, tag: str, *, before: int | None, limit: int
) -> list[TagMove]:
    """Return the moves of a tag, newest first, those before a time."""
    query = select(journal, next_move(journal)).where(*_of(repository, tag))
    if before is not None:
        query = query.where(journal.c.at < before)
    rows = connection.execute(query.order_by(journal.c.at.desc()).limit(limit))
    return [TagMove(entries.to_event(row._asdict()), row.until) for row in rows]


def period(connection: Connection, repository: str, tag: str, *, since: int, until: int) -> TagPeriod:
    """Return what a tag pointed to in a period."""
    before = entry_at(connection, repository, tag, since)
    first = () if before is None else (TagMark(since, before.to_digest, 0),)
    inside = (*_of(repository, tag), journal.c.at > since, journal.c.at <= until)
    every = select(journal.c.at, journal.c.to_digest).where(*inside).order_by(journal.c.at)
    rows = connection.execute(every.limit(MOST_MARKS + 1)).all()
    if len(rows) <= MOST_MARKS:
        return TagPeriod(since, until, (*first, *(TagMark(row.at, row.to_digest, 1) for row in rows)), True)
    parted = TagPeriod(since, until, (), False)
    # The moves are counted where they are in the index: to group them by their parts would sort them all.
    ends = [min(until, since + (number + 1) * parted.part - 1) for number in range(MOST_MARKS)]
    columns = []
    for begin, end in zip([since, *ends], ends, strict=False):
        within = (*_of(repository, tag), journal.c.at > begin, journal.c.at <= end)
        columns += [
            select(what).where(*within).scalar_subquery() for what in (func.max(journal.c.at), func.count())
        ]
    found = connection.execute(select(*(column.label(f"c{n}") for n, column in enumerate(columns)))).one()
    counts = {at: count for at, count in zip(found[::2], found[1::2], strict=True) if count}
    query = select(journal.c.at, journal.c.to_digest).where(
        journal.c.repository == repository, journal.c.at.in_(counts)
    )
    rows = connection.execute(query.order_by(journal.c.at)).all()
    marks = (TagMark(row.at, row.to_digest, counts[row.at]) for row in rows)
    return TagPeriod(since, until, (*first, *marks), False)


def _of(repository: str, tag: str) -> tuple[ColumnElement[Any], ...]:
    return journal.c.repository == repository, journal.c.tag == tag
