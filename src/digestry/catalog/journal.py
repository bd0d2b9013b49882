"""The journal: tag events, append-only, in one hash chain a repository.

Each entry's hash covers its fields and the hash of the entry before it in its repository, so that a changed,
removed or inserted entry breaks that chain from there on. The chain proves order and integrity against
editing in place; someone who can rewrite the whole table can rewrite the chains, unless a hash was noted
elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Required, TypedDict

from sqlalchemy import ColumnElement, Connection, select

from digestry.catalog import clock, dialect, push_statements
from digestry.catalog.journal_hashes import GENESIS, HASHED, HASHED_IF_GIVEN, hash_of, hashed_fields
from digestry.catalog.schema import journal
from digestry.errors import InvalidDigest, StorageError
from digestry.model.digest import Digest
from digestry.model.history import MIRROR, EventKind, TagEvent
from digestry.model.tag_age import CLOCK_SKEW


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a change: the user (or ``anonymous``), the address, and the client."""

    actor: str = "anonymous"
    address: str = ""
    client: str = ""
    may_move: bool = True
    """Whether they may point a tag elsewhere that is there already. Not for the journal."""
    not_before: int | None = None
    """Of a move in another registry: when the tag was last seen unmoved. Microseconds since 1970. Without it,
    an entry that the clock is more than a minute behind gets the clock's time."""
    reason: str | None = None
    """Why, in the user's words, of an act that needs a reason."""


@dataclass(frozen=True, slots=True)
class Move:
    """A change of a tag. ``media_type`` and ``size`` are of the manifest it comes to, or leaves."""

    repository: str
    tag: str
    event: EventKind
    from_digest: str | None
    to_digest: str | None
    media_type: str
    size: int


def append(connection: Connection, move: Move, origin: Origin, now: clock.Clock) -> TagEvent:
    """Write the repository's next entry; return it, with its position where one writer at a time makes that
    known.

    The caller's transaction moves the tag as well, or neither happens. It has the repository's row locked.
    """
    clock_at = now()
    last = connection.execute(push_statements.LAST_ENTRY, {"repository": move.repository}).first()
    if last is None:
        number, last_at, previous = 0, 0, ""
        position = connection.execute(push_statements.LAST_POSITION).scalar_one()
    else:
        number, last_at, previous, position = last
    if number <= 0:
        number, previous = 0, anchor(connection)
    values: dict[str, object] = {
        "repository": move.repository,
        "number": number + 1,
        "sequence": position + 1 if dialect.of(connection).one_writer else None,
        # A clock that was set back must not reorder history: a repository's times only ever rise.
        "at": max(clock_at, last_at + 1),
        "tag": move.tag,
        "event": move.event,
        "from_digest": move.from_digest,
        "to_digest": move.to_digest,
        "media_type": move.media_type,
        "size": move.size,
        "actor": origin.actor,
        "address": origin.address,
        "client": origin.client,
        "previous_hash": previous,
        "not_before": _not_before(origin, clock_at, last_at),
        "reason": origin.reason,
    }
    fields = [values[name] for name in HASHED]
    values["hash"] = hash_of(hashed_fields(fields, [values[name] for name in HASHED_IF_GIVEN]))
    connection.execute(push_statements.ADD_ENTRY, values)
    return to_event(values)


def _not_before(origin: Origin, clock_at: int, last_at: int) -> int | None:
    """Return since when the move may have happened, if not at the entry's time.

    An entry that is dated after the one before it, and not by the clock, says what the clock said: it was
    wrong, now or then, and no age is computed from the times between (docs/adr/0033).
    """
    if origin.not_before is not None or origin.actor.startswith(MIRROR):
        return origin.not_before
    return clock_at if last_at - clock_at > CLOCK_SKEW else None


def anchor(connection: Connection) -> str:
    """Return the hash before the first entry of each repository: that of the last entry of the registry's one
    chain, before schema 0009, or :data:`GENESIS`."""
    position = journal.c.sequence
    first = connection.execute(
        select(position, journal.c.number).where(position.is_not(None)).order_by(position).limit(1)
    ).first()
    if first is None or first.number > 0:
        return GENESIS
    # The last one has the number 0.
    older = select(journal.c.hash).where(position <= first.sequence - first.number, journal.c.number <= 0)
    return str(connection.execute(older.order_by(position.desc()).limit(1)).scalar_one())


class Filters(TypedDict, total=False):
    """The arguments of :func:`entries` that choose entries."""

    tag: str | None
    digest: str | None
    before: int | None
    since: int | None
    until: int | None
    before_sequence: int | None
    limit: Required[int]


def entries(
    connection: Connection,
    repository: str,
    *,
    tag: str | None = None,
    digest: str | None = None,
    before: int | None = None,
    since: int | None = None,
    until: int | None = None,
    before_sequence: int | None = None,
    limit: int,
) -> list[TagEvent]:
    """Return a repository's entries, newest first. ``before`` and ``since`` are times, both exclusive;
    ``until`` is a time, inclusive; ``before_sequence`` is a position in the registry, exclusive.

    ``digest`` keeps the entries of the manifest that a tag came to, or was deleted from.
    """
    query = select(journal).where(journal.c.repository == repository)
    if tag is not None:
        query = query.where(journal.c.tag == tag)
    if digest is not None:
        query = query.where(
            (journal.c.to_digest == digest)
            | ((journal.c.event == "deleted") & (journal.c.from_digest == digest))
        )
    if before is not None:
        query = query.where(journal.c.at < before)
    if since is not None:
        query = query.where(journal.c.at > since)
    if until is not None:
        query = query.where(journal.c.at <= until)
    if before_sequence is not None:
        query = query.where(before_position(connection, repository, before_sequence))
    rows = connection.execute(query.order_by(journal.c.at.desc()).limit(limit))
    return [to_event(row._asdict()) for row in rows]


def before_position(connection: Connection, repository: str, sequence: int) -> ColumnElement[bool]:
    """Return whether an entry of the repository is before this position in the registry.

    One without a position is after all that have one.
    """
    at = connection.execute(
        select(journal.c.at).where(journal.c.sequence == sequence, journal.c.repository == repository)
    ).scalar()
    # A time is a place in the index that the entries are read from; another repository's position is none.
    return journal.c.sequence < sequence if at is None else journal.c.at < at


def time_of(connection: Connection, sequence: int) -> int | None:
    """Return the time of the entry at this position, or at the first one after it; None if none follows."""
    query = select(journal.c.at).where(journal.c.sequence >= sequence)
    return connection.execute(query.order_by(journal.c.sequence).limit(1)).scalar()


def entry(connection: Connection, sequence: int) -> TagEvent:
    """Return the entry at a position in the registry. Raises :class:`StorageError` if it is not there."""
    row = connection.execute(select(journal).where(journal.c.sequence == sequence)).first()
    if row is None:
        raise StorageError(f"journal entry {sequence} is not there", hint="restore the catalog from a backup")
    return to_event(row._asdict())


def newest(connection: Connection, wanted: Iterable[tuple[str, str]], limit: int) -> list[TagEvent]:
    """Return the newest entries of each wanted repository and tag, up to ``limit`` of each, newest first."""
    keys = dialect.of(connection).bulk_keys(wanted, str)
    earlier = journal.alias("each")
    times = (
        select(earlier.c.at)
        .where(earlier.c.repository == keys.first, earlier.c.tag == keys.second)
        .order_by(earlier.c.at.desc())
        .limit(limit)
        .correlate(keys.table)
    )
    rows = connection.execute(
        select(journal).join_from(
            keys.table, journal, (journal.c.repository == keys.first) & journal.c.at.in_(times)
        )
    ).all()
    return [to_event(row._asdict()) for row in sorted(rows, key=lambda row: -int(row.at))]


def to_event(values: Mapping[str, Any]) -> TagEvent:
    """Return a row of the table. Raises :class:`StorageError` if it is damaged."""
    try:
        return TagEvent(
            at=clock.to_datetime(values["at"]),
            repository=values["repository"],
            tag=values["tag"],
            event=values["event"],
            from_digest=_digest(values["from_digest"]),
            to_digest=_digest(values["to_digest"]),
            media_type=values["media_type"],
            size=values["size"],
            actor=values["actor"],
            address=values["address"],
            client=values["client"],
            number=values["number"] if values["number"] > 0 else None,
            sequence=values["sequence"],
            previous_hash=values["previous_hash"],
            hash=values["hash"],
            not_before=None if values["not_before"] is None else clock.to_datetime(values["not_before"]),
            reason=values["reason"],
        )
    except (InvalidDigest, OverflowError, TypeError) as error:
        raise StorageError(
            f"journal entry {_name(values)} is damaged: {error}",
            hint="restore the catalog from a backup",
        ) from error


def _digest(text: str | None) -> Digest | None:
    return None if text is None else Digest.parse(text)


def _name(values: Mapping[str, Any]) -> str:
    if values["sequence"] is None:
        return f"{values['number']} of {values['repository']}"
    return str(values["sequence"])
