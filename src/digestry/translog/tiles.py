"""Tiles of a log and bundles of its entries, as C2SP's ``tlog-tiles`` defines them.

A tile has up to 256 hashes. Those of level 0 are of leaves; a hash of a higher level is that of a whole tile
of the level below.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from digestry.errors import ContentError
from digestry.translog.merkle import HASH_SIZE, LARGEST_SIZE, Subtree, leaf_hash, node_hash

HEIGHT: Final = 8
WIDTH: Final = 1 << HEIGHT
"""How many hashes a whole tile has, and how many entries a whole bundle."""
HIGHEST_LEVEL: Final = 63
LONGEST_ENTRY: Final = 0xFFFF
"""The largest entry in bytes that a bundle can have."""

_LEVEL: Final = re.compile(r"0|[1-9][0-9]?")
_WIDTH: Final = re.compile(r"[1-9][0-9]{0,2}")
_PART: Final = re.compile(r"[0-9]{3}")
_ENTRIES: Final = "entries"


class InvalidTile(ContentError):
    """A tile or bundle that is not what its path says."""


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """The ``index``-th tile of a ``level``, or, with the level None, the bundle of entries of that tile of
    level 0. ``width`` is how many hashes, or entries, it has."""

    level: int | None
    index: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """The path below the log's prefix, such as ``tile/0/x001/067.p/8``."""
        digits = f"{self.index:03d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        parts = [digits[start : start + 3] for start in range(0, len(digits), 3)]
        number = "/".join([f"x{part}" for part in parts[:-1]] + parts[-1:])
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{_ENTRIES if self.level is None else self.level}/{number}{partial}"

    @property
    def first(self) -> int:
        """The index of its first hash in its level, or of its first entry."""
        return self.index * WIDTH

    @property
    def whole(self) -> Tile:
        """The whole tile of the same place."""
        return Tile(self.level, self.index)

    def exists(self, size: int) -> bool:
        """Return whether a log of ``size`` leaves has so many hashes, or entries, there."""
        return self.first + self.width <= size >> (HEIGHT * (self.level or 0))


def parse_path(path: str) -> Tile:
    """Return the tile with this path below the log's prefix. Raises ``ValueError``."""
    tile, _, rest = path.partition("/")
    level_text, _, number = rest.partition("/")
    if tile != "tile" or not number:
        raise ValueError("it is not the path of a tile, such as tile/0/x001/067")
    level: int | None = None
    if level_text != _ENTRIES:
        if not _LEVEL.fullmatch(level_text) or int(level_text) > HIGHEST_LEVEL:
            raise ValueError(f"a level is a number from 0 to {HIGHEST_LEVEL}, or entries")
        level = int(level_text)
    width = WIDTH
    number, partial, width_text = number.partition(".p/")
    if partial:
        if not _WIDTH.fullmatch(width_text) or int(width_text) >= WIDTH:
            raise ValueError(f"the width of a partial tile is a number from 1 to {WIDTH - 1}")
        width = int(width_text)
    parts = number.split("/")
    digits = [part.removeprefix("x") for part in parts[:-1]] + parts[-1:]
    if not all(part.startswith("x") for part in parts[:-1]) or not all(map(_PART.fullmatch, digits)):
        raise ValueError("the index of a tile has three digits an element, each but the last after an x")
    if len(digits) > 1 and digits[0] == "000":
        raise ValueError("the index of a tile has no more elements than it needs")
    index = int("".join(digits))
    if index > LARGEST_SIZE >> HEIGHT:
        raise ValueError("the index of a tile is too large")
    return Tile(level, index, width)


def tiles_of(size: int, *, since: int = 0) -> Iterator[Tile]:
    """Yield the tiles of hashes of a log of ``size`` leaves, level by level.

    With ``since``, those only that a log of that size does not have.
    """
    level = 0
    while size:
        for index in range(since // WIDTH, -(-size // WIDTH)):
            width = min(WIDTH, size - index * WIDTH)
            if index * WIDTH + width > since:
                yield Tile(level, index, width)
        size //= WIDTH
        since //= WIDTH
        level += 1


def bundles_of(size: int, *, since: int = 0) -> Iterator[Tile]:
    """Yield the bundles of entries of a log of ``size`` leaves; with ``since``, those that have an entry from
    that index on."""
    for index in range(since // WIDTH, -(-size // WIDTH)):
        yield Tile(None, index, min(WIDTH, size - index * WIDTH))


def tile_of(subtree: Subtree, size: int) -> Tile:
    """Return the tile, in a log of ``size`` leaves, from which the hash of a whole subtree is computed."""
    level = subtree.level // HEIGHT
    first = subtree.position << (subtree.level - level * HEIGHT)
    index = first // WIDTH
    return Tile(level, index, min(WIDTH, (size >> (HEIGHT * level)) - index * WIDTH))


def hashes_of(tile: Tile, content: bytes) -> list[bytes]:
    """Return the hashes of a tile. Raises :class:`InvalidTile`."""
    if len(content) != tile.width * HASH_SIZE:
        raise InvalidTile(f"{tile.path} has {len(content)} bytes, and should have {tile.width * HASH_SIZE}")
    return [content[start : start + HASH_SIZE] for start in range(0, len(content), HASH_SIZE)]


def whole_hash(hashes: Sequence[bytes]) -> bytes:
    """Return the hash over a power of two of hashes, such as the 256 of a whole tile."""
    level = list(hashes)
    while len(level) > 1:
        level = [node_hash(level[place], level[place + 1]) for place in range(0, len(level), 2)]
    return level[0]


class TileReader:
    """Reads hashes of subtrees from the tiles of a log of ``size`` leaves. A
    :data:`~digestry.translog.merkle.ReadHashes`.

    ``fetch`` returns the contents of tiles; it is asked for each tile once. Nothing that it returns is
    verified here: verify the proof, or the root, that is computed of it.
    """

    def __init__(self, size: int, fetch: Callable[[Sequence[Tile]], Mapping[Tile, bytes]]) -> None:
        self._size = size
        self._fetch = fetch
        self._tiles: dict[Tile, list[bytes]] = {}

    def __call__(self, subtrees: Sequence[Subtree]) -> dict[Subtree, bytes]:
        """Return the hashes of whole subtrees. Raises :class:`InvalidTile`."""
        places = {subtree: tile_of(subtree, self._size) for subtree in subtrees}
        missing = [tile for tile in dict.fromkeys(places.values()) if tile not in self._tiles]
        if missing:
            contents = self._fetch(missing)
            for tile in missing:
                self._tiles[tile] = hashes_of(tile, contents[tile])
        found = {}
        for subtree, tile in places.items():
            below = subtree.level % HEIGHT
            first = (subtree.position << below) - tile.first
            part = self._tiles[tile][first : first + (1 << below)]
            if len(part) != 1 << below:
                raise InvalidTile(f"a log of {self._size} leaves has no whole subtree {subtree}")
            found[subtree] = whole_hash(part)
        return found


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Return the bundle of entries. Raises ``ValueError`` for one that is too long for a bundle."""
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > LONGEST_ENTRY:
            raise ValueError(f"an entry has {len(entry)} bytes, and may have {LONGEST_ENTRY}")
        parts += (struct.pack(">H", len(entry)), entry)
    return b"".join(parts)


def decode_bundle(tile: Tile, content: bytes) -> list[bytes]:
    """Return the entries of a bundle, which is nothing else. Raises :class:`InvalidTile`."""
    entries: list[bytes] = []
    place = 0
    while place < len(content):
        if place + 2 > len(content):
            raise InvalidTile(f"{tile.path} ends within the length of entry {tile.first + len(entries)}")
        (length,) = struct.unpack_from(">H", content, place)
        place += 2
        if place + length > len(content):
            raise InvalidTile(f"{tile.path} ends within entry {tile.first + len(entries)}")
        entries.append(content[place : place + length])
        place += length
    if len(entries) != tile.width:
        raise InvalidTile(f"{tile.path} has {len(entries)} entries, and should have {tile.width}")
    return entries


def check_bundle(tile: Tile, entries: Sequence[bytes], leaves: Sequence[bytes]) -> None:
    """Raise :class:`InvalidTile` unless the entries of a bundle hash to the ``leaves`` of its tile of
    level 0."""
    for place, (entry, leaf) in enumerate(zip(entries, leaves, strict=True)):
        if leaf_hash(entry) != leaf:
            raise InvalidTile(f"entry {tile.first + place} of the log is not what its leaf is the hash of")
