"""Tag history: what a tag pointed to at a time, and which tags pointed to a digest.

Times only ever rise along a repository's entries (docs/adr/0004), so that a time is a position among them:
the indices, which are in that order, answer every query without a scan of the history.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, FromClause, Label, Row, Select, func, literal, select, true

from digestry.catalog import clock, dialect, repository_rows
from digestry.catalog.database import Database
from digestry.catalog.holders import find_holders, find_layer_images
from digestry.catalog.journal import before_position, time_of
from digestry.catalog.schema import journal
from digestry.model.digest import Digest
from digestry.model.history import TagSpan

_MOST_IMAGES: Final = 5000
"""Images of one repository with one layer whose tags are searched."""
_NAMES: Final = (200, 5000)  # so many tags are looked at together at first, and at most


class TagHistory:
    """The history of a registry's tags. Thread-safe; it only reads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def tag_at(self, repository: str, tag: str, at: int) -> TagSpan | None:
        """Return what the tag pointed to at a time (microseconds since 1970), and from when until when; None
        if it did not exist then."""
        with self._database.read() as connection:
            found = entry_at(connection, repository, tag, at)
            if found is None or found.to_digest is None:
                return None
            return _span(found, _next_time(connection, found))

    def latest(self, repository: str) -> int:
        """Return the time of the repository's newest entry; 0 if there is none."""
        query = select(func.max(journal.c.at)).where(journal.c.repository == repository)
        with self._database.read() as connection:
            return connection.execute(query).scalar() or 0

    def time_of(self, sequence: int) -> int | None:
        """Return the time of the entry at this position in the registry, or at the first one after it; None
        if none follows."""
        with self._database.read() as connection:
            return time_of(connection, sequence)

    def tags_at(self, repository: str, at: int, *, after: str = "", limit: int) -> list[TagSpan]:
        """Return the tags that were there at a time, in the order of their bytes, those after ``after``."""
        with self._database.read() as connection:
            found: list[TagSpan] = []
            names, most = _NAMES
            while len(found) < limit:
                rows = connection.execute(tags_at(repository, at, after, names)).all()
                found += [_span(row, row.until) for row in rows if row.to_digest is not None]
                if len(rows) < names:
                    break
                after, names = rows[-1].name, min(2 * names, most)
            return found[:limit]

    def left_at(self, repository: str, tag: str, digest: Digest, *, before: int) -> int | None:
        """Return when a tag last left ``digest`` before a time; None if it did not. In microseconds."""
        with self._database.read() as connection:
            found = connection.execute(_left(repository, tag, str(digest), before)).scalar()
        return None if found is None else int(found)

    def tags_for_digest(
        self,
        repository: str,
        digest: Digest,
        *,
        before: int | None = None,
        before_time: int | None = None,
        layers: bool = False,
        limit: int,
    ) -> list[TagSpan]:
        """Each time that a tag came to ``digest``, or to an index or image that holds it, newest first.

        With ``layers``, a digest that is no manifest, index or config here may be a layer: then the images
        with that layer hold it.

        ``before`` is an entry's position in the registry, and ``before_time`` a time in microseconds since
        1970, both exclusive.
        """
        with self._database.read() as connection:
            earlier = true() if before is None else before_position(connection, repository, before)
            if before_time is not None:
                earlier &= journal.c.at < before_time
            row = repository_rows.find(connection, repository)
            holding = [] if row is None else find_holders(connection, row, str(digest))
            if layers and row is not None and not holding:
                holding = find_layer_images(connection, row, str(digest), limit=_MOST_IMAGES)
            digests = sorted({str(digest), *(str(holder.digest) for holder in holding)})
            found: list[Row[Any]] = []
            # One query each: for several at once SQLite would scan the repository's whole journal.
            for each in digests:
                found += connection.execute(pointing(repository, each, earlier, limit)).all()
            found.sort(key=lambda row: -int(row.at))
            return [_span(row, row.until) for row in found[:limit]]


def _left(repository: str, tag: str, digest: str, before: int) -> Select[Any]:
    return select(func.max(journal.c.at)).where(
        journal.c.repository == repository,
        journal.c.tag == tag,
        journal.c.from_digest == digest,
        journal.c.at < before,
    )


def entry_at(connection: Connection, repository: str, tag: str, at: int) -> Row[Any] | None:
    """Return the tag's last entry at or before a time."""
    return connection.execute(last_entry(repository, tag, at)).first()


def last_entry(repository: str, tag: str, at: int) -> Select[Any]:
    """Return the query for the tag's last entry at or before a time."""
    query = select(journal).where(
        journal.c.repository == repository, journal.c.tag == tag, journal.c.at <= at
    )
    return query.order_by(journal.c.at.desc()).limit(1)


def _next_time(connection: Connection, entry: Row[Any]) -> int | None:
    query = select(journal.c.at).where(
        journal.c.repository == entry.repository,
        journal.c.tag == entry.tag,
        journal.c.at > entry.at,
    )
    return connection.execute(query.order_by(journal.c.at).limit(1)).scalar()


def tags_at(repository: str, at: int, after: str, names: int) -> Select[Any]:
    """Return the query for the next ``names`` tags that the journal knows of, each as ``name`` with the entry
    that was its last at a time; empty for a tag that did not exist then.

    The index leads from name to name, however long each history is.
    """
    first = select(func.min(journal.c.tag).label("tag"), literal(1).label("number")).where(
        journal.c.repository == repository, journal.c.tag > after
    )
    listed = first.cte("listed", recursive=True)
    following = (
        select(func.min(journal.c.tag))
        .where(journal.c.repository == repository, journal.c.tag > listed.c.tag)
        .correlate(listed)
        .scalar_subquery()
    )
    listed = listed.union_all(
        select(following, listed.c.number + 1).where(listed.c.tag.is_not(None), listed.c.number < names)
    )
    last = (
        select(func.max(journal.c.at))
        .where(journal.c.repository == repository, journal.c.tag == listed.c.tag, journal.c.at <= at)
        .correlate(listed)
        .scalar_subquery()
    )
    entry = journal.alias("entry")
    return (
        select(listed.c.tag.label("name"), entry, next_move(entry))
        .select_from(
            listed.outerjoin(
                entry,
                (entry.c.repository == repository)
                & (entry.c.tag == listed.c.tag)
                & (entry.c.at == last)
                & entry.c.to_digest.is_not(None),
            )
        )
        .where(listed.c.tag.is_not(None))
        .order_by(listed.c.number)
    )


def pointing(repository: str, digest: str, earlier: ColumnElement[bool], limit: int) -> Select[Any]:
    """Return the query for the entries by which a tag came to ``digest``, newest first, those for which
    ``earlier`` holds."""
    query = select(journal, next_move(journal)).where(
        journal.c.repository == repository, journal.c.to_digest == digest, earlier
    )
    return query.order_by(journal.c.at.desc()).limit(limit)


def newest_pointing(
    connection: Connection, wanted: Iterable[tuple[str, str]], each: int, limit: int
) -> list[tuple[str, TagSpan]]:
    """Return the newest entries by which a tag came to each wanted digest of a repository, up to ``each`` of
    one digest and ``limit`` of all, newest first, with their repositories."""
    keys = dialect.of(connection).bulk_keys(wanted, str)
    inner = journal.alias("inner")
    times = (
        select(inner.c.at)
        .where(inner.c.repository == keys.first, inner.c.to_digest == keys.second)
        .order_by(inner.c.at.desc())
        .limit(each)
        .correlate(keys.table)
    )
    entry = journal.alias("entry")
    query = select(entry, next_move(entry)).join_from(
        keys.table, entry, (entry.c.repository == keys.first) & entry.c.at.in_(times)
    )
    rows = connection.execute(query.limit(limit)).all()
    return [(row.repository, _span(row, row.until)) for row in sorted(rows, key=lambda row: -int(row.at))]


def next_move(entry: FromClause) -> Label[int]:
    """Return the column ``until``: when the tag of ``entry``, the journal or an alias of it, moved next."""
    later = journal.alias("later")
    return (
        select(later.c.at)
        .where(
            later.c.repository == entry.c.repository,
            later.c.tag == entry.c.tag,
            later.c.at > entry.c.at,
        )
        .order_by(later.c.at)
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
