"""The removal of most of the old checkpoints: of a log that is signed every second, they would fill the disk.

Nobody needs an old checkpoint: proofs are made of the tree's hashes, of which none is removed, and what was
signed for a size stays the beginning of what is signed later. Some are kept, ever fewer of the older ones,
each of them a signed statement about the log as it was then.

Of each set of witnesses, the newest checkpoint that all of them cosigned is always kept. So the newest one
with a quorum stays, whatever the quorum is, and so does the last one that each witness cosigned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from sqlalchemy import Connection, delete, select

from digestry.catalog import clock
from digestry.catalog.database import Database
from digestry.catalog.job_states import Fence
from digestry.catalog.observation_schema import log_checkpoints
from digestry.catalog.transactions import retried
from digestry.catalog.transparency import keys
from digestry.translog.notes import InvalidNote, parse_signatures

_HOUR: Final = 3600 * clock.SECOND
_DAY: Final = 24 * _HOUR
SPACING: Final = ((_HOUR, 0), (_DAY, 60 * clock.SECOND), (30 * _DAY, _HOUR))
"""Up to which age, in microseconds, checkpoints are kept how far apart; older ones a day apart."""

BATCH: Final = 2000
_REMOVED: Final = 500
"""Rows that one transaction removes: pushes wait for it."""
_LOOKED_AT: Final = 1000

_Witnesses = frozenset[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    size: int
    signed_at: int
    witnesses: _Witnesses


class CheckpointThinning:
    """Removes old checkpoints, some at a time: log after log, from the oldest checkpoint on. Not thread-safe.

    Raises :class:`StorageError`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._origin = ""
        self._from = 0

    def step(self, *, now: int, fence: Fence | None, limit: int = BATCH) -> tuple[int, bool]:
        """Look at the next ``limit`` checkpoints; return how many were removed, and whether the last one was
        reached, so that the next call begins anew."""
        with self._database.read() as connection:
            origins = [origin.name for origin in keys.origins(connection)]
            if not origins:
                return 0, True
            if self._origin not in origins:
                self._origin, self._from = origins[0], 0
            found = _read(connection, self._origin, self._from, limit)
            newest = _newest(connection, self._origin)
        removed = _superfluous(found, newest, now)
        self._remove([one.size for one in removed], fence)
        if len(found) == limit:
            # The last group goes on: what is kept of it is compared with the rest.
            begin = max(one.size for one in found if one not in removed)
            self._from = begin if begin > self._from else found[-1].size
            return len(removed), False
        self._from = 0
        following = origins.index(self._origin) + 1
        self._origin = origins[following] if following < len(origins) else ""
        return len(removed), not self._origin

    def _remove(self, sizes: Sequence[int], fence: Fence | None) -> None:
        for begin in range(0, len(sizes), _REMOVED):
            self._remove_some(sizes[begin : begin + _REMOVED], fence)

    @retried
    def _remove_some(self, sizes: Sequence[int], fence: Fence | None) -> None:
        with self._database.write() as connection:
            if fence is not None:
                fence.require_held(connection)
            connection.execute(
                delete(log_checkpoints).where(
                    log_checkpoints.c.origin == self._origin, log_checkpoints.c.size.in_(sizes)
                )
            )


def _read(connection: Connection, origin: str, begin: int, limit: int) -> list[_Checkpoint]:
    table = log_checkpoints.c
    query = (
        select(table.size, table.signed_at, table.cosignatures)
        .where(table.origin == origin, table.size >= begin)
        .order_by(table.size)
        .limit(limit)
    )
    rows = connection.execute(query)
    return [_Checkpoint(row.size, row.signed_at, _witnesses(row.cosignatures)) for row in rows]


def _newest(connection: Connection, origin: str) -> list[_Checkpoint]:
    """Return the newest checkpoints that witnesses cosigned, and the newest of all, the newest first."""
    table = log_checkpoints.c
    query = select(table.size, table.signed_at, table.cosignatures).where(table.origin == origin)
    query = query.order_by(table.size.desc())
    found: list[_Checkpoint] = []
    for some in (query.limit(1), query.where(table.cosignatures != "").limit(_LOOKED_AT)):
        rows = connection.execute(some)
        found += [_Checkpoint(row.size, row.signed_at, _witnesses(row.cosignatures)) for row in rows]
    return found


def _superfluous(found: Sequence[_Checkpoint], newest: Sequence[_Checkpoint], now: int) -> set[_Checkpoint]:
    """Return those of ``found``, by rising size, that need not be kept."""
    removed: set[_Checkpoint] = set()
    for (period, _), group in groupby(found, key=lambda one: _slot(one, now)):
        if not period:
            continue
        some = list(group)
        best = max(some, key=lambda one: (len(one.witnesses), one.size))
        removed |= {one for one in some if one is not best}
    # A later one must have been cosigned by as many: of those that are removed, one leads to the next, and
    # the last of them to one that stays.
    later: dict[_Witnesses, int] = {}
    for one in (*found, *newest):
        later[one.witnesses] = max(one.size, later.get(one.witnesses, 0))
    return {
        one
        for one in removed
        if any(one.size < size and one.witnesses <= witnesses for witnesses, size in later.items())
    }


def _slot(one: _Checkpoint, now: int) -> tuple[int, int]:
    """Return the period, 0 for none, and which of these a checkpoint is of."""
    age = now - one.signed_at
    period = next((spacing for oldest, spacing in SPACING if age < oldest), _DAY)
    return period, one.signed_at // period if period else 0


def _witnesses(lines: str) -> _Witnesses:
    """Return whose cosignatures these are; nobody's if they are damaged."""
    try:
        found = parse_signatures(lines) if lines else ()
    except InvalidNote:
        return frozenset()
    return frozenset((one.name, one.key_id) for one in found)
