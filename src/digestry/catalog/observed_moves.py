"""The moves of observed tags, and what is known of each once its images were looked at."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, func, insert, select, tuple_, update

from digestry.catalog import clock, delivery_queue, dialect
from digestry.catalog.database import Database
from digestry.catalog.delivery_queue import Subscription
from digestry.catalog.job_states import Fence
from digestry.catalog.observation_schema import observed_moves
from digestry.catalog.schema import journal
from digestry.catalog.transactions import retried
from digestry.model.digest import Digest
from digestry.model.fleet_events import FleetEvent
from digestry.model.history import EventKind, TagEvent

URGENT: Final = 3
"""What is pending of a move whose images were not looked at."""
LOOK: Final = 2
"""The same of a tag that was seen for the first time: that waits for moves."""
LONGEST_RETRY: Final = 3600 * clock.SECOND
"""What could not be looked at is tried again within this time."""
KEEP: Final = 1
"""What is pending of a move whose images' content is to be kept, and is not all here."""


@dataclass(frozen=True, slots=True)
class ObservedMove:
    """A move of an observed tag: the journal's entry of this number in its repository. Times are in
    microseconds. ``document`` is what is known of it (JSON), and empty before its images were looked at.
    ``pending`` is :data:`URGENT`, :data:`LOOK`, :data:`KEEP` or 0; ``attempts`` counts what failed of it."""

    repository: str
    entry: int
    tag: str
    event: EventKind
    from_digest: Digest | None
    to_digest: Digest | None
    at: int
    not_before: int | None
    document: str = ""
    pending: int = LOOK
    attempts: int = 0


class ObservedMoves:
    """The moves of observed tags. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unfinished(
        self, now: int, *, limit: int, only: Collection[str] | None = None, without: Collection[str] = ()
    ) -> list[ObservedMove]:
        """Return the moves of which something is pending and due: moves before tags that are new, and content
        that is to be kept last. ``only`` those in some repositories; ``without`` those in repositories below
        some names."""
        found: list[ObservedMove] = []
        wanted = [~observed_moves.c.repository.startswith(f"{name}/", autoescape=True) for name in without]
        if only is not None:
            wanted.append(observed_moves.c.repository.in_(sorted(only)))
        with self._database.read() as connection:
            for pending in (URGENT, LOOK, KEEP):  # each in the order of the index
                query = (
                    select(observed_moves)
                    .where(observed_moves.c.pending == pending, observed_moves.c.due_at <= now, *wanted)
                    .order_by(observed_moves.c.due_at)
                    .limit(limit - len(found))
                )
                found += [_move(row) for row in connection.execute(query)]
        return found

    @retried
    def finish(
        self,
        move: ObservedMove,
        document: str,
        *,
        keep: bool = False,
        event: FleetEvent | None = None,
        subscriptions: Sequence[Subscription] = (),
        fence: Fence | None = None,
    ) -> bool:
        """Store what is known of a move, and queue its ``event`` for webhooks; return False, and do neither,
        if another process has done so. With ``keep``, its content is still to come."""
        with self._database.write() as connection:
            if fence is not None:
                fence.require_held(connection)
            change = update(observed_moves).where(
                observed_moves.c.repository == move.repository,
                observed_moves.c.entry == move.entry,
                observed_moves.c.pending >= LOOK,
            )
            values = {"document": document, "pending": KEEP if keep else 0, "attempts": 0, "due_at": 0}
            if not connection.execute(change.values(**values)).rowcount:
                return False
            if event is not None:
                delivery_queue.enqueue_fleet_event(connection, subscriptions, event)
            return True

    @retried
    def end(self, move: ObservedMove, fence: Fence | None = None, *, kept: bool = False) -> None:
        """Note that nothing is pending any more: its content is here (``kept``), or cannot be had."""
        with self._database.write() as connection:
            if fence is not None:
                fence.require_held(connection)
            connection.execute(
                update(observed_moves)
                .where(observed_moves.c.repository == move.repository, observed_moves.c.entry == move.entry)
                .values(pending=0, kept=kept)
            )

    @retried
    def keep(self, repository: str, tag: str, digest: Digest, fence: Fence | None = None) -> None:
        """Have the content fetched of the image that a tag points to, unless it was: the tag was observed, or
        mirrored, before its images were to be kept."""
        last = (
            select(journal)
            .where(journal.c.repository == repository, journal.c.tag == tag)
            .order_by(journal.c.at.desc())
            .limit(1)
        )
        with self._database.write() as connection:
            if fence is not None:
                fence.require_held(connection)
            entry = connection.execute(last).first()
            if entry is None or entry.to_digest != str(digest):
                return
            here = (observed_moves.c.repository == repository) & (observed_moves.c.entry == entry.number)
            known = connection.execute(select(observed_moves.c.entry).where(here)).first()
            if known is None:
                connection.execute(insert(observed_moves).values(**_row(entry, pending=KEEP)))
                return
            again = update(observed_moves).where(
                here, observed_moves.c.pending == 0, observed_moves.c.kept.is_(False)
            )
            connection.execute(again.values(pending=KEEP, attempts=0, due_at=0))

    @retried
    def postpone(self, move: ObservedMove, *, due_at: int, fence: Fence | None = None) -> None:
        """Note that a move's images could not be looked at, and when that is tried again."""
        with self._database.write() as connection:
            if fence is not None:
                fence.require_held(connection)
            connection.execute(
                update(observed_moves)
                .where(observed_moves.c.repository == move.repository, observed_moves.c.entry == move.entry)
                .values(attempts=move.attempts + 1, due_at=due_at)
            )

    @retried
    def bring_forward(self, now: int, fence: Fence | None = None) -> int:
        """Make due what is to be tried again later than is ever waited: the clock was set back. Return how
        many."""
        late = (observed_moves.c.pending > 0) & (observed_moves.c.due_at > now + LONGEST_RETRY)
        with self._database.write() as connection:
            if fence is not None:
                fence.require_held(connection)
            return connection.execute(update(observed_moves).where(late).values(due_at=now)).rowcount

    def since(
        self, at: int, *, repository: str = "", before: ObservedMove | None = None, limit: int
    ) -> list[ObservedMove]:
        """Return the moves from the time ``at`` on, newest first, of a ``repository`` or of all; with
        ``before``, those before that one. Tags that were seen for the first time did not move."""
        seen_to_move = (observed_moves.c.event != "created") | observed_moves.c.not_before.is_not(None)
        query = select(observed_moves).where(observed_moves.c.at >= at, seen_to_move)
        if repository:
            query = query.where(observed_moves.c.repository == repository)
        if before is not None:
            place = tuple_(observed_moves.c.at, observed_moves.c.repository, observed_moves.c.entry)
            query = query.where(place < tuple_(before.at, before.repository, before.entry))
        with self._database.read() as connection:
            rows = connection.execute(
                query.order_by(
                    observed_moves.c.at.desc(),
                    observed_moves.c.repository.desc(),
                    observed_moves.c.entry.desc(),
                ).limit(limit)
            )
            return [_move(row) for row in rows]

    def to(self, repository: str, tag: str, digest: Digest, *, before: int) -> ObservedMove | None:
        """Return the tag's last move to ``digest`` before a time."""
        query = (
            select(observed_moves)
            .where(
                observed_moves.c.repository == repository,
                observed_moves.c.tag == tag,
                observed_moves.c.to_digest == str(digest),
                observed_moves.c.at < before,
            )
            .order_by(observed_moves.c.at.desc())
            .limit(1)
        )
        with self._database.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else _move(row)

    def kinds(self) -> dict[str, int]:
        """Return how many moves of each kind there were."""
        query = select(observed_moves.c.event, func.count()).group_by(observed_moves.c.event)
        with self._database.read() as connection:
            return {event: int(count) for event, count in connection.execute(query)}


def add(connection: Connection, event: TagEvent) -> None:
    """Add the move of an observed tag, in the transaction that writes its entry in the journal."""
    row = {
        "repository": event.repository,
        "entry": event.number,
        "tag": event.tag,
        "event": event.event,
        "from_digest": None if event.from_digest is None else str(event.from_digest),
        "to_digest": None if event.to_digest is None else str(event.to_digest),
        "at": clock.from_datetime(event.at),
        "not_before": _microseconds(event.not_before),
        "document": "",
        "pending": LOOK if event.event == "created" and event.not_before is None else URGENT,
        "attempts": 0,
        "due_at": 0,
        "kept": False,
    }
    connection.execute(dialect.of(connection).upserts.observed_move, row)


def _row(entry: Row[Any], *, pending: int) -> dict[str, Any]:
    columns = "repository", "tag", "event", "from_digest", "to_digest", "at", "not_before"
    values = {name: entry._mapping[name] for name in columns}
    more = {"document": "", "pending": pending, "attempts": 0, "due_at": 0, "kept": False}
    return {**values, "entry": entry.number, **more}


def _microseconds(moment: datetime.datetime | None) -> int | None:
    return None if moment is None else clock.from_datetime(moment)


def _move(row: Row[Any]) -> ObservedMove:
    return ObservedMove(
        row.repository,
        row.entry,
        row.tag,
        row.event,
        None if row.from_digest is None else Digest.parse(row.from_digest),
        None if row.to_digest is None else Digest.parse(row.to_digest),
        row.at,
        row.not_before,
        row.document,
        row.pending,
        row.attempts,
    )
