"""The comparison of the journal with the log that was made of it: entries, hashes, and checkpoints.

A leaf is computed again from each row of the journal, and the tree from the leaves. So whatever was signed is
compared with what is there now. Functions on a read-only connection, of a catalog of an older schema too.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Generator, Iterator
from typing import Any, Final

from sqlalchemy import Connection, Row, func, inspect, select

from digestry.catalog.journal import to_event
from digestry.catalog.observation_schema import log_checkpoints, log_entries, log_nodes
from digestry.catalog.schema import journal
from digestry.errors import DigestryError
from digestry.translog.checkpoints import Checkpoint
from digestry.translog.entries import make_leaf
from digestry.translog.merkle import Frontier, leaf_hash
from digestry.translog.tiles import WIDTH, whole_hash

_BATCH: Final = 1000


def first_difference(connection: Connection) -> tuple[int, str] | None:
    """Return the position of the first entry that is not what was signed, and how; None if all are."""
    if not inspect(connection).has_table(log_entries.name):
        return None
    walk = _Walk(connection)
    with contextlib.closing(_rows(connection)) as rows:
        for row in rows:
            if reason := walk.step(row):
                return walk.position, reason
    if reason := walk.end():
        return walk.position, reason
    return None


def is_signed(row: Row[Any]) -> bool:
    """Return whether a row of the journal, with ``leaf_hash``, ``secret`` and ``sealed`` of its leaf, is what
    was signed."""
    try:
        leaf = make_leaf(to_event(row._asdict()), bytes(row.secret), sealed=bool(row.sealed))
    except (DigestryError, ArithmeticError, TypeError, ValueError):  # it cannot be read
        return False
    return leaf_hash(leaf.content) == bytes(row.leaf_hash)


def _rows(connection: Connection) -> Generator[Row[Any], None, None]:
    query = (
        select(
            log_entries.c.sequence.label("position"),
            log_entries.c.hash.label("leaf_hash"),
            log_entries.c.secret,
            log_entries.c.sealed,
            journal,
        )
        .outerjoin_from(log_entries, journal, log_entries.c.sequence == journal.c.sequence)
        .order_by(log_entries.c.sequence)
    )
    found = connection.execute(query, execution_options={"yield_per": _BATCH})
    with contextlib.closing(found) as rows:
        yield from rows


class _Walk:
    """The tree up to ``position``, computed anew, and what is stored of it."""

    def __init__(self, connection: Connection) -> None:
        self.position = 0
        self._tree = Frontier()
        self._levels: list[list[bytes]] = []
        self._nodes = {
            (row.level, row.position): bytes(row.hash) for row in connection.execute(select(log_nodes))
        }
        origins = connection.execute(select(log_checkpoints.c.origin).distinct()).scalars().all()
        self._checkpoints = [_Checkpoints(connection, origin) for origin in sorted(origins)]
        self._last = int(
            connection.execute(select(func.coalesce(func.max(journal.c.sequence), 0))).scalar_one()
        )

    def step(self, row: Row[Any]) -> str:
        """Add the next leaf; return what is wrong, empty if nothing is."""
        if not self.position and (reason := self._compare_checkpoints()):
            return reason
        self.position += 1
        if row.position != self.position:
            return "its leaf is missing from the signed log"
        if row.sequence is None:
            return "it is in the signed log, and missing from the journal"
        if not is_signed(row):
            return "it is not the entry that was signed"
        leaf = bytes(row.leaf_hash)
        self._tree.append(leaf)
        return self._compare_nodes(leaf) or self._compare_checkpoints()

    def end(self) -> str:
        """Return what is wrong with what is stored beyond the last leaf."""
        if not self.position and (reason := self._compare_checkpoints()):
            return reason
        if self._nodes:
            return "the signed log has hashes of more entries than leaves"
        signed = [size for each in self._checkpoints if (size := each.largest()) is not None]
        if signed:
            return f"the log was signed with {max(signed)} entries, and has {self._tree.size}"
        if self._last < self._tree.size:  # not to be reached while each leaf has its entry
            return "the journal ends before the signed log"
        return ""

    def _compare_nodes(self, leaf: bytes) -> str:
        level, found, count = 0, leaf, self.position
        while True:
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(found)
            if len(self._levels[level]) < WIDTH:
                return ""
            found = whole_hash(self._levels[level])
            self._levels[level] = []
            level, count = level + 1, count // WIDTH
            if self._nodes.pop((level, count - 1), None) != found:
                return f"hash {count - 1} of level {level} of the signed log is missing, or was changed"

    def _compare_checkpoints(self) -> str:
        for each in self._checkpoints:
            for row in each.up_to(self.position):
                checkpoint = Checkpoint(row.origin, row.size, self._tree.root())
                same = row.size == self.position and bytes(row.root) == checkpoint.root
                if not same or not row.note.startswith(f"{checkpoint.text}\n"):
                    return f"the checkpoint of {row.origin} with {row.size} entries is not of these entries"
        return ""


class _Checkpoints:
    """The checkpoints of one name of the log, by rising size: there are many, and few are read at a time."""

    def __init__(self, connection: Connection, origin: str) -> None:
        self._connection = connection
        self._origin = origin
        self._rows: collections.deque[Row[Any]] = collections.deque()
        self._after: int | None = None
        self._fill()

    def _fill(self) -> None:
        query = select(log_checkpoints).where(log_checkpoints.c.origin == self._origin)
        if self._after is not None:
            query = query.where(log_checkpoints.c.size > self._after)
        self._rows.extend(self._connection.execute(query.order_by(log_checkpoints.c.size).limit(_BATCH)))
        if self._rows:
            self._after = self._rows[-1].size

    def up_to(self, size: int) -> Iterator[Row[Any]]:
        """Yield, and forget, those of at most ``size`` entries."""
        while self._rows and self._rows[0].size <= size:
            yield self._rows.popleft()
            if not self._rows:
                self._fill()

    def largest(self) -> int | None:
        """Return the largest size that is left; None if nothing is."""
        if not self._rows:
            return None
        query = select(func.max(log_checkpoints.c.size)).where(log_checkpoints.c.origin == self._origin)
        return int(self._connection.execute(query).scalar_one())
