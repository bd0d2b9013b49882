"""The rows of observations, as functions on a transaction (docs/adr/0032)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, Select, insert, or_, select, update

from digestry.catalog.observation_schema import observation_schedule, observations
from digestry.model.digest import Digest

Outcome = Literal["seen", "absent", "failed"]

LIST: Final = ""
"""Stands for a repository's list of tags, where a tag is expected."""
LONGEST_REASON: Final = 300
"""In characters."""
_IN_TIME: Final = 2
"""A span goes on if the next observation comes after so many intervals at the latest."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one request found: where ``tag`` points (``seen``), that it does not exist (``absent``), or
    nothing (``failed``, for a ``reason``).

    ``repository`` is the local one, which mirrors the other registry's. ``interval`` is the time between two
    observations of this tag, ``at`` the time of the answer; both in microseconds. With the tag
    :data:`LIST` it is about the repository's list of tags, and ``seen`` has no digest.
    """

    repository: str
    tag: str
    outcome: Outcome
    at: int
    interval: int
    digest: Digest | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which all observations of a tag had one outcome, each no later than two intervals after the
    one before. ``first_at`` and ``last_at`` are those of its first and last observation, ``interval`` that of
    the last one; all in microseconds. ``number`` rises with the order in which spans began.

    A later span, or none, may begin long after ``last_at``: nothing is known of the time between.
    """

    number: int
    repository: str
    tag: str
    outcome: Outcome
    digest: Digest | None
    reason: str
    first_at: int
    last_at: int
    count: int
    interval: int

    def lasts(self, now: int) -> bool:
        """Return whether the next observation, if it came ``now``, would be in time."""
        return 0 <= now - self.last_at <= _IN_TIME * self.interval


def record(connection: Connection, observation: Observation) -> None:
    """Add an observation to the tag's last span, or begin a new one."""
    seen = observation
    last = connection.execute(_of_tag(seen.repository, seen.tag).limit(1).with_for_update()).first()
    digest = None if seen.digest is None else str(seen.digest)
    reason = seen.reason[:LONGEST_REASON]
    if (
        last is not None
        and (last.outcome, last.digest, last.reason) == (seen.outcome, digest, reason)
        and 0 <= seen.at - last.last_at <= _IN_TIME * max(seen.interval, last.interval)
    ):
        connection.execute(
            update(observations)
            .where(observations.c.number == last.number)
            .values(last_at=seen.at, count=last._mapping["count"] + 1, interval=seen.interval)
        )
        return
    connection.execute(
        insert(observations).values(
            repository=seen.repository,
            tag=seen.tag,
            outcome=seen.outcome,
            digest=digest,
            reason=reason,
            first_at=seen.at,
            last_at=seen.at,
            count=1,
            interval=seen.interval,
        )
    )


def interval_of(connection: Connection, repository: str, tag: str) -> int | None:
    """Return the interval (microseconds) at which the tag is observed; None if it is not."""
    query = select(observation_schedule.c.interval).where(
        observation_schedule.c.repository == repository, observation_schedule.c.tag == tag
    )
    return connection.execute(query).scalar()


def last_other(connection: Connection, repository: str, tag: str, digest: str | None, at: int) -> int | None:
    """Return when the tag was last observed in another state than ``digest`` (None: absent): it has moved
    after that time. None if it never was, or if that was not before ``at``."""
    other = (
        observations.c.outcome == "seen"
        if digest is None
        else or_(observations.c.outcome == "absent", observations.c.digest != digest)
    )
    query = _of_tag(repository, tag).where(observations.c.outcome != "failed", other)
    row = connection.execute(query.limit(1)).first()
    return None if row is None or row.last_at >= at else int(row.last_at)


def spans(
    connection: Connection, repository: str, tag: str, *, before: int | None = None, limit: int
) -> list[Span]:
    """Return the tag's spans, the one that began last first; with ``before``, those numbered below it."""
    query = _of_tag(repository, tag)
    if before is not None:
        query = query.where(observations.c.number < before)
    return [to_span(row) for row in connection.execute(query.limit(limit))]


def to_span(row: Row[Any]) -> Span:
    """Return a row of the table as a span."""
    return Span(
        number=row.number,
        repository=row.repository,
        tag=row.tag,
        outcome=row.outcome,
        digest=None if row.digest is None else Digest.parse(row.digest),
        reason=row.reason,
        first_at=row.first_at,
        last_at=row.last_at,
        count=row._mapping["count"],
        interval=row.interval,
    )


def _of_tag(repository: str, tag: str) -> Select[Any]:
    return (
        select(observations)
        .where(observations.c.repository == repository, observations.c.tag == tag)
        .order_by(observations.c.number.desc())
    )
