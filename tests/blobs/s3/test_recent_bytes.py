"""What a process keeps of content that it writes, for those who read it before its commit."""

from __future__ import annotations

import os
from pathlib import Path

from digestry.blobs.s3.config import MIB, S3Config
from digestry.model.digest import Digest
from tests.blobs.s3.stores import make_store

CONTENT = os.urandom(7 * MIB)


def test_the_latest_bytes_can_be_read_and_the_first_ones_later(tmp_path: Path, s3_config: S3Config) -> None:
    store = make_store(tmp_path, s3_config, part_size=5 * MIB)
    with store.ingest("u") as ingest:
        growing = store.follow("u")
        assert growing is not None
        for start in range(0, len(CONTENT), 300_000):
            ingest.write(CONTENT[start : start + 300_000])
            end = min(len(CONTENT), start + 300_000)
            assert growing.size() == end
            assert growing.read(start, 300_001) == CONTENT[start:end]
        for first in (end - 2 * MIB, end - 1):
            assert growing.read(first, len(CONTENT)) == CONTENT[first:]
        assert (growing.read(0, 100), growing.read(end, 100)) == (b"", b"")
        ingest.commit(Digest.of(CONTENT))
    assert growing.read(end - 5, 100) == CONTENT[-5:]
    assert growing.is_stored_as(Digest.of(CONTENT))


def test_bytes_that_were_dropped_are_read_no_more(tmp_path: Path, s3_config: S3Config) -> None:
    store = make_store(tmp_path, s3_config)
    with store.ingest("u") as ingest:
        ingest.write(b"wrong")
        growing = store.follow("u")
        assert growing is not None
        ingest.resume(2)
        ingest.write(b"ong")
        assert (growing.size(), growing.read(2, 100), growing.read(0, 100)) == (5, b"ong", b"")
        ingest.abort()
    assert not growing.is_arriving()
    assert store.follow("u") is None


def test_another_process_reads_nothing_before_the_commit(tmp_path: Path, s3_config: S3Config) -> None:
    store = make_store(tmp_path, s3_config)
    with store.ingest("u") as ingest:
        ingest.write(b"hello")
        assert make_store(tmp_path, store.config).follow("u") is None
        ingest.abort()
