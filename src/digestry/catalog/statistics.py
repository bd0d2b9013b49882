"""Statistics of the catalog, for the metrics. Nothing here writes."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from digestry.catalog.database import Database
from digestry.catalog.job_states import JobState, JobStates
from digestry.catalog.schema import (
    damaged,
    deliveries,
    jobs,
    journal,
    links,
    manifests,
    repositories,
    tags,
    uploads,
)


@dataclass(frozen=True, slots=True)
class StoreSize:
    """The amount of content in the catalog. ``blobs`` and ``bytes`` count content once, ``linked_bytes`` in
    each repository that has it; manifests are those that can be pulled, counted in each repository, and are
    no blobs."""

    repositories: int
    tags: int
    manifests: int
    blobs: int
    bytes: int
    linked_bytes: int
    journal_entries: int


@dataclass(frozen=True, slots=True)
class Present:
    """Counts that change all the time. ``deliveries`` are by webhook, and whether they were given up."""

    uploads: int
    quarantined: int
    deliveries: dict[tuple[str, bool], int]
    jobs: tuple[JobState, ...]


class Statistics:
    """Counts. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._jobs = JobStates(database)

    def store(self) -> StoreSize:
        """Return how large the store is. A second or two for a million links: not for each scrape."""
        once = (
            select(links.c.digest, func.max(links.c.size).label("size")).group_by(links.c.digest).subquery()
        )
        with self._database.read() as connection:
            blobs, size = connection.execute(
                select(func.count(), func.coalesce(func.sum(once.c.size), 0)).select_from(once)
            ).one()
            return StoreSize(
                repositories=connection.execute(select(func.count()).select_from(repositories)).scalar_one(),
                tags=connection.execute(select(func.count()).select_from(tags)).scalar_one(),
                manifests=connection.execute(
                    select(func.count()).select_from(manifests).where(manifests.c.deleted_at.is_(None))
                ).scalar_one(),
                blobs=blobs,
                bytes=int(size),
                linked_bytes=int(
                    connection.execute(select(func.coalesce(func.sum(links.c.size), 0))).scalar_one()
                ),
                # Entries are numbered from 1, without a gap.
                journal_entries=connection.execute(
                    select(func.coalesce(func.max(journal.c.sequence), 0))
                ).scalar_one(),
            )

    def present(self) -> Present:
        """Return the present counts, in few short queries."""
        dead = deliveries.c.dead_at.is_not(None)
        with self._database.read() as connection:
            under_way = connection.execute(select(func.count()).select_from(uploads)).scalar_one()
            bad = connection.execute(select(func.count()).select_from(damaged)).scalar_one()
            waiting = connection.execute(
                select(deliveries.c.webhook, dead, func.count()).group_by(deliveries.c.webhook, dead)
            ).all()
            names = connection.execute(select(jobs.c.name).order_by(jobs.c.name)).scalars().all()
        states = (self._jobs.state(name) for name in names)
        return Present(
            uploads=under_way,
            quarantined=bad,
            deliveries={(webhook, bool(given_up)): count for webhook, given_up, count in waiting},
            jobs=tuple(state for state in states if state is not None),
        )

    def last_entry(self) -> int:
        """Return the number of the journal's last entry; 0 for none."""
        with self._database.read() as connection:
            query = select(func.coalesce(func.max(journal.c.sequence), 0))
            return int(connection.execute(query).scalar_one())

    def moves(self, after: int) -> tuple[int, dict[str, int]]:
        """Return how many events of each kind the journal has after entry ``after``, and its last entry."""
        query = select(journal.c.event, func.count(), func.max(journal.c.sequence))
        with self._database.read() as connection:
            rows = connection.execute(query.where(journal.c.sequence > after).group_by(journal.c.event)).all()
        return max((row[2] for row in rows), default=after), {row[0]: row[1] for row in rows}
