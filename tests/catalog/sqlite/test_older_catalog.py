"""A catalog that the version before wrote is opened, brought up to date, and its journal proves right.

``catalog-0007.sql`` is the dump of such a one, of schema 0007: two repositories, a tag that moved, one that
was deleted, an index, a sighting, a job, damaged content.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from digestry.backend import Backend, open_backend
from digestry.catalog.sqlite.schema_version import newest_schema
from digestry.errors import StorageError
from digestry.model.digest import Digest
from digestry.registry.config import RegistryConfig
from digestry.registry.server import prepare
from tests.backends import BlockingReads, file_of, open_blobs

DUMP = Path(__file__).with_name("catalog-0007.sql")
LAYERS = (b"bad layer", b"good layer", b"app layer")


@pytest.fixture
def older(tmp_path: Path) -> Backend:
    """A registry whose catalog is of the schema before, and some of its blobs."""
    with closing(sqlite3.connect(tmp_path / "catalog.db")) as connection:
        connection.executescript(DUMP.read_text(encoding="utf-8"))
    blobs = open_blobs(tmp_path)
    blobs.prepare()
    for layer in LAYERS:
        blobs.put(layer)
        blobs.put(b"config of " + layer)
    return open_backend(tmp_path)


def test_its_journal_proves_right_as_it_is(older: Backend) -> None:
    found = older.catalog_store.verify_journal()
    assert (found.entries, found.broken) == (6, None)
    assert len(list(older.catalog_store.export_journal(since=2))) == 4
    with pytest.raises(StorageError, match="has schema 0007, and this digestry works with"):
        older.catalog_store.check_schema()


def test_it_is_brought_up_to_date_and_keeps_all(older: Backend, tmp_path: Path) -> None:
    before = older.catalog_store.verify_journal()
    prepare(RegistryConfig(tmp_path))
    assert older.catalog_store.verify_journal() == before
    catalog = older.open_catalog()
    reads = BlockingReads(older)
    try:
        with closing(sqlite3.connect(file_of(catalog))) as connection:
            (schema,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        assert schema == newest_schema()
        assert catalog.repositories(limit=10) == ["golftrack", "team/app"]
        assert [row.name for row in catalog.tags("golftrack")] == ["1.5", "all"]
        moves = catalog.journal("golftrack", tag="1.5", limit=10)
        assert [move.event for move in moves] == ["moved", "created"]
        (bad,) = {move.from_digest for move in moves} - {None}
        assert bad is not None
        spans = catalog.tag_history.tags_for_digest("golftrack", bad, limit=10)
        assert [(span.tag, span.still) for span in spans] == [
            ("all", True),
            ("latest", False),
            ("1.5", False),
        ]
        assert catalog.sightings.of("golftrack", bad, limit=10).places == 1
        assert catalog.damage.known(Digest.of(b"app layer"))
        assert catalog.identity.get().id == "0123456789abcdef0123456789abcdef"
        state = catalog.jobs.state("collection")
        assert state is not None
        assert state.state == {"runs": 1}
        found = reads.manifest("golftrack", "1.5")
        assert found is not None
        assert found.digest == str(moves[0].to_digest)
    finally:
        reads.close()
        catalog.close()
