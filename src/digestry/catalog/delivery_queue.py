"""The delivery queue: events that webhooks have not accepted yet, written when each gets its position.

A row names a journal entry, which never changes, so that an event has the same bytes each time that it
is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Select, Update, delete, insert, select, update

from digestry.catalog import clock, journal
from digestry.catalog.database import Database
from digestry.catalog.schema import deliveries
from digestry.catalog.transactions import retried
from digestry.model.history import EventKind, TagEvent
from digestry.model.name_pattern import matches

_LONGEST_PROBLEM: Final = 500

_Statement = TypeVar("_Statement", Select[Any], Update)


@dataclass(frozen=True, slots=True)
class Subscription:
    """The events that the webhook ``name`` receives."""

    name: str
    repositories: tuple[str, ...] = ("**",)
    events: frozenset[EventKind] = frozenset(("created", "moved", "deleted"))

    def wants(self, event: TagEvent) -> bool:
        """Return whether this event is for it."""
        return event.event in self.events and any(
            matches(pattern, event.repository) for pattern in self.repositories
        )


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one webhook. Times are microseconds since 1970; ``dead_at`` is when it was
    given up. ``problem`` is why the last attempt failed."""

    id: int
    webhook: str
    sequence: int
    queued_at: int
    due_at: int
    attempts: int
    dead_at: int | None
    problem: str


class DeliveryQueue:
    """The events that webhooks have not received yet. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, webhook: str, now: int, *, limit: int) -> list[tuple[Delivery, TagEvent]]:
        """Return the events that are due, the longest due first, each with its journal entry."""
        with self._database.read() as connection:
            query = select(deliveries).where(
                deliveries.c.webhook == webhook, deliveries.c.dead_at.is_(None), deliveries.c.due_at <= now
            )
            rows = connection.execute(query.order_by(deliveries.c.due_at, deliveries.c.id).limit(limit)).all()
            return [(Delivery(*row), journal.entry(connection, row.sequence)) for row in rows]

    @retried
    def settle(self, delivery: Delivery) -> None:
        """Remove a delivery: the receiver has taken it."""
        with self._database.write() as connection:
            connection.execute(delete(deliveries).where(deliveries.c.id == delivery.id))

    def postpone(self, delivery: Delivery, *, due_at: int, problem: str) -> None:
        """Note that a delivery failed once more, and is not due before ``due_at``."""
        self._failed(delivery, problem, due_at=due_at)

    def give_up(self, delivery: Delivery, *, now: int, problem: str) -> None:
        """Mark a delivery as dead: it has failed for too long, and stays for people to see."""
        self._failed(delivery, problem, dead_at=now)

    @retried
    def _failed(self, delivery: Delivery, problem: str, **values: int) -> None:
        with self._database.write() as connection:
            connection.execute(
                update(deliveries)
                .where(deliveries.c.id == delivery.id)
                .values(attempts=delivery.attempts + 1, problem=problem[:_LONGEST_PROBLEM], **values)
            )

    def listed(self, *, webhook: str | None = None, limit: int) -> list[Delivery]:
        """Return the undelivered events, given up or not, oldest first."""
        with self._database.read() as connection:
            query = _of(select(deliveries), webhook).order_by(deliveries.c.id).limit(limit)
            return [Delivery(*row) for row in connection.execute(query)]

    @retried
    def revive(self, *, webhook: str | None = None, sequence: int | None = None, now: int) -> int:
        """Make undelivered events due at once, those that were given up too; return how many."""
        with self._database.write() as connection:
            change = _of(update(deliveries), webhook)
            if sequence is not None:
                change = change.where(deliveries.c.sequence == sequence)
            # A new time to be queued at: the days until it is given up begin again.
            return connection.execute(change.values(dead_at=None, due_at=0, queued_at=now)).rowcount


def _of(statement: _Statement, webhook: str | None) -> _Statement:
    return statement if webhook is None else statement.where(deliveries.c.webhook == webhook)


def enqueue(connection: Connection, subscriptions: Sequence[Subscription], event: TagEvent) -> None:
    """Queue an event for each webhook that subscribes to it."""
    at = clock.from_datetime(event.at)
    rows = [
        {
            "webhook": subscription.name,
            "sequence": event.sequence,
            "queued_at": at,
            "due_at": 0,  # at once, even if the clock is set back
            "attempts": 0,
            "dead_at": None,
            "problem": "",
        }
        for subscription in subscriptions
        if subscription.wants(event)
    ]
    if rows:
        connection.execute(insert(deliveries), rows)
