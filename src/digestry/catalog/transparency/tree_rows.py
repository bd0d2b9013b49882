"""The rows of the log's tree: its leaves' hashes, and those of whole tiles above them.

Functions on a transaction. Level 0 of the tiles are the leaves, one a journal entry; a row of ``log_nodes``
is a hash of a higher level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, Connection, func, insert, select

from digestry.catalog.observation_schema import log_entries, log_nodes
from digestry.catalog.transparency.damage import LogDamaged
from digestry.translog.merkle import Subtree, subtrees_of
from digestry.translog.tiles import HEIGHT, WIDTH, Tile, TileReader, tile_of, whole_hash


def size_of(connection: Connection) -> int:
    """Return how many leaves the log has."""
    return int(connection.execute(select(func.coalesce(func.max(log_entries.c.sequence), 0))).scalar_one())


def hashes(connection: Connection, tile: Tile) -> list[bytes]:
    """Return the hashes of a tile, as far as they are there."""
    level, first, end = tile.level or 0, tile.first, tile.first + tile.width
    if level == 0:
        place: ColumnElement[int] = log_entries.c.sequence
        query = select(log_entries.c.hash).where(place > first, place <= end)
    else:
        place = log_nodes.c.position
        query = select(log_nodes.c.hash).where(log_nodes.c.level == level, place >= first, place < end)
    return [bytes(each) for each in connection.execute(query.order_by(place)).scalars()]


class TableReader:
    """Reads hashes of subtrees of the first ``size`` leaves from the rows. A
    :data:`~digestry.translog.merkle.ReadHashes`. Raises :class:`LogDamaged` for rows that are missing."""

    def __init__(self, connection: Connection, size: int) -> None:
        self._connection = connection
        self._reader = TileReader(size, self._fetch)

    def __call__(self, subtrees: Sequence[Subtree]) -> dict[Subtree, bytes]:
        """Return the hashes of whole subtrees."""
        return self._reader(subtrees)

    def _fetch(self, tiles: Sequence[Tile]) -> dict[Tile, bytes]:
        return {tile: b"".join(self._whole(tile)) for tile in tiles}

    def _whole(self, tile: Tile) -> list[bytes]:
        found = hashes(self._connection, tile)
        if len(found) != tile.width:
            raise LogDamaged(
                f"the log in the catalog has {len(found)} of the {tile.width} hashes of {tile.path}"
            )
        return found


class GrowingTiles:
    """The last tiles of a log, to which leaves are appended; whole ones become rows of ``log_nodes``."""

    def __init__(self, connection: Connection, size: int) -> None:
        self._size = size
        self._levels: list[list[bytes]] = []
        self._rows: list[dict[str, object]] = []
        count, level = size, 0
        while count:
            width = count % WIDTH
            tile = Tile(level, count // WIDTH, width)
            found = hashes(connection, tile) if width else []
            if len(found) != width:
                raise LogDamaged(
                    f"the log in the catalog has {len(found)} of the {width} hashes of {tile.path}"
                )
            self._levels.append(found)
            count, level = count // WIDTH, level + 1

    def hash_of(self, part: Subtree) -> bytes:
        """Return the hash of one of the whole subtrees that the log of this size is made of."""
        tile = tile_of(part, self._size)
        below = part.level % HEIGHT
        first = (part.position << below) - tile.first
        return whole_hash(self._levels[tile.level or 0][first : first + (1 << below)])

    def frontier(self) -> list[bytes]:
        """Return the hashes of all of those."""
        return [self.hash_of(part) for part in subtrees_of(self._size)]

    def append(self, leaf: bytes) -> None:
        """Add the hash of a leaf."""
        self._size += 1
        joined, level, count = leaf, 0, self._size
        while True:
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(joined)
            if len(self._levels[level]) < WIDTH:
                return
            joined = whole_hash(self._levels[level])
            self._levels[level] = []
            count, level = count // WIDTH, level + 1
            self._rows.append({"level": level, "position": count - 1, "hash": joined})

    def write(self, connection: Connection) -> None:
        """Write the rows of the tiles that became whole."""
        if self._rows:
            connection.execute(insert(log_nodes), self._rows)
            self._rows = []


LEAF_COLUMNS: Final = (log_entries.c.sequence, log_entries.c.hash, log_entries.c.secret, log_entries.c.sealed)
