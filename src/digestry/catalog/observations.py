"""What was observed in other registries: which tag pointed where, when, and when nobody knows.

A tag's observations are spans (docs/adr/0032). A span goes on only if the next observation has the same
outcome and comes in time, by a clock that did not go back: so a gap is never a time in which the tag stood.
A move there and back between two observations leaves no trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import delete, exists, select, tuple_

from digestry.catalog import clock, observation_rows
from digestry.catalog.database import Database
from digestry.catalog.job_states import Fence
from digestry.catalog.observation_rows import LIST, Observation, Outcome, Span
from digestry.catalog.observation_schema import observations
from digestry.catalog.transactions import retried
from digestry.model.digest import Digest

__all__ = ["LIST", "Observation", "Observations", "Outcome", "Span"]

BATCH: Final = 200
"""Observations of one transaction."""


class Observations:
    """The observations of other registries' tags. Thread-safe."""

    def __init__(self, database: Database, now: clock.Clock = clock.now) -> None:
        self._database = database
        self._now = now

    def seen(
        self, repository: str, tag: str, digest: Digest, *, interval: int, at: int | None = None
    ) -> None:
        """Record that the tag pointed to ``digest`` at the time ``at``, by default now.

        ``repository`` is the local one that mirrors the other registry's. Times and ``interval``, the time
        between two observations of this tag, are in microseconds.
        """
        self.record([Observation(repository, tag, "seen", self._or_now(at), interval, digest)])

    def absent(self, repository: str, tag: str, *, interval: int, at: int | None = None) -> None:
        """Record that the tag did not exist, as its registry said."""
        self.record([Observation(repository, tag, "absent", self._or_now(at), interval)])

    def failed(self, repository: str, tag: str, reason: str, *, interval: int, at: int | None = None) -> None:
        """Record that nothing was learnt of the tag, for a ``reason``."""
        self.record([Observation(repository, tag, "failed", self._or_now(at), interval, reason=reason)])

    def record(self, found: Iterable[Observation], fence: Fence | None = None) -> None:
        """Record observations: one transaction for every :data:`BATCH` of them. Those of one tag keep their
        order. Raises :class:`Conflict` if the ``fence`` of the process is no longer held."""
        # In one order, so that two processes at a time do not deadlock.
        ordered = sorted(found, key=lambda one: (one.repository, one.tag))
        for start in range(0, len(ordered), BATCH):
            self._record(ordered[start : start + BATCH], fence)

    @retried
    def _record(self, found: Sequence[Observation], fence: Fence | None) -> None:
        with self._database.write() as connection:
            if fence is not None:
                fence.require_held(connection)
            for one in found:
                observation_rows.record(connection, one)

    def spans(self, repository: str, tag: str, *, before: int | None = None, limit: int = 1000) -> list[Span]:
        """Return the tag's spans, the one that began last first; with ``before``, those numbered below it."""
        with self._database.read() as connection:
            return observation_rows.spans(connection, repository, tag, before=before, limit=limit)

    def boundaries(self, since: int, *, after: Span | None = None, limit: int) -> list[Span]:
        """Return the spans that failed, or that began after another one, at the time ``since`` or later, by
        repository and tag, those of a tag in their order; with ``after``, those after that one."""
        earlier = observations.alias("earlier")
        follows = exists().where(
            earlier.c.repository == observations.c.repository,
            earlier.c.tag == observations.c.tag,
            earlier.c.number < observations.c.number,
        )
        query = select(observations).where(
            observations.c.last_at >= since,
            (observations.c.outcome == "failed") | ((observations.c.first_at >= since) & follows),
        )
        if after is not None:
            place = tuple_(observations.c.repository, observations.c.tag, observations.c.number)
            query = query.where(place > tuple_(after.repository, after.tag, after.number))
        query = query.order_by(observations.c.repository, observations.c.tag, observations.c.number)
        with self._database.read() as connection:
            return [observation_rows.to_span(row) for row in connection.execute(query.limit(limit))]

    def repositories(self, older_than: int) -> list[str]:
        """Return the repositories with spans that ended before that time."""
        query = select(observations.c.repository).where(observations.c.last_at < older_than).distinct()
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())

    def prune(self, older_than: int, *, limit: int, aging: Sequence[str] = ()) -> int:
        """Delete spans that ended before that time, up to ``limit``, but never a tag's last one; return how
        many. In the repositories ``aging``, spans for which a tag stood stay: they are the digest's age."""
        later = observations.alias("later")
        followed = exists().where(
            later.c.repository == observations.c.repository,
            later.c.tag == observations.c.tag,
            later.c.number > observations.c.number,
        )
        stood = (observations.c.outcome == "seen") & (observations.c.first_at < observations.c.last_at)
        stays = [~(stood & observations.c.repository.in_(aging))] if aging else []
        old = (
            select(observations.c.number)
            .where(observations.c.last_at < older_than, followed, *stays)
            .order_by(observations.c.last_at)
            .limit(limit)
        )
        with self._database.read() as connection:
            numbers = list(connection.execute(old).scalars())
        for start in range(0, len(numbers), BATCH):
            self._delete(numbers[start : start + BATCH])
        return len(numbers)

    @retried
    def _delete(self, numbers: Sequence[int]) -> None:
        with self._database.write() as connection:
            connection.execute(delete(observations).where(observations.c.number.in_(numbers)))

    def _or_now(self, at: int | None) -> int:
        return self._now() if at is None else at
