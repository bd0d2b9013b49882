"""Questions to the journal: what a tag pointed to at a time, and which tags pointed to a digest.

Times only ever rise along the journal (docs/adr/0004), so that a moment is a place in it: every
question becomes one about sequence numbers, which the indices answer without reading a history
from its end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, func, select

from digestry.catalog import clock, content
from digestry.catalog.database import Database
from digestry.catalog.journal import sequence_at
from digestry.catalog.schema import journal
from digestry.model.digest import Digest
from digestry.model.history import TagSpan

_CHUNK: Final = 500  # SQLite allows 999 variables and more; stay below in one statement


class Memory:
    """What the registry remembers of its tags. Thread-safe; it only reads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def tag_at(self, repository: str, tag: str, at: int) -> TagSpan | None:
        """What the tag pointed to at a time (microseconds since 1970), and from when until when;
        None if it was not there then."""
        with self._database.read() as connection:
            found = entry_at(connection, repository, tag, at)
            if found is None or found.to_digest is None:
                return None
            return _span(found, _next_time(connection, found))

    def latest(self) -> int:
        """The time of the newest entry; 0 if there is none."""
        query = select(journal.c.at).order_by(journal.c.sequence.desc()).limit(1)
        with self._database.read() as connection:
            return connection.execute(query).scalar() or 0

    def tags_at(self, repository: str, at: int, *, after: str = "", limit: int) -> list[TagSpan]:
        """The tags that were there at a time, in the order of their bytes, those after ``after``."""
        with self._database.read() as connection:
            rows = connection.execute(tags_at(repository, sequence_at(connection, at), after, limit)).all()
            return [_span(row, row.until) for row in rows]

    def whose(
        self, repository: str, digest: Digest, *, before: int | None = None, limit: int
    ) -> list[TagSpan]:
        """Each time that a tag came to ``digest``, or to an index or image that holds it, newest
        first; ``before`` is the sequence number of an entry, exclusive."""
        with self._database.read() as connection:
            row = content.repository_id(connection, repository)
            holders = [] if row is None else content.holders(connection, row, str(digest))
            digests = sorted({str(digest), *(str(holder.digest) for holder in holders)})
            found: list[Row[Any]] = []
            for start in range(0, len(digests), _CHUNK):
                query = pointing(repository, digests[start : start + _CHUNK], before, limit)
                found += connection.execute(query).all()
            found.sort(key=lambda row: -int(row.sequence))
            return [_span(row, row.until) for row in found[:limit]]


def entry_at(connection: Connection, repository: str, tag: str, at: int) -> Row[Any] | None:
    """The tag's last entry at or before a time."""
    return connection.execute(last_entry(repository, tag, sequence_at(connection, at))).first()


def last_entry(repository: str, tag: str, sequence: int) -> Select[Any]:
    """The tag's last entry up to ``sequence``."""
    query = select(journal).where(
        journal.c.repository == repository, journal.c.tag == tag, journal.c.sequence <= sequence
    )
    return query.order_by(journal.c.sequence.desc()).limit(1)


def _next_time(connection: Connection, entry: Row[Any]) -> int | None:
    query = select(journal.c.at).where(
        journal.c.repository == entry.repository,
        journal.c.tag == entry.tag,
        journal.c.sequence > entry.sequence,
    )
    return connection.execute(query.order_by(journal.c.sequence).limit(1)).scalar()


def tags_at(repository: str, sequence: int, after: str, limit: int) -> Select[Any]:
    """The entries that made the repository's tags what they were after entry ``sequence``.

    From tag name to tag name by the index, however long each one's history is.
    """
    first = select(func.min(journal.c.tag).label("tag")).where(
        journal.c.repository == repository, journal.c.tag > after
    )
    names = first.cte("names", recursive=True)
    following = (
        select(func.min(journal.c.tag))
        .where(journal.c.repository == repository, journal.c.tag > names.c.tag)
        .correlate(names)
        .scalar_subquery()
    )
    names = names.union_all(select(following).where(names.c.tag.is_not(None)))
    last = (
        select(func.max(journal.c.sequence))
        .where(
            journal.c.repository == repository,
            journal.c.tag == names.c.tag,
            journal.c.sequence <= sequence,
        )
        .correlate(names)
        .scalar_subquery()
    )
    entry = journal.alias("entry")
    return (
        select(entry, _until(entry))
        .select_from(names.join(entry, entry.c.sequence == last))
        .where(entry.c.to_digest.is_not(None))
        .limit(limit)
    )


def pointing(repository: str, digests: Iterable[str], before: int | None, limit: int) -> Select[Any]:
    """The entries by which a tag came to one of ``digests``, newest first."""
    entry = journal.alias("entry")
    query = select(entry, _until(entry)).where(
        entry.c.repository == repository, entry.c.to_digest.in_(list(digests))
    )
    if before is not None:
        query = query.where(entry.c.sequence < before)
    return query.order_by(entry.c.sequence.desc()).limit(limit)


def _until(entry: Any) -> Any:
    later = journal.alias("later")
    return (
        select(later.c.at)
        .where(
            later.c.repository == entry.c.repository,
            later.c.tag == entry.c.tag,
            later.c.sequence > entry.c.sequence,
        )
        .order_by(later.c.sequence)
        .limit(1)
        .correlate(entry)
        .scalar_subquery()
        .label("until")
    )


def _span(row: Row[Any], until: int | None) -> TagSpan:
    return TagSpan(
        tag=row.tag,
        digest=Digest.parse(row.to_digest),
        since=clock.to_datetime(row.at),
        still=until is None,
        until=None if until is None else clock.to_datetime(until),
        media_type=row.media_type,
        size=row.size,
        sequence=row.sequence,
    )
