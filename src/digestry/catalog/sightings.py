"""Sightings: where audits saw each digest of a repository running, when first and when last.

There is one row for each digest, repository and place, so that frequent audits of a fleet do not make the
table larger. Only digests that a repository has or had are recorded, each at a limited number of places. The
table's size is limited: once it is full, the oldest rows of the actor who reported most are removed, but
never the latest of a digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, exists, func, select, union
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from digestry.catalog import clock, dialect
from digestry.catalog.database import Database
from digestry.catalog.schema import manifests, repositories, sighting_usage, sightings
from digestry.catalog.transactions import retried
from digestry.model.digest import Digest
from digestry.model.sightings import Sighting, SightingReport, SightingsOf, SightingsReceipt

MOST_PLACES: Final = 10_000
"""Places that are remembered of one digest in one repository: those where it was seen last."""
MOST_BYTES: Final = 512 << 20
"""The limit on all sightings, as triggers count them: more than they take in the database."""
BATCH: Final = 1000
"""Sightings of one transaction."""

_PRUNED: Final = 5000
_LOOKED_AT: Final = 2000
"""The most of the oldest sightings of the actor who reported most that are deleted at once."""


class Sightings:
    """The sightings that audits reported. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, entries: Iterable[SightingReport], *, at: int, actor: str) -> SightingsReceipt:
        """Record that ``entries`` ran at the time ``at`` (microseconds since 1970), as ``actor`` reports.

        Return how many were recorded, how many are of digests that their repository never had, and for how
        many there was no room. A place's first time stays, its last time only rises, and its number of
        containers is the last reported one. One transaction for every :data:`BATCH` of them.
        """
        result = SightingsReceipt()
        for some in _batched(merged(entries)):
            result += self._note(some, at=at, actor=actor)
        return result

    @retried
    def _note(self, entries: Sequence[SightingReport], *, at: int, actor: str) -> SightingsReceipt:
        with self._database.write() as connection:
            known = _known(connection, entries)
            rows = [
                {
                    "digest": str(entry.digest),
                    "repository": entry.repository,
                    "place": entry.place,
                    "containers": entry.containers,
                    "first_at": at,
                    "last_at": at,
                    "actor": actor,
                }
                for entry in entries
                if (entry.repository, str(entry.digest)) in known
            ]
            refused = 0
            if rows:
                connection.execute(dialect.of(connection).upserts.sighting, rows)
                _bound(connection, known)
                refused = _make_room(connection, actor, at)
        return SightingsReceipt(len(rows) - refused, len(entries) - len(rows), refused)

    def of(self, repository: str, digest: Digest, *, limit: int) -> SightingsOf:
        """Return the ``limit`` latest places where ``digest``, or a manifest whose config it is, ran.

        Empty if it was never seen, and for an unknown repository.
        """
        inside = select(manifests.c.digest).join(repositories, repositories.c.id == manifests.c.repository_id)
        mine = inside.where(repositories.c.name == repository, manifests.c.config == str(digest))
        found = (
            select(
                sightings.c.place,
                func.max(sightings.c.containers).label("containers"),
                func.min(sightings.c.first_at).label("first_at"),
                func.max(sightings.c.last_at).label("last_at"),
            )
            .where(
                (sightings.c.digest == str(digest)) | sightings.c.digest.in_(mine),
                sightings.c.repository == repository,
            )
            .group_by(sightings.c.place)
            .subquery()
        )
        query = select(found).order_by(found.c.last_at.desc(), found.c.place).limit(limit)
        with self._database.read() as connection:
            places = connection.execute(select(func.count()).select_from(found)).scalar_one()
            return SightingsOf(
                digest,
                places,
                tuple(
                    Sighting(
                        row.place,
                        row.containers,
                        clock.to_datetime(row.first_at),
                        clock.to_datetime(row.last_at),
                    )
                    for row in connection.execute(query)
                ),
            )

    def prune(self, older_than: int) -> int:
        """Delete the rows that were seen last before that time, and return their number. It takes several
        transactions, so that no other writer waits long."""
        removed = 0
        while True:
            some, more = self._prune(older_than)
            removed += some
            if not more:
                return removed

    @retried
    def _prune(self, older_than: int) -> tuple[int, bool]:
        old = select(sightings.c.last_at).where(sightings.c.last_at < older_than)
        with self._database.write() as connection:
            end = connection.execute(old.order_by(sightings.c.last_at).offset(_PRUNED).limit(1)).scalar()
            here = sightings.c.last_at < older_than if end is None else sightings.c.last_at <= end
            return connection.execute(delete(sightings).where(here)).rowcount, end is not None


def merged(entries: Iterable[SightingReport]) -> list[SightingReport]:
    """Return ``entries``, with those of the same digest, repository and place merged into one."""
    merged: dict[tuple[str, str, str], SightingReport] = {}
    for entry in entries:
        key = entry.repository, str(entry.digest), entry.place
        before = merged.get(key)
        if before is None:
            merged[key] = entry
        else:
            together = entry.containers + before.containers
            merged[key] = SightingReport(entry.repository, entry.digest, entry.place, together)
    # In one order, so that two reports at a time do not deadlock.
    return [merged[key] for key in sorted(merged)]


def _known(connection: Connection, entries: Sequence[SightingReport]) -> set[tuple[str, str]]:
    """Return the pairs of repository and digest that are a manifest there, or a manifest's config. Deleted
    manifests count too: their images may still run."""
    wanted = dialect.of(connection).bulk_keys(
        sorted({(entry.repository, str(entry.digest)) for entry in entries}), str
    )
    here = select(wanted.first, wanted.second).join_from(
        wanted.table, repositories, repositories.c.name == wanted.first
    )
    either = (
        here.join(manifests, (manifests.c.repository_id == repositories.c.id) & (column == wanted.second))
        for column in (manifests.c.digest, manifests.c.config)
    )
    return {(row[0], row[1]) for row in connection.execute(union(*either))}


def _bound(connection: Connection, keys: set[tuple[str, str]]) -> None:
    """Delete the oldest places of each of ``keys`` with too many: those of the actor who reported most."""
    wanted = dialect.of(connection).bulk_keys(sorted(keys), str)
    here = (sightings.c.repository == wanted.first) & (sightings.c.digest == wanted.second)
    crowded = (
        select(sightings.c.repository, sightings.c.digest)
        .join_from(wanted.table, sightings, here)
        .group_by(sightings.c.repository, sightings.c.digest)
        .having(func.count() > MOST_PLACES)
    )
    for repository, digest in connection.execute(crowded).all():
        mine = (sightings.c.digest == digest) & (sightings.c.repository == repository)
        # The latest sightings of each actor come first: no actor removes the reports of others.
        newest = (sightings.c.last_at.desc(), sightings.c.place)
        turn = func.row_number().over(partition_by=sightings.c.actor, order_by=newest).label("turn")
        ranked = select(sightings.c.place, sightings.c.last_at, turn).where(mine).subquery()
        kept = (
            select(ranked.c.place)
            .order_by(ranked.c.turn, ranked.c.last_at.desc(), ranked.c.place)
            .limit(MOST_PLACES)
        )
        connection.execute(delete(sightings).where(mine, sightings.c.place.not_in(kept)))


def _make_room(connection: Connection, actor: str, at: int) -> int:
    """Delete the oldest rows of the actor who reported most if the table is too large. Return how many of the
    rows that ``actor`` reports now, at ``at``, were deleted.

    The latest of each digest stays: it keeps the digest from garbage collection.
    """
    over = int(connection.execute(select(func.sum(sighting_usage.c.bytes))).scalar_one()) - MOST_BYTES
    if over <= 0:
        return 0
    row_id = dialect.of(connection).row_id(sightings).label("row")
    most = (sighting_usage.c.bytes.desc(), sighting_usage.c.actor)
    heaviest = connection.execute(select(sighting_usage.c.actor).order_by(*most).limit(1)).scalar_one()
    oldest = (
        select(row_id, *sightings.c)
        .where(sightings.c.actor == heaviest, (sightings.c.actor != actor) | (sightings.c.last_at != at))
        .order_by(sightings.c.last_at)
        .limit(_LOOKED_AT)
        .with_for_update()
        .subquery()
    )
    later = sightings.alias()
    is_later = (later.c.last_at > oldest.c.last_at) | (
        (later.c.last_at == oldest.c.last_at) & (later.c.place > oldest.c.place)
    )
    same_row = (later.c.digest == oldest.c.digest) & (later.c.repository == oldest.c.repository)
    found = select(oldest.c.row, sighting_bytes(connection, oldest.c)).where(
        exists().where(same_row, is_later)
    )
    over = _drop(connection, found.order_by(oldest.c.last_at), over)[1]
    if over <= 0:
        return 0
    reported_now = select(row_id, sighting_bytes(connection, sightings.c)).where(
        sightings.c.actor == actor, sightings.c.last_at == at, sightings.c.first_at == at
    )
    return _drop(connection, reported_now, over)[0]


def _drop(connection: Connection, rows: Select[Any, int], over: int) -> tuple[int, int]:
    """Delete as many of ``rows`` as have ``over`` bytes; return their number, and the bytes that are left."""
    found: list[Row[Any]] = []
    for row, size in connection.execute(rows).all():
        if over <= 0:
            break
        found.append(row)
        over -= size
    spoken = dialect.of(connection)
    connection.execute(delete(sightings).where(spoken.row_id(sightings).in_(spoken.bulk_row_ids(found))))
    return len(found), over


def sighting_bytes(connection: Connection, row: ReadOnlyColumnCollection[str, Any]) -> ColumnElement[int]:
    """Return a sighting's size, as the triggers count it."""
    text = row.place + row.repository + row.digest + row.actor
    return 200 + 2 * dialect.of(connection).byte_length(text)


def _batched(entries: Sequence[SightingReport]) -> Iterable[Sequence[SightingReport]]:
    for start in range(0, len(entries), BATCH):
        yield entries[start : start + BATCH]
