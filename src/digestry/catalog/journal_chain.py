"""The proof of the journal: its hash chain is walked, in the database or in an exported file.

Functions on a read-only connection, or on lines. The exported form is documented in docs/tags.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, func, select
from sqlalchemy.exc import DBAPIError

from digestry.catalog import clock, dialect
from digestry.catalog.journal import GENESIS, HASHED, hash_of, to_event
from digestry.catalog.schema import journal, repositories, tags
from digestry.errors import ContentError
from digestry.model.descriptor import decode_hook, encode_hook
from digestry.model.history import TagEvent

_AT: Final = HASHED.index("at")
_PREVIOUS: Final = HASHED.index("previous_hash")
_BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class BrokenEntry:
    """The first entry at which the chain does not hold, and why."""

    sequence: int
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found: how many entries hold, up to the one ``broken``, and the hash of the last of
    them. ``first`` is the number of the first entry, ``anchor`` the hash that it says was before it.
    ``absent`` are the hashes that should have been there and are not."""

    entries: int
    last_hash: str
    broken: BrokenEntry | None = None
    absent: tuple[str, ...] = ()
    first: int = 1
    anchor: str = GENESIS


@dataclass(slots=True)
class _Walk:
    """The chain so far. Fed entry by entry, it knows what the next one must be."""

    expected: int = 1
    previous: str = GENESIS
    last_at: int = 0
    entries: int = 0
    wanted: set[str] = field(default_factory=set)

    def step(self, fields: tuple[Any, ...], stated: Any) -> str:
        """Why this entry does not fit; empty if it does. ``fields`` are those of ``HASHED``."""
        if fields[0] != self.expected:
            return f"entry {self.expected} is missing: {fields[0]} comes next"
        if fields[_PREVIOUS] != self.previous:
            return "it does not follow the entry before it"
        if stated != hash_of(fields):
            return "its fields do not match its hash"
        if fields[_AT] <= self.last_at:
            return "its time is not after that of the entry before it"
        self.previous, self.last_at = stated, fields[_AT]
        self.expected += 1
        self.entries += 1
        self.wanted.discard(stated)
        return ""


def verify(connection: Connection, expect: Collection[str] = ()) -> Verdict:
    """Walk the whole chain, and compare its end with the tags.

    ``expect`` are hashes noted elsewhere, each of which must be in it.
    """
    walk = _Walk(wanted=set(expect))
    broken = _walk_table(connection, walk) or _compare_with_tags(connection, walk.expected)
    return _verdict(walk, broken or _check_indices(connection, walk.expected))


def _verdict(walk: _Walk, broken: BrokenEntry | None, first: int = 1, anchor: str = GENESIS) -> Verdict:
    return Verdict(walk.entries, walk.previous, broken, tuple(sorted(walk.wanted)), first, anchor)


def _walk_table(connection: Connection, walk: _Walk) -> BrokenEntry | None:
    try:
        for row in _rows(connection):
            reason = walk.step(tuple(row[:-1]), row[-1])
            if reason:
                return BrokenEntry(walk.expected, reason)
    except DBAPIError as error:
        if "decode" not in str(error.orig):
            raise  # not an entry, but the file itself
        return _find_undecodable(connection, walk)
    return None


def _rows(connection: Connection, first: int = 1, last: int | None = None) -> Iterable[Row[Any]]:
    columns = [journal.c[name] for name in HASHED]
    query = select(*columns, journal.c.hash).order_by(journal.c.sequence)
    if last is not None:
        query = query.where(journal.c.sequence.between(first, last))
    return connection.execution_options(yield_per=_BATCH).execute(query)


def _find_undecodable(connection: Connection, walk: _Walk) -> BrokenEntry | None:
    """Read one by one the rows that cannot be read in batches, and return the first that is broken."""
    while True:
        try:
            found = list(_rows(connection, walk.expected, walk.expected))
        except DBAPIError as error:
            return BrokenEntry(walk.expected, f"it cannot be read: {error.orig}")
        reason = walk.step(tuple(found[0][:-1]), found[0][-1]) if found else "it is missing"
        if reason:
            return BrokenEntry(walk.expected, reason)


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


def _check_indices(connection: Connection, end: int) -> BrokenEntry | None:
    """Questions are answered from indices, which the hashes do not cover."""
    damage = dialect.of(connection).damage_of(connection, journal.name)
    if damage is None:
        return None
    return BrokenEntry(end, f"the entries hold, but the database's own check says: {damage}")


# -- the exported form -------------------------------------------------------------------------


def export(connection: Connection, *, since: int = 0) -> Iterator[bytes]:
    """Yield the entries after number ``since`` as lines of JSON, oldest first, read as they are taken."""
    query = select(journal).where(journal.c.sequence > since).order_by(journal.c.sequence)
    for row in connection.execution_options(yield_per=_BATCH).execute(query):
        yield msgspec.json.encode(to_event(row._asdict()), enc_hook=encode_hook) + b"\n"


class _Line(TagEvent, frozen=True, forbid_unknown_fields=True):
    """As exported: what no hash covers must not be there."""


def verify_lines(lines: Iterable[bytes], expect: Collection[str] = ()) -> Verdict:
    """Walk the chain of an exported journal, or of a later part of one.

    Raises :class:`ContentError` for a line that is no entry at all.
    """
    decoder = msgspec.json.Decoder(_Line, dec_hook=decode_hook)
    walk = _Walk(wanted=set(expect))
    first, anchor = 1, GENESIS
    for number, line in enumerate(lines, start=1):
        try:
            entry = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ContentError(f"line {number} is no journal entry: {error}") from error
        if entry.withheld:
            raise ContentError(
                f"line {number} is an entry whose hash was withheld",
                hint="digestry journal export --root DIR has all; over HTTP, who may audit the repository",
            )
        if entry.sequence is None:
            raise ContentError(f"line {number} is no journal entry: it has no sequence")
        if number == 1 and entry.sequence > 1:
            # A part: what was before it is known by its hash alone.
            first, anchor = entry.sequence, entry.previous_hash
            walk.expected, walk.previous = first, anchor
            walk.wanted.discard(anchor)
        reason = walk.step(_fields(entry), entry.hash)
        if reason:
            return _verdict(walk, BrokenEntry(walk.expected, f"{reason} (line {number})"), first, anchor)
    return _verdict(walk, None, first, anchor)


def _fields(entry: TagEvent) -> tuple[Any, ...]:
    return (
        entry.sequence,
        clock.from_datetime(entry.at),
        entry.repository,
        entry.tag,
        entry.event,
        None if entry.from_digest is None else str(entry.from_digest),
        None if entry.to_digest is None else str(entry.to_digest),
        entry.media_type,
        entry.size,
        entry.actor,
        entry.address,
        entry.client,
        entry.previous_hash,
    )
