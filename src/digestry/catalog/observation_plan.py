"""What is to be observed in other registries: rules that a command added, and the schedule."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update

from digestry.catalog import dialect
from digestry.catalog.database import Database
from digestry.catalog.job_states import Fence
from digestry.catalog.observation_schema import (
    kept_observations,
    observation_rules,
    observation_schedule,
)
from digestry.catalog.schema import journal, repositories, tags
from digestry.catalog.transactions import retried
from digestry.errors import Conflict, NotFound
from digestry.model.history import MIRROR
from digestry.model.name_pattern import matches

BATCH: Final = 500
"""Rows that one transaction changes."""
FOR_AGE: Final = "min-age"
"""Who added a rule for the tags of a mirror with a minimum age, which clients asked for."""
MOST_TAGS: Final = 500
"""So many tags of a repository are observed because clients asked for them."""


@dataclass(frozen=True, slots=True)
class ObservationRule:
    """What is to be observed, beside what the configuration says.

    ``repository`` is a name with its registry's host; ``tags`` are patterns; ``interval`` and ``created_at``
    are in microseconds. With ``keep``, all content of each image is fetched, and kept for ``keep_for``
    (microseconds) after a tag left it; None: as long as the repository is observed.
    """

    repository: str
    tags: tuple[str, ...]
    interval: int
    keep: bool
    created_at: int
    actor: str
    keep_for: int | None = None


@dataclass(frozen=True, slots=True)
class ScheduledTag:
    """A tag of a local repository, or its list of tags, and when it is due. Times are in microseconds.
    ``etag`` is the validator of the last answer, and ``failures`` counts the failed requests since that."""

    repository: str
    tag: str
    interval: int
    due_at: int
    failures: int = 0
    etag: str = ""


class ObservationPlan:
    """The rules and the schedule. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @retried
    def add(self, rule: ObservationRule) -> None:
        """Add a rule. Raises :class:`Conflict` if there is one for that repository."""
        with self._database.write() as connection:
            if connection.execute(_rule(rule.repository)).first() is not None:
                raise Conflict(
                    f"{rule.repository} is observed already",
                    hint=f"remove that first: digestry observe remove {rule.repository}",
                )
            values = {
                "repository": rule.repository,
                "tags": msgspec.json.encode(rule.tags).decode(),
                "interval": rule.interval,
                "keep": rule.keep,
                "keep_for": rule.keep_for,
                "created_at": rule.created_at,
                "actor": rule.actor,
            }
            connection.execute(insert(observation_rules).values(**values))

    @retried
    def include(self, repository: str, tag: str, *, interval: int, now: int) -> None:
        """Observe a tag that has a minimum age, and that somebody asked for: add it to the rule for its
        repository, which is made if there is none. Nothing if a pattern of the rule covers it, or if the rule
        has :data:`MOST_TAGS` already."""
        with self._database.write() as connection:
            row = connection.execute(_rule(repository).with_for_update()).first()
            if row is None:
                values = {
                    "repository": repository,
                    "tags": msgspec.json.encode((tag,)).decode(),
                    "interval": interval,
                    "keep": False,
                    "created_at": now,
                    "actor": FOR_AGE,
                }
                connection.execute(insert(observation_rules).values(**values))
                return
            tags = msgspec.json.decode(row.tags, type=tuple[str, ...])
            if any(matches(pattern, tag) for pattern in tags) or len(tags) >= MOST_TAGS:
                return
            connection.execute(
                update(observation_rules)
                .where(observation_rules.c.repository == repository)
                .values(tags=msgspec.json.encode((*tags, tag)).decode())
            )

    @retried
    def remove(self, repository: str) -> None:
        """Remove the rule for a repository. Raises :class:`NotFound`."""
        with self._database.write() as connection:
            gone = delete(observation_rules).where(observation_rules.c.repository == repository)
            if not connection.execute(gone).rowcount:
                raise NotFound(
                    f"no rule was added for {repository}", hint="see what there is: digestry observe list"
                )

    def rules(self) -> list[ObservationRule]:
        """Return all rules, by repository."""
        with self._database.read() as connection:
            rows = connection.execute(select(observation_rules).order_by(observation_rules.c.repository))
            return [
                ObservationRule(
                    row.repository,
                    msgspec.json.decode(row.tags, type=tuple[str, ...]),
                    row.interval,
                    bool(row.keep),
                    row.created_at,
                    row.actor,
                    row.keep_for,
                )
                for row in rows
            ]

    @retried
    def keep(self, kept: Mapping[str, int | None], fence: Fence | None = None) -> None:
        """Keep the observed images of these local repositories, and of no other ones, from garbage
        collection: each for so many microseconds after a tag left it; None: without an end."""
        query = select(kept_observations.c.repository, kept_observations.c.duration)
        with self._database.write() as connection:
            _check(connection, fence)
            known = {row.repository: row.duration for row in connection.execute(query)}
            changed = [name for name in {**known, **kept} if name not in kept or name not in known]
            changed += [name for name in kept.keys() & known.keys() if kept[name] != known[name]]
            for name in changed:
                connection.execute(delete(kept_observations).where(kept_observations.c.repository == name))
                if name in kept:
                    row = {"repository": name, "duration": kept[name]}
                    connection.execute(insert(kept_observations).values(**row))

    def pushed_tag(self, repository: str) -> str | None:
        """Return a tag of a local repository that points where no other registry's tag was seen to point: a
        client pushed it. None if there is none."""
        mirrored = select(journal.c.number).where(
            journal.c.repository == repositories.c.name,
            journal.c.to_digest == tags.c.digest,
            journal.c.tag == tags.c.name,
            journal.c.actor.startswith(MIRROR, autoescape=True),
        )
        query = (
            select(tags.c.name)
            .join(repositories, repositories.c.id == tags.c.repository_id)
            .where(repositories.c.name == repository, ~mirrored.exists())
        )
        with self._database.read() as connection:
            return connection.execute(query.limit(1)).scalar()

    # -- the schedule ----------------------------------------------------------------------------

    def schedule(self, wanted: Iterable[ScheduledTag], fence: Fence | None = None) -> None:
        """Add tags to the schedule. One that is there gets a new interval, and keeps the rest; it is due no
        later than before."""
        # In one order, so that two processes at a time do not deadlock.
        rows = sorted(wanted, key=lambda one: (one.repository, one.tag))
        for start in range(0, len(rows), BATCH):
            self._schedule(rows[start : start + BATCH], fence)

    @retried
    def _schedule(self, rows: Sequence[ScheduledTag], fence: Fence | None) -> None:
        values = [
            {
                "repository": one.repository,
                "tag": one.tag,
                "interval": one.interval,
                "due_at": one.due_at,
                "failures": one.failures,
                "etag": one.etag,
            }
            for one in rows
        ]
        with self._database.write() as connection:
            _check(connection, fence)
            connection.execute(dialect.of(connection).upserts.observation_schedule, values)

    def tags(self, repository: str) -> dict[str, int]:
        """Return the scheduled tags of a repository, with their intervals."""
        query = select(observation_schedule.c.tag, observation_schedule.c.interval).where(
            observation_schedule.c.repository == repository
        )
        with self._database.read() as connection:
            return {row.tag: row.interval for row in connection.execute(query)}

    def all_tags(self) -> dict[str, dict[str, int]]:
        """Return the scheduled tags of each repository, with their intervals."""
        query = select(
            observation_schedule.c.repository, observation_schedule.c.tag, observation_schedule.c.interval
        )
        found: dict[str, dict[str, int]] = {}
        with self._database.read() as connection:
            for row in connection.execute(query):
                found.setdefault(row.repository, {})[row.tag] = row.interval
        return found

    def repositories(self) -> dict[str, int]:
        """Return the repositories in the schedule, with how many tags each has there."""
        query = select(observation_schedule.c.repository, func.count()).group_by(
            observation_schedule.c.repository
        )
        with self._database.read() as connection:
            return {name: int(count) for name, count in connection.execute(query)}

    def due_repositories(self, now: int) -> set[str]:
        """Return the repositories of which a tag, or the list of tags, is due."""
        query = (
            select(observation_schedule.c.repository).where(observation_schedule.c.due_at <= now).distinct()
        )
        with self._database.read() as connection:
            return set(connection.execute(query).scalars())

    def due(
        self, repository: str, now: int, *, limit: int, without: Collection[str] = ()
    ) -> list[ScheduledTag]:
        """Return the tags of a repository that are due, the longest due first, ``without`` some."""
        query = (
            select(observation_schedule)
            .where(observation_schedule.c.repository == repository, observation_schedule.c.due_at <= now)
            .order_by(observation_schedule.c.due_at)
            .limit(limit + len(without))
        )
        with self._database.read() as connection:
            found = [_scheduled(row) for row in connection.execute(query)]
        return [one for one in found if one.tag not in without][:limit]

    def lag(self, now: int, repository: str = "") -> int:
        """Return for how many microseconds the tag, of a ``repository`` or of all, has been due that is due
        for the longest; 0 for none."""
        query = select(func.min(observation_schedule.c.due_at))
        if repository:
            query = query.where(observation_schedule.c.repository == repository)
        with self._database.read() as connection:
            due = connection.execute(query).scalar()
        return 0 if due is None else max(0, now - int(due))

    @retried
    def reschedule(self, one: ScheduledTag, fence: Fence | None = None) -> None:
        """Store when a tag is due next, its failures and its validator; nothing if it has no schedule any
        more."""
        with self._database.write(durable=False) as connection:
            _check(connection, fence)
            connection.execute(
                update(observation_schedule)
                .where(
                    observation_schedule.c.repository == one.repository, observation_schedule.c.tag == one.tag
                )
                .values(due_at=one.due_at, failures=one.failures, etag=one.etag)
            )

    @retried
    def bring_forward(self, now: int, fence: Fence | None = None) -> int:
        """Make due what is due later than any observation can be: the clock was set back. Return how many."""
        late = observation_schedule.c.due_at > now + 2 * observation_schedule.c.interval
        with self._database.write() as connection:
            _check(connection, fence)
            return connection.execute(update(observation_schedule).where(late).values(due_at=now)).rowcount

    @retried
    def hasten(self, repository: str, at: int) -> int:
        """Make all tags of a repository due at the time ``at``; return how many."""
        with self._database.write() as connection:
            change = update(observation_schedule).where(observation_schedule.c.repository == repository)
            return connection.execute(change.values(due_at=at)).rowcount

    def waiting(self, repository: str, at: int) -> int:
        """Return how many tags of a repository are due at the time ``at``."""
        query = select(func.count()).where(
            observation_schedule.c.repository == repository, observation_schedule.c.due_at <= at
        )
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())

    def unschedule(
        self, repository: str, tags: Iterable[str] | None = None, fence: Fence | None = None
    ) -> None:
        """Take tags, by default all of a repository, out of the schedule."""
        some = None if tags is None else sorted(tags)
        if some is None:
            self._unschedule(repository, None, fence)
            return
        for start in range(0, len(some), BATCH):
            self._unschedule(repository, some[start : start + BATCH], fence)

    @retried
    def _unschedule(self, repository: str, tags: Sequence[str] | None, fence: Fence | None) -> None:
        gone = delete(observation_schedule).where(observation_schedule.c.repository == repository)
        if tags is not None:
            gone = gone.where(observation_schedule.c.tag.in_(tags))
        with self._database.write() as connection:
            _check(connection, fence)
            connection.execute(gone)


def _rule(repository: str) -> Select[Any]:
    return select(observation_rules).where(observation_rules.c.repository == repository)


def _scheduled(row: Row[Any]) -> ScheduledTag:
    return ScheduledTag(row.repository, row.tag, row.interval, row.due_at, row.failures, row.etag)


def _check(connection: Connection, fence: Fence | None) -> None:
    if fence is not None:
        fence.require_held(connection)
