"""A catalog that the version before wrote is opened, brought up to date, and its journal proves right.

``catalog-0007.sql`` is the dump of such a one, of schema 0007: two repositories, a tag that moved, one that
was deleted, an index, a sighting, a job, damaged content.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from digestry.backend import Backend, open_backend
from digestry.catalog.catalog import Catalog
from digestry.catalog.journal_export import verify_lines
from digestry.catalog.schema_version import newest_schema
from digestry.errors import StorageError
from digestry.model.digest import Digest
from digestry.registry.config import RegistryConfig
from digestry.registry.server import prepare
from tests.backends import BlockingReads, file_of, open_blobs
from tests.catalog.raw import SqliteRaw
from tests.catalog.support import ORIGIN, pushed
from tests.stores import needs_disk

DUMP = Path(__file__).with_name("catalog-0007.sql")
LAYERS = (b"bad layer", b"good layer", b"app layer")


@pytest.fixture
def older(tmp_path: Path) -> Backend:
    """A registry whose catalog is of the schema before, and some of its blobs."""
    with closing(sqlite3.connect(tmp_path / "catalog.db")) as connection:
        connection.executescript(DUMP.read_text(encoding="utf-8"))
    blobs = open_blobs(needs_disk(tmp_path))
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


# -- the journal's chains ------------------------------------------------------------------------


@pytest.fixture
def grown(older: Backend) -> Iterator[Catalog]:
    """The same catalog, brought up to date; its six entries have four new ones after them."""
    catalog = older.open_catalog()
    catalog.migrate()
    for name in ("team/app", "new", "team/app"):
        pushed(catalog, name, ["v2"])
    catalog.delete_tag("golftrack", "1.5", origin=ORIGIN)
    yield catalog
    catalog.close()


def test_new_chains_begin_at_the_end_of_the_old_one(older: Backend, grown: Catalog) -> None:
    lines = [json.loads(line) for line in older.catalog_store.export_journal()]
    assert [line.get("number") for line in lines] == [None] * 6 + [1, 1, 2, 1]
    assert [line["sequence"] for line in lines] == list(range(1, 11))
    assert [line["previousHash"] for line in lines[6:]] == [
        lines[5]["hash"], lines[5]["hash"], lines[6]["hash"], lines[5]["hash"]
    ]  # fmt: skip
    times = [move.at for move in reversed(grown.journal("golftrack", limit=10))]
    assert times == sorted(set(times))
    moves = grown.journal("golftrack", tag="1.5", limit=10)
    assert [move.event for move in moves] == ["deleted", "moved", "created"]
    assert [move.number for move in moves] == [1, None, None]


def test_both_chains_are_proved(older: Backend, grown: Catalog) -> None:
    lines = list(older.catalog_store.export_journal())
    hashes = [json.loads(line)["hash"] for line in lines]
    whole = hashes[5]
    for one in hashes[6:]:
        whole = hashlib.sha256((whole + one).encode()).hexdigest()
    found = older.catalog_store.verify_journal((*hashes, whole))
    assert (found.entries, found.broken, found.absent, found.last_hash) == (10, None, (), whole)
    assert verify_lines(lines, (*hashes, whole)) == found
    # A part that begins in the old chain knows what was before it.
    part = verify_lines(lines[2:], (hashes[1],))
    assert (part.entries, part.first, part.anchor, part.last_hash) == (8, 3, hashes[1], whole)
    assert verify_lines(lines[:8]).entries == 8
    assert verify_lines(lines[7:]).broken is None


def test_the_old_entries_are_exported_as_before(older: Backend, tmp_path: Path) -> None:
    before = list(older.catalog_store.export_journal())
    prepare(RegistryConfig(tmp_path))
    assert list(older.catalog_store.export_journal()) == before


@pytest.mark.parametrize("grow", [False, True])
@pytest.mark.parametrize(
    ("edit", "broken"),
    [
        ("UPDATE journal SET actor = 'somebody' WHERE sequence = 2", 2),
        ("UPDATE journal SET hash = previous_hash WHERE sequence = 6", 6),
        ("UPDATE journal SET at = at + 1 WHERE sequence = 4", 4),
        ("UPDATE journal SET number = number - 100 WHERE sequence = 4", 4),
        ("UPDATE journal SET number = 7 WHERE sequence = 3", 3),
        ("UPDATE journal SET number = number - 1 WHERE sequence < 7", None),
        ("DELETE FROM journal WHERE sequence = 1", 1),
        ("DELETE FROM journal WHERE sequence = 3", 3),
        ("DELETE FROM journal WHERE sequence = 6", 6),
        ("DELETE FROM journal WHERE sequence BETWEEN 4 AND 6", 4),
        ("DELETE FROM journal WHERE number < 1", 1),
    ],
)
def test_a_changed_old_chain_is_found(
    older: Backend, grow: bool, edit: str, broken: int | None, tmp_path: Path
) -> None:
    catalog = older.open_catalog()
    catalog.migrate()
    if grow:
        pushed(catalog, "new")
        pushed(catalog, "golftrack", ["v2"])
    SqliteRaw(tmp_path).edit("DELETE FROM tags WHERE name = 'never'", edit)
    found = catalog.verify_journal()
    assert found is not None
    if broken is not None and not (broken == 1 and not grow):
        assert found.sequence == broken
    catalog.close()


def test_the_end_of_the_old_chain_cannot_be_cut(older: Backend, grown: Catalog, tmp_path: Path) -> None:
    """Although what follows is moved up, and the tags are made to fit."""
    SqliteRaw(tmp_path).edit(
        "DELETE FROM journal WHERE sequence = 6",
        "UPDATE journal SET number = number - 1000 WHERE number < 1",
        "UPDATE journal SET number = number + 1001 WHERE number < 1",
        "UPDATE journal SET sequence = sequence - 1 WHERE sequence > 6",
    )
    found = grown.verify_journal()
    assert found is not None
    assert (found.sequence, found.reason) == (6, "it does not follow the entry before it")


def test_a_journal_that_was_broken_is_brought_up_to_date_all_the_same(older: Backend, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "catalog.db")) as connection, connection:
        connection.execute("DROP TRIGGER journal_no_update")
        connection.execute("DROP TRIGGER journal_no_delete")
        connection.execute("UPDATE journal SET at = 5, repository = 'golftrack'")
        connection.execute("DELETE FROM journal WHERE sequence IN (1, 6)")
    before = older.catalog_store.verify_journal()
    assert before.broken is not None
    prepare(RegistryConfig(tmp_path))
    after = older.catalog_store.verify_journal()
    assert after == before
    catalog = older.open_catalog()
    pushed(catalog, "golftrack", ["v2"])
    assert catalog.journal("golftrack", limit=1)[0].number == 1
    catalog.close()
