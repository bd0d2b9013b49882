"""Positions in the registry for journal entries, where several transactions write at a time.

Moves in different repositories do not wait for each other, so that the order of all entries is decided after
they were committed: in batches, one after the other. A reader that polls for positions after the last one
that it saw misses nothing.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Final

from sqlalchemy import Connection, func, select, update

from digestry.catalog import delivery_queue, dialect
from digestry.catalog.database import Database
from digestry.catalog.delivery_queue import Subscription
from digestry.catalog.journal import to_event
from digestry.catalog.schema import identity, journal

BATCH: Final = 500


def sequence_entries(connection: Connection, subscriptions: Sequence[Subscription], limit: int) -> int:
    """Give the next positions to entries that have none, at most ``limit``; return to how many.

    Queues them for webhooks too. The caller's transaction waits for any other that does this.
    """
    # One row that every registry has: the second process reads the positions that the first one assigned.
    connection.execute(select(identity.c.id).with_for_update()).all()
    last = connection.execute(select(func.coalesce(func.max(journal.c.sequence), 0))).scalar_one()
    # A repository's entries are committed in the order of their numbers, and their times rise with these.
    waiting = (
        select(
            journal.c.repository,
            journal.c.number,
            (func.row_number().over(order_by=(journal.c.at, journal.c.repository)) + last).label("position"),
        )
        .where(journal.c.sequence.is_(None))
        .order_by(journal.c.at, journal.c.repository)
        .limit(limit)
        .subquery("waiting")
    )
    given = connection.execute(
        update(journal)
        .values(sequence=waiting.c.position)
        .where(journal.c.repository == waiting.c.repository, journal.c.number == waiting.c.number)
    ).rowcount
    if given and subscriptions:
        added = select(journal).where(journal.c.sequence > last).order_by(journal.c.sequence)
        for row in connection.execute(added).all():
            delivery_queue.enqueue(connection, subscriptions, to_event(row._asdict()))
    return given


class JournalSequencing:
    """Gives entries their positions. Thread-safe.

    ``wake`` is set when a transaction of this process that may have moved tags was committed.
    """

    def __init__(self, database: Database, subscriptions: Sequence[Subscription]) -> None:
        self._database = database
        self._subscriptions = subscriptions
        self.wake = threading.Event()

    def change_subscriptions(self, subscriptions: Sequence[Subscription]) -> None:
        """Queue entries for other subscriptions from now on."""
        self._subscriptions = subscriptions

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that may write, and move tags."""
        with self._database.write() as connection:
            yield connection
        self.wake.set()

    def is_needed(self) -> bool:
        """Return whether entries are written without a position."""
        with self._database.read() as connection:
            return not dialect.of(connection).one_writer

    def run(self, limit: int = BATCH) -> int:
        """Give the next positions to at most ``limit`` entries; return to how many."""
        with self._database.write() as connection:
            return sequence_entries(connection, self._subscriptions, limit)
