"""The hashes of a log's tree, read from its tiles; none is used before the checkpoint's root covers it.

The right edge of the tree is read first, and must hash to the root. Every other tile must hash to the hash
that the tile above it has (C2SP tlog-tiles, "Merkle Tree"; RFC 6962, 2.1).
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from digestry.errors import ContentError
from digestry.translog.merkle import Subtree, root_from
from digestry.translog.tiles import HEIGHT, WIDTH, Tile, TileReader, hashes_of, tile_of, whole_hash

FetchTiles = Callable[[Sequence[Tile]], Mapping[Tile, bytes]]
"""Returns the contents of tiles."""
_MOST_TILES: Final = 1024
"""Tiles that are kept in memory, some 15 MB."""


class TreeMismatch(ContentError):
    """The tiles of a log do not hash to the root of its checkpoint."""


class VerifiedTiles:
    """The hashes of a tree of ``size`` leaves with ``root``. Thread-safe.

    It is a :data:`~digestry.translog.merkle.ReadHashes`. Every method raises :class:`TreeMismatch` for tiles
    that are not of this tree, :class:`~digestry.translog.tiles.InvalidTile`, and what ``fetch`` raises.
    """

    def __init__(self, size: int, root: bytes, fetch: FetchTiles) -> None:
        self.size = size
        self.root = root
        self._fetch = fetch
        self._tiles: collections.OrderedDict[Tile, list[bytes]] = collections.OrderedDict()
        self._edge: dict[Tile, list[bytes]] | None = None
        self._lock = threading.RLock()

    def __call__(self, subtrees: Sequence[Subtree]) -> dict[Subtree, bytes]:
        """Return the hashes of whole subtrees."""
        found = {}
        for subtree in subtrees:
            tile = tile_of(subtree, self.size)
            below = subtree.level % HEIGHT
            first = (subtree.position << below) - tile.first
            found[subtree] = whole_hash(self.hashes(tile)[first : first + (1 << below)])
        return found

    def leaf(self, index: int) -> bytes:
        """Return the hash of the leaf ``index``, which is below the size."""
        subtree = Subtree(0, index)
        return self([subtree])[subtree]

    def root_of(self, size: int) -> bytes:
        """Return the root of the first ``size`` leaves, at most as many as the tree has."""
        return root_from(size, self)

    def hashes(self, tile: Tile) -> list[bytes]:
        """Return the hashes of a tile of this tree."""
        with self._lock:
            if self._edge is None:
                self._edge = self._read_edge()
            found = self._edge.get(tile) or self._tiles.get(tile)
            if found is not None:
                return found
            found = self._read(tile)
            self._tiles[tile] = found
            if len(self._tiles) > _MOST_TILES:
                self._tiles.popitem(last=False)
            return found

    def _read(self, tile: Tile) -> list[bytes]:
        assert tile.level is not None and tile.width == WIDTH  # noqa: S101, PT018 - all others are the edge
        above = tile_of(Subtree(HEIGHT * (tile.level + 1), tile.index), self.size)
        expected = self.hashes(above)[tile.index - above.first]
        hashes = hashes_of(tile, self._fetch([tile])[tile])
        if whole_hash(hashes) != expected:
            raise TreeMismatch(f"{tile.path} is not of the log's tree of {self.size} leaves")
        return hashes

    def _read_edge(self) -> dict[Tile, list[bytes]]:
        """Return the tree's partial tiles, which together hash to its root."""
        edge = edge_of(self.size)
        contents = self._fetch(edge) if edge else {}
        if root_from(self.size, TileReader(self.size, lambda _: contents)) != self.root:
            raise TreeMismatch(
                f"the log's tiles do not hash to the root that its checkpoint of {self.size} leaves has"
            )
        return {tile: hashes_of(tile, contents[tile]) for tile in edge}


def edge_of(size: int) -> list[Tile]:
    """Return the partial tiles of a tree, from the leaves up."""
    found, level = [], 0
    while size:
        if size % WIDTH:
            found.append(Tile(level, size // WIDTH, size % WIDTH))
        size //= WIDTH
        level += 1
    return found
