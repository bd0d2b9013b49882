"""Garbage collection in the catalog: the removal of tags, manifests and links that nothing holds.

There is no mark phase. One query decides whether something is held, and the transaction that removes rows
runs it again for them: content that a client pushed, tagged or found just before is held by then
(docs/adr/0007).

Each step handles a window of a repository's rows in the order of their digests, so that neither memory nor a
transaction grows with the store. A database error ends the run (rule 7 of docs/design.md): what was removed
until then was held by nothing. So does a damaged catalog: it is compared with its indices before the first
removal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    case,
    delete,
    exists,
    func,
    or_,
    select,
    tuple_,
    update,
)

from digestry.catalog import clock, lease_rows, liveness, tag_ages
from digestry.catalog.age_policy import AgePolicy
from digestry.catalog.database import Database
from digestry.catalog.expired_tags import date
from digestry.catalog.removals import WINDOW, Batch, Removals, Removed, Stayed
from digestry.catalog.retention_rules import Retention
from digestry.catalog.schema import journal, leases, links, manifest_references, manifests, repositories
from digestry.catalog.schema import tags as tag_rows
from digestry.catalog.sightings import Sightings
from digestry.catalog.tag_moves import RepositoryKey, Rules
from digestry.catalog.tag_retention import ExpiredTagRemoval
from digestry.catalog.throttle import Throttle
from digestry.catalog.transactions import retried
from digestry.model.digest import Digest

_BATCH: Final = 100
"""Rows that one transaction removes: a push waits for no longer than that takes."""
_AGED_TAGS: Final = 200
"""So many tags with a minimum age are looked at together."""
_PASSES: Final = 64  # how deep indexes of indexes, and referrers of referrers, are followed
_CIRCLE: Final = 10_000


class Garbage:
    """Removes the garbage of a catalog under ``retention``. Thread-safe; each method can be
    called while clients push and pull, by one caller at a time."""

    def __init__(
        self,
        database: Database,
        rules: Rules,
        retention: Retention,
        *,
        lease: int,
        ages: AgePolicy,
        throttle: Throttle | None = None,
    ) -> None:
        """``lease`` is how long a push keeps content, in microseconds; ``ages`` are the minimum ages of tags,
        which keep what they resolve to. Without a ``throttle`` there are no
        pauses, for a catalog that no other process uses."""
        self._database = database
        self._throttle = throttle
        self._rules = rules
        self._retention = retention
        self._lease = lease
        self._ages = ages
        self._removals = Removals(database, throttle)
        self._tags = ExpiredTagRemoval(database, rules, retention, self._removals, lease=lease)

    def repositories(self, *, after: int = -1, until: int | None = None) -> Iterator[RepositoryKey]:
        """Yield the repositories in the order of their rows: those after the row ``after``, up to the row
        ``until``, which is among them; all of them without these."""
        last = after
        while True:
            with self._database.read() as connection:
                query = select(repositories.c.id, repositories.c.name).where(repositories.c.id > last)
                if until is not None:
                    query = query.where(repositories.c.id <= until)
                rows = connection.execute(query.order_by(repositories.c.id).limit(WINDOW)).all()
            for row in rows:
                yield RepositoryKey(row.id, row.name)
            if len(rows) < WINDOW:
                return
            last = rows[-1].id

    def check_consistency(self) -> None:
        """See :meth:`Removals.check_consistency`."""
        self._removals.check_consistency()

    def drop_tags(self, key: RepositoryKey) -> Iterator[Batch]:
        """Delete, each with its journal entry, the tags that a rule covers and no longer keeps."""
        return self._tags.drop(key)

    # -- manifests -------------------------------------------------------------------------------

    def delete_manifests(self, key: RepositoryKey) -> Iterator[Batch]:
        """Delete the manifests that nothing holds: an index before the manifests that it lists."""
        self._hold_aged(key)
        for _ in range(_PASSES):
            found = False
            for removal in (self._pass, self._circles):
                if found:
                    break  # what these held comes first: hardly anything is in a circle
                for batch in removal(key):
                    found |= any(isinstance(item, Removed) for item in batch)
                    yield batch
            if not found:
                return

    def _hold_aged(self, key: RepositoryKey) -> None:
        """Lease what tags resolve to under their minimum ages: no tag holds what one has moved away from."""
        if not self._ages.gates(key.name):
            return
        after = ""
        while True:
            query = select(tag_rows.c.name).where(
                tag_rows.c.repository_id == key.row, tag_rows.c.name > after
            )
            names = [
                row.name for row in self._removals.read(query.order_by(tag_rows.c.name).limit(_AGED_TAGS))
            ]
            self._lease_aged(key, names)
            if len(names) < _AGED_TAGS:
                return
            after = names[-1]
            if self._throttle is not None:
                self._throttle.pause()

    @retried
    def _lease_aged(self, key: RepositoryKey, names: Sequence[str]) -> None:
        now = self._rules.now()
        rules = ((name, self._ages.rule(key.name, name)) for name in names)
        wanted = [(name, rule) for name, rule in rules if rule.age]
        if not wanted:
            return
        with self._database.read() as connection:
            served = set(tag_ages.served(connection, key.name, wanted, now).values())
        with self._database.write() as connection:
            for digest in sorted(served):
                lease_rows.extend(connection, digest, now + self._lease)

    def measure(self, key: RepositoryKey) -> Iterator[tuple[int, int]]:
        """Yield, in parts, how many manifests can be pulled, and how many of them nothing else holds now."""
        self._hold_aged(key)
        visible = (manifests.c.repository_id == key.row) & manifests.c.deleted_at.is_(None)
        held = liveness.manifest(key, self._retention, self._rules.now())
        columns = func.count(), func.coalesce(func.sum(case((held, 0), else_=1)), 0)
        for window in self._removals.windows(manifests.c.digest, visible):
            ((total, dead),) = self._removals.read(
                select(*columns).select_from(manifests).where(window, visible)
            )
            yield total, dead

    def _pass(self, key: RepositoryKey) -> Iterator[Batch]:
        now = self._rules.now()
        columns = manifests.c.digest, manifests.c.size, manifests.c.pushed_at
        visible = (manifests.c.repository_id == key.row) & manifests.c.deleted_at.is_(None)
        dead = visible & ~liveness.manifest(key, self._retention, now)
        for window in self._removals.windows(manifests.c.digest, visible):
            rows = self._removals.read(select(*columns).where(window, dead))
            for start in range(0, len(rows), _BATCH):
                batch = {row.digest: row for row in rows[start : start + _BATCH]}
                yield self._end(key, dead, batch)

    @retried
    def _end(self, key: RepositoryKey, dead: ColumnElement[bool], batch: Mapping[str, Row[Any]]) -> Batch:
        statement = update(manifests).where(dead, manifests.c.digest.in_(batch))
        with self._removals.writing(key, batch) as connection:
            # With the present time: content that was pushed again since the run began is held again.
            gone = connection.execute(
                statement.values(deleted_at=self._rules.now()).returning(manifests.c.digest)
            ).scalars()
            digests = sorted(gone)
            left = _left(connection, key, digests)
        return [
            Removed("manifest", key.name, digest, left.get(digest) or _never(row), row.size)
            for digest, row in ((digest, batch[digest]) for digest in digests)
        ]

    def _circles(self, key: RepositoryKey) -> Iterator[Batch]:
        """Delete manifests that only hold each other, such as an index that lists its own subject."""
        refer = select(manifests.c.digest).where(
            manifests.c.repository_id == key.row, manifests.c.subject.is_not(None)
        )
        if not self._removals.read(refer.limit(1)):
            return  # as in most repositories
        now = self._rules.now()
        lists = exists().where(
            manifest_references.c.repository_id == manifests.c.repository_id,
            manifest_references.c.parent == manifests.c.digest,
            manifest_references.c.role == "manifest",
        )
        visible = (manifests.c.repository_id == key.row) & manifests.c.deleted_at.is_(None)
        suspect = (
            visible & manifests.c.subject.is_not(None) & lists & ~liveness.alone(key, self._retention, now)
        )
        for window in self._removals.windows(manifests.c.digest, visible & manifests.c.subject.is_not(None)):
            for row in self._removals.read(select(manifests.c.digest).where(window, suspect)):
                yield self._circle(key, row.digest)

    @retried
    def _circle(self, key: RepositoryKey, start: str) -> Batch:
        gone: list[Row[Any]] = []
        with self._removals.writing(key) as connection:
            root = or_(
                liveness.alone(key, self._retention, self._rules.now()),
                liveness.about_part(repositories.c.id != key.row),
            )
            circle: set[str] = set()
            frontier = {start}
            while frontier and len(circle) <= _CIRCLE:
                circle |= frontier
                lease_rows.lock(connection, frontier)
                held = select(manifests.c.digest).where(
                    manifests.c.repository_id == key.row, manifests.c.digest.in_(frontier), root
                )
                if any(connection.execute(held.limit(1))):
                    return []
                frontier = liveness.holders(connection, key.row, frontier) - circle
            if len(circle) <= _CIRCLE:
                statement = (
                    update(manifests)
                    .where(
                        manifests.c.repository_id == key.row,
                        manifests.c.digest.in_(circle),
                        manifests.c.deleted_at.is_(None),
                    )
                    .values(deleted_at=self._rules.now())
                )
                gone = list(connection.execute(statement.returning(manifests.c.digest, manifests.c.size)))
        if len(circle) > _CIRCLE:
            return [Stayed("manifest", key.name, start, f"more than {_CIRCLE} manifests hold each other")]
        why = "nothing but each other holds these"
        return [Removed("manifest", key.name, row.digest, why, row.size) for row in gone]

    # -- links and bytes -------------------------------------------------------------------------

    def unlink(self, key: RepositoryKey) -> Iterator[Batch]:
        """Remove the links to blobs that no manifest of the repository needs."""
        now = self._rules.now()
        mine = links.c.repository_id == key.row
        dead = mine & ~or_(liveness.link(), liveness.leased(links.c.digest, now))
        for window in self._removals.windows(links.c.digest, mine):
            rows = self._removals.read(select(links.c.digest).where(window, dead))
            for start in range(0, len(rows), _BATCH):
                batch = [row.digest for row in rows[start : start + _BATCH]]
                yield self._unlink(key, dead, batch)

    @retried
    def _unlink(self, key: RepositoryKey, dead: ColumnElement[bool], batch: Sequence[str]) -> Batch:
        statement = delete(links).where(dead, links.c.digest.in_(batch))
        with self._removals.writing(key, batch) as connection:
            gone = connection.execute(statement.returning(links.c.digest, links.c.size)).all()
        why = f"no manifest of {key.name} needs it"
        return [Removed("link", key.name, row.digest, why, row.size) for row in sorted(gone)]

    def held(self, digests: Sequence[Digest]) -> set[Digest]:
        """Return those of up to some hundred digests whose bytes must stay: linked, visible, or leased."""
        names = {str(digest): digest for digest in digests}
        wanted = list(names)
        queries: tuple[Select[Any], ...] = (
            select(links.c.digest).where(links.c.digest.in_(wanted)),
            select(manifests.c.digest).where(
                manifests.c.digest.in_(wanted), manifests.c.deleted_at.is_(None)
            ),
            select(leases.c.digest).where(
                leases.c.digest.in_(wanted), leases.c.expires_at > self._rules.now()
            ),
        )
        with self._database.read() as connection:
            return {names[row.digest] for query in queries for row in connection.execute(query)}

    def forget(self) -> None:
        """Remove leases that have ended, and sightings that no longer keep content."""
        now = self._rules.now()
        while self._forget_leases(now) == WINDOW:
            pass
        if self._retention.sighted is not None:
            Sightings(self._database).prune(now - int(self._retention.sighted * clock.SECOND) + 1)

    @retried
    def _forget_leases(self, now: int) -> int:
        ended = select(leases.c.digest).where(leases.c.expires_at <= now).limit(WINDOW)
        # Checked again: a lease may have been renewed since the search.
        statement = delete(leases).where(leases.c.digest.in_(ended), leases.c.expires_at <= now)
        with self._removals.writing() as connection:
            return connection.execute(statement).rowcount


def _left(connection: Connection, key: RepositoryKey, digests: Sequence[str]) -> dict[str, str]:
    """Return which tag left these manifests last, and when, of those that one ever pointed to."""
    last = (
        select(journal.c.from_digest, func.max(journal.c.at))
        .where(journal.c.repository == key.name, journal.c.from_digest.in_(digests))
        .group_by(journal.c.from_digest)
    )
    entries = select(journal.c.from_digest, journal.c.tag, journal.c.at).where(
        journal.c.repository == key.name, tuple_(journal.c.from_digest, journal.c.at).in_(last)
    )
    return {
        row.from_digest: f"tag {row.tag} left it at {date(row.at)}, and nothing holds it since"
        for row in connection.execute(entries)
    }


def _never(row: Row[Any]) -> str:
    return f"no tag ever pointed to it; pushed at {date(row.pushed_at)}"
