"""The delivery queue: events that webhooks have not accepted yet, written when each gets its position.

A row names a journal entry, which never changes, or has the event itself, so that an event has the same bytes
each time that it is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from sqlalchemy import Connection, Row, Select, Update, delete, insert, select, update

from digestry.catalog import clock, journal
from digestry.catalog.database import Database
from digestry.catalog.schema import deliveries
from digestry.catalog.schema import journal as journal_table
from digestry.catalog.transactions import retried
from digestry.model.fleet_events import FleetEvent, FleetEventKind
from digestry.model.history import EventKind, TagEvent
from digestry.model.json_types import prepared
from digestry.model.name_pattern import matches

_LONGEST_PROBLEM: Final = 500

Event: TypeAlias = TagEvent | FleetEvent
"""An event that webhooks receive."""

_Statement = TypeVar("_Statement", Select[Any], Update)


@dataclass(frozen=True, slots=True)
class Subscription:
    """The events that the webhook ``name`` receives."""

    name: str
    repositories: tuple[str, ...] = ("**",)
    events: frozenset[EventKind | FleetEventKind] = frozenset(("created", "moved", "deleted"))

    def wants(self, event: TagEvent) -> bool:
        """Return whether this event is for it."""
        return event.event in self.events and any(
            matches(pattern, event.repository) for pattern in self.repositories
        )


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one webhook. Times are microseconds since 1970; ``dead_at`` is when it was
    given up. ``problem`` is why the last attempt failed. An event of the fleet is in ``document``, and its
    ``sequence`` is 0. ``event`` is what happened, if it was asked for."""

    id: int
    webhook: str
    sequence: int
    queued_at: int
    due_at: int
    attempts: int
    dead_at: int | None
    problem: str
    document: str | None = None
    event: str = ""


class DeliveryQueue:
    """The events that webhooks have not received yet. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, webhook: str, now: int, *, limit: int) -> list[tuple[Delivery, Event]]:
        """Return the deliveries that are due, the longest due first, each with its event."""
        with self._database.read() as connection:
            query = select(deliveries).where(
                deliveries.c.webhook == webhook, deliveries.c.dead_at.is_(None), deliveries.c.due_at <= now
            )
            rows = connection.execute(query.order_by(deliveries.c.due_at, deliveries.c.id).limit(limit)).all()
            return [
                (
                    Delivery(*row),
                    journal.entry(connection, row.sequence)
                    if row.document is None
                    else msgspec.json.decode(row.document, type=prepared(FleetEvent)),
                )
                for row in rows
            ]

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
            query = _of(select(deliveries, journal_table.c.event.label("happened")), webhook)
            query = query.select_from(
                deliveries.outerjoin(journal_table, journal_table.c.sequence == deliveries.c.sequence)
            )
            rows = connection.execute(query.order_by(deliveries.c.id).limit(limit)).all()
            found = []
            for row in rows:
                fields = dict(row._mapping)
                del fields["happened"]
                found.append(Delivery(**fields, event=_event(row)))
            return found

    @retried
    def revive(
        self,
        *,
        webhook: str | None = None,
        sequence: int | None = None,
        delivery: int | None = None,
        now: int,
    ) -> int:
        """Make undelivered events due at once, those that were given up too; return how many.

        ``sequence`` is a tag event's number in the journal, ``delivery`` the ``id`` of one :class:`Delivery`.
        """
        with self._database.write() as connection:
            change = _of(update(deliveries), webhook)
            if sequence is not None:
                change = change.where(deliveries.c.sequence == sequence)
            if delivery is not None:
                change = change.where(deliveries.c.id == delivery)
            # A new time to be queued at: the days until it is given up begin again.
            return connection.execute(change.values(dead_at=None, due_at=0, queued_at=now)).rowcount


def _event(row: Row[Any]) -> str:
    """Return what happened, of a row of a delivery with the ``happened`` of its tag event."""
    if row.document is not None:
        return str(msgspec.json.decode(row.document, type=prepared(FleetEvent)).event)
    return str(row.happened or "")


def _of(statement: _Statement, webhook: str | None) -> _Statement:
    return statement if webhook is None else statement.where(deliveries.c.webhook == webhook)


def enqueue(connection: Connection, subscriptions: Sequence[Subscription], event: TagEvent) -> None:
    """Queue an event for each webhook that subscribes to it."""
    rows = [
        _row(subscription.name, event, sequence=event.sequence)
        for subscription in subscriptions
        if subscription.wants(event)
    ]
    if rows:
        connection.execute(insert(deliveries), rows)


def enqueue_fleet_event(
    connection: Connection, subscriptions: Sequence[Subscription], event: FleetEvent
) -> None:
    """Queue an event of the fleet for each webhook that subscribes to it."""
    document = msgspec.json.encode(event).decode()
    rows = [
        {**_row(subscription.name, event, sequence=0), "document": document}
        for subscription in subscriptions
        if event.event in subscription.events
    ]
    if rows:
        connection.execute(insert(deliveries), rows)


def _row(webhook: str, event: Event, *, sequence: int | None) -> dict[str, object]:
    return {
        "webhook": webhook,
        "sequence": sequence,
        "queued_at": clock.from_datetime(event.at),
        "due_at": 0,  # at once, even if the clock is set back
        "attempts": 0,
        "dead_at": None,
        "problem": "",
    }
