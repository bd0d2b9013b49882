"""Which repositories changed since a moment, for clients that keep answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import CompoundSelect, Select, exists, func, select, union

from digestry.catalog import clock
from digestry.catalog.database import Database
from digestry.catalog.schema import journal, manifests, repositories

OVERLAP: Final = 30 * clock.SECOND
"""Microseconds before a moment that are looked at again: a push has its time before it is committed, and the
clocks of nodes differ."""


MOST_ENTRIES: Final = 100_000
"""Entries of the journal that are read for one answer."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A state of the catalog: the last position of its journal, and the time in microseconds since 1970."""

    position: int
    at: int


@dataclass(frozen=True, slots=True)
class ChangedRepositories:
    """The repositories that changed, until ``moment``. ``parts`` is whether something was attached to, or
    removed from, what is no manifest of its repository: a layer or a config. ``known`` is false if the
    earlier moment is after this catalog's end: that is another one, such as an older copy; and if it is very
    long ago."""

    moment: Moment
    repositories: frozenset[str] = frozenset()
    parts: bool = False
    known: bool = True


class RepositoryChanges:
    """The query for what changed. Thread-safe."""

    def __init__(self, database: Database, now: clock.Clock = clock.now) -> None:
        self._database = database
        self._now = now

    def moment(self) -> Moment:
        """Return the present state."""
        at = self._now()
        with self._database.read() as connection:
            return Moment(connection.execute(_LAST).scalar_one(), at)

    def since(self, before: Moment) -> ChangedRepositories:
        """Return what changed after ``before``. A change shortly before it may be among that."""
        at = self._now()
        since = before.at - OVERLAP
        with self._database.read() as connection:
            last = connection.execute(_LAST).scalar_one()
            if not 0 <= last - before.position <= MOST_ENTRIES or at < since:
                return ChangedRepositories(Moment(last, at), known=False)
            found: set[str] = set(connection.execute(_moved(before.position)).scalars())
            # Committed, and without a position for a moment.
            found |= set(connection.execute(_moved(None)).scalars())
            rows = connection.execute(_manifests(since)).all()
        found |= {row.name for row in rows}
        parts = any(row.of_part for row in rows)
        return ChangedRepositories(Moment(last, at), frozenset(found), parts)


_LAST: Final = select(func.coalesce(func.max(journal.c.sequence), 0))


def _moved(after: int | None) -> Select[Any]:
    position = journal.c.sequence
    # Not distinct: for that SQLite walks the whole journal in the order of repositories.
    return select(journal.c.repository).where(position.is_(None) if after is None else position > after)


def _manifests(since: int) -> CompoundSelect[Any]:
    subject = manifests.alias("subject")
    of_part = manifests.c.subject.is_not(None) & ~exists(
        select(1).where(
            subject.c.repository_id == manifests.c.repository_id, subject.c.digest == manifests.c.subject
        )
    )
    query = select(repositories.c.name, of_part.label("of_part")).join_from(
        manifests, repositories, repositories.c.id == manifests.c.repository_id
    )
    # By an index each, however many manifests there are.
    return union(query.where(manifests.c.pushed_at >= since), query.where(manifests.c.deleted_at >= since))
