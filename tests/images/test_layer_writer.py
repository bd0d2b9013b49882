"""Layers: the same bytes for any number of threads, which every reader takes."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import random
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from digestry.errors import InvalidConfiguration
from digestry.images.layer_writer import Compression, LayerWriter
from digestry.images.parallel_gzip import BLOCK, ParallelGzip
from digestry.model import media_types
from digestry.model.digest import Digest

_WORDS = random.Random(7)
CONTENT = b"".join(_WORDS.randbytes(40) * _WORDS.randint(1, 9) for _ in range(40_000))
"""About 8 MB that can be compressed: several pieces for gzip, and for zstd."""


def written(
    content: bytes, compression: Compression, threads: int, *, level: int | None = None, step: int = 1 << 20
) -> tuple[bytes, str]:
    """The bytes of a layer, written ``step`` bytes at a time, and its media type."""
    output = io.BytesIO()
    with LayerWriter(output.write, compression, level, threads=threads) as writer:
        for start in range(0, len(content), step):
            writer.write(content[start : start + step])
        layer, diff_id = writer.finish()
    assert diff_id == Digest.of(content)
    assert (layer.digest, layer.size) == (Digest.of(output.getvalue()), len(output.getvalue()))
    return output.getvalue(), layer.media_type


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_the_bytes_do_not_depend_on_the_threads(compression: Compression) -> None:
    """The digest of a layer is the same on a machine with one core, and on one with many."""
    assert len(CONTENT) > 5 * BLOCK
    made = {
        written(CONTENT, compression, threads, step=step)
        for threads, step in ((1, 1 << 20), (2, 100_003), (3, 5 << 20), (8, len(CONTENT)))
    }
    assert len(made) == 1
    ((layer, media_type),) = made
    assert len(layer) < len(CONTENT) / 2
    plain = (
        gzip.decompress(layer)
        if compression == "gzip"
        else zstandard.ZstdDecompressor().decompressobj().decompress(layer)
    )
    assert plain == CONTENT
    assert media_type == {"gzip": media_types.OCI_LAYER_GZIP, "zstd": media_types.OCI_LAYER_ZSTD}[compression]


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_process_with_one_core_makes_the_same(tmp_path: Path, compression: Compression) -> None:
    script = (
        "import os, sys\n"
        "from digestry.images.layer_writer import LayerWriter\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "with LayerWriter(lambda _: None, sys.argv[1]) as writer:\n"
        "    writer.write(open(sys.argv[2], 'rb').read())\n"
        "    print(writer.finish()[0].digest)\n"
    )
    (tmp_path / "content").write_bytes(CONTENT)
    command = [sys.executable, "-c", script, compression, str(tmp_path / "content")]
    alone = subprocess.run(command, capture_output=True, text=True, check=True)
    assert alone.stdout.strip() == str(Digest.of(written(CONTENT, compression, 4)[0]))


@given(st.binary(max_size=5_000), st.lists(st.integers(0, 5_000), max_size=5))
@settings(max_examples=30)
def test_gzip_does_not_depend_on_how_bytes_come(content: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(content)]
    streams = []
    for parts in ([content], [content[start:end] for start, end in itertools.pairwise(places)]):
        writer = ParallelGzip(6, 2)
        streams.append(b"".join([*map(writer.compress, parts), writer.flush()]))
        writer.close()
    assert streams[0] == streams[1]
    assert gzip.decompress(streams[0]) == content


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])
def test_gzip_is_one_member(size: int) -> None:
    content = os.urandom(size)
    layer, _ = written(content, "gzip", 2)
    inflater = zlib.decompressobj(31)
    assert inflater.decompress(layer) + inflater.flush() == content
    assert (inflater.eof, inflater.unused_data) == (True, b"")


def test_pieces_find_what_was_in_the_piece_before() -> None:
    block = os.urandom(16 << 10)
    layer, _ = written(block * (3 * BLOCK // len(block)), "gzip", 2)
    assert len(layer) < 3 * len(block)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_levels(compression: Compression) -> None:
    words = random.Random(3)
    text = b" ".join(words.choice([b"layer", b"image", b"digest", b"tag", b"root"]) for _ in range(200_000))
    fast, small = (len(written(text, compression, 2, level=level)[0]) for level in (1, 9))
    assert small < fast


@pytest.mark.parametrize(("compression", "level"), [("gzip", 0), ("gzip", 10), ("zstd", 20), ("stored", 1)])
def test_levels_that_there_are_not(compression: Compression, level: int) -> None:
    with pytest.raises(InvalidConfiguration, match="levels"):
        LayerWriter(lambda _: None, compression, level)
