"""Paths and contents of tiles, by the examples of C2SP's tlog-tiles and by rebuilding trees from them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digestry.translog.merkle import (
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_from,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from digestry.translog.tiles import (
    WIDTH,
    InvalidTile,
    Tile,
    TileReader,
    bundles_of,
    check_bundle,
    decode_bundle,
    encode_bundle,
    parse_path,
    tiles_of,
    whole_hash,
)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 999), "tile/0/999"),
        (Tile(1, 1000), "tile/1/x001/000"),
        (Tile(0, 1234067), "tile/0/x001/x234/067"),
        (Tile(3, 1234067, 8), "tile/3/x001/x234/067.p/8"),
        (Tile(63, 5, 255), "tile/63/005.p/255"),
        (Tile(None, 67), "tile/entries/067"),
        (Tile(None, 1067, 1), "tile/entries/x001/067.p/1"),
    ],
)
def test_path(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert parse_path(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "tile/0",
        "tile/0/",
        "tile/00/000",
        "tile/01/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/067",
        "tile/0/x001",
        "tile/0/001/067",
        "tile/0/x001/x067",
        "tile/0/x01/067",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/000.p/1.p/1",
        "tile/0/\u0660\u0660\u0660",
        "tile/data/000",
        "tiles/0/000",
        "tile/0/000/",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
    ],
)
def test_path_that_is_none(path: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_path(path)


@given(st.integers(0, (1 << 55) - 1), st.integers(0, 63), st.integers(1, 256))
def test_every_path_is_read_back(index: int, level: int, width: int) -> None:
    for tile in (Tile(level, index, width), Tile(None, index, width)):
        assert parse_path(tile.path) == tile


def test_tiles_of_seventy_thousand_leaves() -> None:
    # The example of the specification.
    tiles = list(tiles_of(70_000))
    assert len([tile for tile in tiles if tile.level == 0 and tile.width == WIDTH]) == 273
    assert [tile for tile in tiles if tile.width < WIDTH] == [
        Tile(0, 273, 112),
        Tile(1, 1, 17),
        Tile(2, 0, 1),
    ]
    assert list(tiles_of(256)) == [Tile(0, 0), Tile(1, 0, 1)]
    assert list(tiles_of(257, since=256)) == [Tile(0, 1, 1)]
    assert list(tiles_of(0)) == []
    assert [tile.path for tile in bundles_of(300, since=256)] == ["tile/entries/001.p/44"]


class Log:
    """A log in memory, its tiles made as the specification says."""

    def __init__(self, size: int) -> None:
        self.leaves = [leaf_hash(b"%d" % number) for number in range(size)]

    def tile(self, tile: Tile) -> bytes:
        assert tile.level is not None
        hashes = self.leaves
        for _ in range(tile.level):
            hashes = [whole_hash(hashes[at : at + WIDTH]) for at in range(0, len(hashes) - WIDTH + 1, WIDTH)]
        assert tile.exists(len(self.leaves))
        return b"".join(hashes[tile.first : tile.first + tile.width])

    def fetch(self, tiles: Sequence[Tile]) -> dict[Tile, bytes]:
        return {tile: self.tile(tile) for tile in tiles}


BIG = Log(66_000)


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 1000, 65_535, 65_536, 65_537, 66_000])
def test_proofs_from_tiles(size: int) -> None:
    log = Log(0)
    log.leaves = BIG.leaves[:size]
    root = root_of(log.leaves)
    reader = TileReader(size, log.fetch)
    assert root_from(size, reader) == root
    for index in {0, size // 2, size - 1}:
        verify_inclusion(log.leaves[index], index, size, root, inclusion_proof(index, size, reader))
    for old in {1, size // 3, size - 1} - {0}:
        if old <= size:
            proof = consistency_proof(old, size, reader)
            verify_consistency(old, root_of(log.leaves[:old]), size, root, proof)


def test_a_tile_of_another_length_is_refused() -> None:
    reader = TileReader(3, lambda tiles: {tile: bytes(31) for tile in tiles})
    with pytest.raises(InvalidTile, match="has 31 bytes, and should have 96"):
        root_from(3, reader)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=WIDTH))
def test_bundle(entries: list[bytes]) -> None:
    tile = Tile(None, 0, len(entries))
    content = encode_bundle(entries)
    assert decode_bundle(tile, content) == entries
    check_bundle(tile, entries, [leaf_hash(entry) for entry in entries])
    for wrong in (content + b"\0", content[:-1], content + b"\0\0"):
        with pytest.raises(InvalidTile):
            decode_bundle(tile, wrong)
    with pytest.raises(InvalidTile, match="entry 0 of the log"):
        check_bundle(tile, [entries[0] + b"x", *entries[1:]], [leaf_hash(entry) for entry in entries])


def test_the_longest_entry() -> None:
    assert decode_bundle(Tile(None, 0, 1), encode_bundle([bytes(65_535)])) == [bytes(65_535)]
    with pytest.raises(ValueError, match="65536 bytes"):
        encode_bundle([bytes(65_536)])
