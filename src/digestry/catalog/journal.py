"""The journal: an append-only chain of tag events.

Each entry's hash covers its fields and the hash of the entry before it, so that a changed,
removed or inserted entry breaks the chain from there on. The chain proves order and integrity
against editing in place; someone who can rewrite the whole table can rewrite the chain, unless a
hash was noted elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, func, insert, select

from digestry.catalog import clock
from digestry.catalog.pairs import pairs
from digestry.catalog.schema import journal, repositories, tags
from digestry.errors import InvalidDigest, StorageError
from digestry.model.digest import Digest
from digestry.model.history import EventKind, TagEvent

GENESIS: Final = "0" * 64
"""What stands for the hash before the first entry."""

# Named here, and not read off the table: a column that a later schema adds is not under old hashes.
_HASHED: Final = (
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


@dataclass(frozen=True, slots=True)
class BrokenEntry:
    """The first entry at which the chain does not hold, and why."""

    sequence: int
    reason: str


def append(connection: Connection, move: Move, origin: Origin, now: clock.Clock) -> TagEvent:
    """Writes the next entry. The caller's transaction moves the tag as well, or neither happens."""
    last = connection.execute(
        select(journal.c.sequence, journal.c.at, journal.c.hash).order_by(journal.c.sequence.desc()).limit(1)
    ).first()
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
    values["hash"] = _hash(values)
    connection.execute(insert(journal).values(values))
    return _event(values)


def entries(
    connection: Connection,
    repository: str,
    *,
    tag: str | None = None,
    digest: str | None = None,
    before: int | None = None,
    since: int | None = None,
    before_sequence: int | None = None,
    limit: int,
) -> list[TagEvent]:
    """A repository's entries, newest first. ``before`` and ``since`` are times, both exclusive.

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
    if before_sequence is not None:
        query = query.where(journal.c.sequence < before_sequence)
    rows = connection.execute(query.order_by(journal.c.sequence.desc()).limit(limit))
    return [_event(dict(row._mapping)) for row in rows]


def newest(connection: Connection, wanted: Iterable[tuple[str, str]], limit: int) -> list[TagEvent]:
    """The newest entries of each wanted repository and tag, up to ``limit`` of each, newest first."""
    keys = pairs(wanted)
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
    return [_event(dict(row._mapping)) for row in sorted(rows, key=lambda row: -row.sequence)]


def verify(connection: Connection) -> BrokenEntry | None:
    """Walks the whole chain; the first entry that breaks it, or None if it holds."""
    previous, expected, last_at = GENESIS, 1, 0
    for row in _all(connection):
        values = dict(row._mapping)
        if values["sequence"] != expected:
            return BrokenEntry(expected, f"entry {expected} is missing: {values['sequence']} comes next")
        if values["previous_hash"] != previous:
            return BrokenEntry(expected, "it does not follow the entry before it")
        if values["hash"] != _hash(values):
            return BrokenEntry(expected, "its fields do not match its hash")
        if values["at"] <= last_at:
            return BrokenEntry(expected, "its time is not after that of the entry before it")
        previous, expected, last_at = values["hash"], expected + 1, values["at"]
    return _compare_with_tags(connection, expected)


def _compare_with_tags(connection: Connection, end: int) -> BrokenEntry | None:
    # No hash follows the last entry: that it was cut off shows in the tags that it moved.
    query = select(repositories.c.name, tags.c.name, tags.c.digest).join_from(tags, repositories)
    pointing = {(repository, tag): digest for repository, tag, digest in connection.execute(query)}
    newest = select(func.max(journal.c.sequence)).group_by(journal.c.repository, journal.c.tag)
    last = select(journal).where(journal.c.sequence.in_(newest)).order_by(journal.c.sequence)
    for row in connection.execute(last):
        found = pointing.pop((row.repository, row.tag), None)
        if found != row.to_digest:
            there = "is not there" if found is None else f"points to {found}"
            return BrokenEntry(
                row.sequence, f"it is the last of tag {row.tag} of {row.repository}, but the tag {there}"
            )
    for (repository, tag), digest in sorted(pointing.items()):
        return BrokenEntry(end, f"tag {tag} of {repository} points to {digest}, and no entry tells of it")
    return None


def _all(connection: Connection) -> Iterator[Row[Any]]:
    yield from connection.execution_options(yield_per=1000).execute(
        select(journal).order_by(journal.c.sequence)
    )


def _hash(values: dict[str, Any]) -> str:
    # A JSON array: unambiguous, whatever the fields hold, and easy to compute elsewhere.
    fields = [values[name] for name in _HASHED]
    return hashlib.sha256(msgspec.json.encode(fields)).hexdigest()


def _event(values: dict[str, Any]) -> TagEvent:
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
