"""The proof of the journal in the database: its chains, the tags that it ends with, the log, its indices.

Functions on a read-only connection, of a catalog of an older schema too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final, cast

from sqlalchemy import ColumnElement, Connection, Row, Select, exists, func, select
from sqlalchemy.exc import DBAPIError

from digestry.catalog import dialect
from digestry.catalog.journal_chain import BrokenEntry, ChainWalk, Head, Verdict
from digestry.catalog.journal_hashes import HASHED, HASHED_IF_GIVEN
from digestry.catalog.journal_source import journal_source
from digestry.catalog.schema import journal, repositories, tags
from digestry.catalog.transparency import audit

Entry = tuple[object, ...]
"""Its hash, its position, the fields under the hash, and those that are under it if an entry has them."""

_BATCH: Final = 1000
_NUMBER: Final = 2 + HASHED.index("number")
_FURTHER: Final = 2 + len(HASHED)
_COLUMNS: Final = (*HASHED, *HASHED_IF_GIVEN)


def verify(connection: Connection, expect: Collection[str] = ()) -> Verdict:
    """Walk all chains, compare their ends with the tags, and each entry with the log that was signed of it.

    ``expect`` are hashes noted elsewhere, each of which must be there.
    """
    return _Verification(connection, expect).run()


class _Verification:
    def __init__(self, connection: Connection, expect: Collection[str]) -> None:
        self._connection = connection
        self._entries = journal_source(connection)
        self._walk = ChainWalk(set(expect), self._find_head)
        self._next_before = 1
        """The number of the next entry of the registry's chain; 1 after the last one."""

    def run(self) -> Verdict:
        broken = (
            self._walk_positions()
            or self._walk_unsequenced()
            or self._compare_with_tags()
            or self._find_tag_without_entry()
            or self._compare_with_log()
            or self._check_indices()
        )
        return self._walk.verdict(broken)

    def _broken(self, reason: str) -> BrokenEntry:
        return BrokenEntry(self._walk.position, reason)

    # -- the chains ----------------------------------------------------------------------------

    def _walk_positions(self) -> BrokenEntry | None:
        try:
            for row in self._rows(self._entries.c.sequence.is_not(None), self._entries.c.sequence):
                if reason := self._step(row):
                    return self._broken(reason)
        except DBAPIError as error:
            if "decode" not in str(error.orig):
                raise  # not an entry, but the file itself
            return self._find_undecodable()
        if self._next_before < 1:
            return self._broken("it is missing, and so is all after it, of the registry's chain")
        return None

    def _step(self, row: Entry) -> str:
        number = row[_NUMBER]
        if not isinstance(number, int) or number > 0:
            return self._walk.step(row[1], row[2:_FURTHER], row[_FURTHER:], row[0])
        if self._walk.entries and row[1] == self._walk.position and number != self._next_before:
            return f"its number is {number} and not {self._next_before}"
        self._next_before = number + 1
        return self._walk.step_before((row[1], row[4], row[2], *row[5:_FURTHER]), row[0])

    def _walk_unsequenced(self) -> BrokenEntry | None:
        """Walk the entries that have no position yet, each repository's in turn."""
        entries = self._entries.c
        try:
            for row in self._rows(entries.sequence.is_(None), entries.repository, entries.number):
                if reason := self._walk.step_unsequenced(row[2:_FURTHER], row[_FURTHER:], row[0]):
                    return self._broken(f"entry {row[_NUMBER]} of {row[2]}, without a position yet: {reason}")
        except DBAPIError as error:
            if "decode" not in str(error.orig):
                raise
            return self._broken(f"an entry without a position cannot be read: {error.orig}")
        return None

    def _rows(self, which: ColumnElement[bool], *order: ColumnElement[Any]) -> Iterator[Entry]:
        entries = self._entries.c
        query = select(entries.hash, entries.sequence, *(entries[name] for name in _COLUMNS)).where(which)
        found = self._connection.execute(query.order_by(*order), execution_options={"yield_per": _BATCH})
        with contextlib.closing(found) as rows:
            yield from cast("Iterable[Entry]", rows)

    def _find_undecodable(self) -> BrokenEntry:
        """Read one by one the rows that cannot be read in batches, and return the first that is broken."""
        while True:
            try:
                found = list(self._rows(self._entries.c.sequence == self._walk.position))
            except DBAPIError as error:
                return self._broken(f"it cannot be read: {error.orig}")
            if reason := self._step(found[0]) if found else "it is missing":
                return self._broken(reason)

    def _find_head(self, repository: str, number: int) -> Head | None:
        entries = self._entries.c
        query = select(entries.number, entries.hash, entries.at).where(
            entries.repository == repository,
            entries.number < number,
            entries.sequence < self._walk.position,
        )
        row = self._connection.execute(query.order_by(entries.number.desc()).limit(1)).first()
        return None if row is None else Head(max(0, row.number), row.hash, row.at)

    # -- the end -------------------------------------------------------------------------------

    def _compare_with_tags(self) -> BrokenEntry | None:
        # No hash follows the last entry: that it was cut off shows in the tags that it moved.
        entries = self._entries.c
        # Both rise along a tag's entries; each schema has an index by tag and this.
        order = entries.at if self._entries is journal else entries.sequence
        last = select(entries.repository, func.max(order).label("place")).group_by(
            entries.repository, entries.tag
        )
        ends = last.subquery()
        query = (
            select(entries.sequence, entries.repository, entries.tag, tags.c.digest)
            .join_from(
                ends, self._entries, (entries.repository == ends.c.repository) & (order == ends.c.place)
            )
            .outerjoin(repositories, repositories.c.name == entries.repository)
            .outerjoin(tags, (tags.c.repository_id == repositories.c.id) & (tags.c.name == entries.tag))
            .where(tags.c.digest.is_distinct_from(entries.to_digest))
        )
        row = self._first(query.order_by(entries.sequence.is_(None), entries.sequence))
        if row is None:
            return None
        there = "is not there" if row.digest is None else f"points to {row.digest}"
        return BrokenEntry(
            self._walk.position if row.sequence is None else row.sequence,
            f"it is the last of tag {row.tag} of {row.repository}, but the tag {there}",
        )

    def _find_tag_without_entry(self) -> BrokenEntry | None:
        entries = self._entries.c
        known = exists().where(entries.repository == repositories.c.name, entries.tag == tags.c.name)
        query = select(repositories.c.name, tags.c.name.label("tag"), tags.c.digest).join_from(
            repositories, tags
        )
        row = self._first(query.where(~known).order_by(repositories.c.name, tags.c.name))
        if row is None:
            return None
        return self._broken(f"tag {row.tag} of {row.name} points to {row.digest}, and no entry tells of it")

    def _compare_with_log(self) -> BrokenEntry | None:
        # Who rewrites the chains makes valid ones; the signed log still has the hash of each entry.
        found = audit.first_difference(self._connection)
        return None if found is None else BrokenEntry(*found)

    def _first(self, query: Select[Any]) -> Row[Any] | None:
        return self._connection.execute(query.limit(1)).first()

    def _check_indices(self) -> BrokenEntry | None:
        """Questions are answered from indices, which the hashes do not cover."""
        damage = dialect.of(self._connection).damage_of(self._connection, journal.name)
        if damage is None:
            return None
        return self._broken(f"the entries hold, but the database's own check says: {damage}")
