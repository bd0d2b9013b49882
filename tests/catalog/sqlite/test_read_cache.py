"""The reads of one event loop, and what they keep in memory."""

from __future__ import annotations

import sqlite3

import pytest

from digestry.backend import open_backend
from digestry.catalog.catalog import Catalog
from digestry.catalog.sqlite.read_cache import ReadCache
from digestry.model.digest import Digest
from tests.backends import BlockingReads, file_of
from tests.catalog.support import pushed


def test_hot_reads_hold_no_transaction_open(catalog: Catalog) -> None:
    """A reader that did would keep the write-ahead log from ever being reset."""
    reads = BlockingReads(open_backend(file_of(catalog).parent))
    pushed(catalog, "x")
    reads.manifest("x", "t")
    reads.blob("x", str(Digest.of(b"")))
    connection = sqlite3.connect(file_of(catalog))
    busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    connection.close()
    assert busy == 0
    reads.close()


def test_hot_reads_memory_is_capped(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("digestry.catalog.sqlite.read_cache._MOST", 100)
    reads = BlockingReads(open_backend(file_of(catalog).parent))
    for number in range(1000):
        reads.manifest("x", f"t{number}")
        reads.blob("x", str(number))
        reads.content("x", str(number))
    assert isinstance(reads.reads, ReadCache)
    assert len(reads.reads._manifests) + len(reads.reads._contents) <= 102
    assert len(reads.reads._blobs) <= 102
    reads.close()
