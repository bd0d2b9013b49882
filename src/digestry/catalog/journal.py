"""The journal: an append-only chain of tag events.

Each entry's hash covers its fields and the hash of the entry before it, so that a changed,
removed or inserted entry breaks the chain from there on. The chain proves order and integrity
against editing in place; someone who can rewrite the whole table can rewrite the chain, unless a
hash was noted elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, select

from digestry.catalog import clock, dialect, push_statements
from digestry.catalog.schema import journal
from digestry.errors import InvalidDigest, StorageError
from digestry.model.digest import Digest
from digestry.model.history import EventKind, TagEvent

GENESIS: Final = "0" * 64
"""What stands for the hash before the first entry."""

# Named here, and not read off the table: a column that a later schema adds is not under old hashes.
HASHED: Final = (
    "sequence",
    "at",
    "repository",
    "tag",
    "event",
    "from_digest",
    "to_digest",
    "media_type",
    "size",
    "actor",
    "address",
    "client",
    "previous_hash",
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asks for a change: the user (or ``anonymous``), from which address, with which client."""

    actor: str = "anonymous"
    address: str = ""
    client: str = ""
    may_move: bool = True
    """Whether they may point a tag elsewhere that is there already. Not for the journal."""


@dataclass(frozen=True, slots=True)
class Move:
    """What happens to a tag. ``media_type`` and ``size`` are of the manifest it comes to, or leaves."""

    repository: str
    tag: str
    event: EventKind
    from_digest: str | None
    to_digest: str | None
    media_type: str
    size: int


def append(connection: Connection, move: Move, origin: Origin, now: clock.Clock) -> TagEvent:
    """Write the next entry. The caller's transaction moves the tag as well, or neither happens."""
    last = connection.execute(push_statements.LAST_ENTRY).first()
    sequence, last_at, previous = (0, 0, GENESIS) if last is None else (last.sequence, last.at, last.hash)
    values: dict[str, Any] = {
        "sequence": sequence + 1,
        # A clock that was set back must not reorder history: times only ever rise.
        "at": max(now(), last_at + 1),
        "repository": move.repository,
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
    }
    values["hash"] = hash_of([values[name] for name in HASHED])
    connection.execute(push_statements.ADD_ENTRY, values)
    return to_event(values)


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
    """Return a repository's entries, newest first. ``before`` and ``since`` are times, both exclusive, and
    so is ``before_sequence``; ``until`` is a time, inclusive.

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
    # Times rise along the sequence, which is what the indices are ordered by.
    if before is not None:
        query = query.where(journal.c.sequence <= sequence_at(connection, before - 1))
    if since is not None:
        query = query.where(journal.c.sequence > sequence_at(connection, since))
    if until is not None:
        query = query.where(journal.c.sequence <= sequence_at(connection, until))
    if before_sequence is not None:
        query = query.where(journal.c.sequence < before_sequence)
    rows = connection.execute(query.order_by(journal.c.sequence.desc()).limit(limit))
    return [to_event(row._asdict()) for row in rows]


def sequence_at(connection: Connection, at: int) -> int:
    """Return the last entry that was written at or before a time; 0 if there was none yet."""
    query = select(journal.c.sequence).where(journal.c.at <= at).order_by(journal.c.at.desc()).limit(1)
    return connection.execute(query).scalar() or 0


def entry(connection: Connection, sequence: int) -> TagEvent:
    """Return one entry, by its number. Raises :class:`StorageError` if it is not there."""
    row = connection.execute(select(journal).where(journal.c.sequence == sequence)).first()
    if row is None:
        raise StorageError(f"journal entry {sequence} is not there", hint="restore the catalog from a backup")
    return to_event(row._asdict())


def newest(connection: Connection, wanted: Iterable[tuple[str, str]], limit: int) -> list[TagEvent]:
    """Return the newest entries of each wanted repository and tag, up to ``limit`` of each, newest first."""
    keys = dialect.of(connection).bulk_keys(wanted)
    each = journal.alias("each")
    numbers = (
        select(each.c.sequence)
        .where(each.c.repository == keys.first, each.c.tag == keys.second)
        .order_by(each.c.sequence.desc())
        .limit(limit)
        .correlate(keys.table)
    )
    rows = connection.execute(
        select(journal).join_from(keys.table, journal, journal.c.sequence.in_(numbers))
    ).all()
    return [to_event(row._asdict()) for row in sorted(rows, key=lambda row: -row.sequence)]


def hash_of(fields: Sequence[Any]) -> str:
    """Return the hash of an entry whose fields these are, in the order of :data:`HASHED`."""
    # A JSON array: unambiguous, whatever the fields hold, and easy to compute elsewhere.
    return hashlib.sha256(msgspec.json.encode(fields)).hexdigest()


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
            sequence=values["sequence"],
            previous_hash=values["previous_hash"],
            hash=values["hash"],
        )
    except (InvalidDigest, OverflowError) as error:
        raise StorageError(
            f"journal entry {values['sequence']} is damaged: {error}",
            hint="restore the catalog from a backup",
        ) from error


def _digest(text: str | None) -> Digest | None:
    return None if text is None else Digest.parse(text)
