"""The catalog's memory: plans that stay fast, spans at their edges, and proof against changed bytes."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Select
from sqlalchemy.dialects import sqlite

from digestry.backend import open_backend
from digestry.catalog import journal_chain, tag_history
from digestry.catalog.catalog import Catalog
from digestry.catalog.journal_chain import Verdict
from digestry.errors import NotFound
from tests.backends import file_of, sqlite_database
from tests.catalog.support import ORIGIN, Clock, image, pushed, put


def plan(catalog: Catalog, query: Select[Any] | str) -> str:
    """How SQLite would find the rows."""
    if not isinstance(query, str):
        query = str(query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
    with sqlite_database(catalog).read() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all()
    return "\n".join(str(row[-1]) for row in rows)


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (tag_history.last_entry("r", "t", 5), "journal_by_tag (repository=? AND tag=? AND sequence<?)"),
        (tag_history.pointing("r", "d", None, 10), "journal_by_digest (repository=? AND to_digest=?)"),
        (tag_history.pointing("r", "d", 7, 10), "(repository=? AND to_digest=? AND sequence<?)"),
        (tag_history.tags_at("r", 5, "", 100), "journal_by_tag (repository=? AND tag>?)"),
        ("SELECT sequence FROM journal WHERE at <= 5 ORDER BY at DESC LIMIT 1", "journal_by_time (at<?)"),
        (
            "SELECT sequence FROM journal WHERE repository = 'r' AND tag = 't' AND from_digest = 'd' LIMIT 1",
            "journal_by_left_digest (repository=? AND from_digest=? AND tag=?)",
        ),
        (
            "SELECT * FROM deliveries WHERE webhook = 'h' AND dead_at IS NULL AND due_at <= 5",
            "deliveries_by_time (webhook=? AND dead_at=? AND due_at<?)",
        ),
    ],
)
def test_questions_are_answered_from_indices(catalog: Catalog, query: Select[Any] | str, wanted: str) -> None:
    found = plan(catalog, query)
    assert wanted in found
    assert "SCAN journal" not in found
    assert "SCAN entry" not in found
    assert "SCAN later" not in found
    assert "SCAN deliveries" not in found


def test_the_history_of_a_time_begins_there(catalog: Catalog) -> None:
    """Time bounds become places in the journal: nothing is read only to be passed over."""
    found = plan(
        catalog,
        "SELECT * FROM journal WHERE repository = 'r' AND tag = 't' AND sequence <= 5 AND sequence > 2"
        " ORDER BY sequence DESC LIMIT 10",
    )
    assert "journal_by_tag (repository=? AND tag=? AND sequence>? AND sequence<?)" in found
    assert "TEMP B-TREE" not in found


def test_spans_at_their_edges(catalog: Catalog, clock: Clock) -> None:
    first, second = image(catalog, "x"), image(catalog, "x")
    times = []
    for manifest in (first, second, None, first):
        clock.now += 10
        times.append(clock.now)
        if manifest is None:
            catalog.delete_tag("x", "t", origin=ORIGIN)
        else:
            put(catalog, "x", manifest, "t")

    def at(moment: int) -> Any:
        span = catalog.tag_history.tag_at("x", "t", moment)
        return None if span is None else span.digest

    found = [at(time + delta) for time in times for delta in (-1, 0, 1)]
    a, b = first.digest, second.digest
    assert found == [None, a, a, a, b, b, b, None, None, None, a, a]
    assert catalog.tag_history.tag_at("x", "u", times[0]) is None
    assert catalog.tag_history.tag_at("y", "t", times[0]) is None


def test_tags_at_a_time_go_on_past_those_that_were_not_there(catalog: Catalog, clock: Clock) -> None:
    """More names without a tag than are looked at together, and pages of every size."""
    manifest = image(catalog, "x")
    early = [f"{number:04}" for number in range(0, 700, 7)]
    put(catalog, "x", manifest, *early)
    clock.now += 10_000_000
    before = clock.now
    clock.now += 10
    put(catalog, "x", manifest, *(f"{number:04}" for number in range(700)))

    def paged(at: int, limit: int) -> Iterator[str]:
        after = ""
        while page := catalog.tag_history.tags_at("x", at, after=after, limit=limit):
            assert len(page) <= limit
            yield from (span.tag for span in page)
            after = page[-1].tag

    for limit in (3, 100, 1000):
        assert list(paged(before, limit)) == early
    assert len(list(paged(clock.now + 10_000, 150))) == 700
    assert list(paged(1, 10)) == []


# -- proof ----------------------------------------------------------------------------------------

COLUMNS = (
    "sequence", "at", "repository", "tag", "event", "from_digest", "to_digest", "media_type", "size",
    "actor", "address", "client", "previous_hash", "hash",
)  # fmt: skip


@pytest.fixture
def journal(catalog: Catalog) -> Path:
    """The root of a catalog with eight entries, its triggers taken away."""
    for tag in ("a", "b"):
        for _ in range(3):
            pushed(catalog, "x", [tag])
        catalog.delete_tag("x", tag, origin=ORIGIN)
    catalog.close()
    with sqlite3.connect(file_of(catalog)) as connection:
        for action in ("update", "delete"):
            connection.execute(f"DROP TRIGGER journal_no_{action}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return file_of(catalog).parent


def verdict(root: Path, *expect: str) -> Verdict:
    return open_backend(root).catalog_store.verify_journal(expect)


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("sequence", [1, 5, 8])
def test_a_flipped_byte_is_found(journal: Path, column: str, sequence: int) -> None:
    """One bit of one byte, here and there in the value; what is no text any more included."""
    update = f"UPDATE journal SET {column} = ? WHERE sequence = ?"  # noqa: S608
    with sqlite3.connect(journal / "catalog.db", isolation_level=None) as connection:
        query = f"SELECT {column} FROM journal WHERE sequence = ?"  # noqa: S608
        (value,) = connection.execute(query, (sequence,)).fetchone()
        if column == "sequence":
            changed: list[Any] = [value + 100, value + (1 << 40)]
        elif isinstance(value, int):
            changed = [value ^ (1 << bit) for bit in (0, 7, 40)]
        elif value is None:
            changed = ["", "sha256:" + "0" * 64]
        else:
            raw = value.encode()
            changed = [
                raw[:place] + bytes([raw[place] ^ flip]) + raw[place + 1 :]
                for place in range(0, len(raw), max(1, len(raw) // 5))
                for flip in (1, 0x80)
            ]
        for new in changed:
            asked = update.replace("= ?", "= CAST(? AS TEXT)", 1) if isinstance(new, bytes) else update
            connection.execute(asked, (new, sequence))
            found = verdict(journal)
            assert found.broken is not None, (column, new)
            assert found.broken.sequence == sequence, (column, new, found.broken)
            assert found.entries == sequence - 1
            connection.execute(update, (value, new if column == "sequence" else sequence))
        assert verdict(journal).broken is None
    connection.close()


def test_an_index_that_lies_is_found(journal: Path) -> None:
    """The hashes cover the entries; questions are answered from the indices."""
    path = journal / "catalog.db"
    content = path.read_bytes()
    # A tag's name beside its repository's, as only the pages of indices have it; the last one is found.
    place = content.rindex(b"xb")
    assert content[place - 1 : place] != b"b"
    path.write_bytes(content[: place + 1] + b"q" + content[place + 2 :])
    found = verdict(journal)
    assert (found.entries, found.broken is None) == (8, False)


def test_what_was_noted_elsewhere_must_be_there(journal: Path) -> None:
    lines = list(open_backend(journal).catalog_store.export_journal())
    hashes = [json.loads(line)["hash"] for line in lines]
    assert verdict(journal, *hashes) == Verdict(8, hashes[-1])
    assert verdict(journal, "f" * 64, hashes[2]).absent == ("f" * 64,)
    for start, end in itertools.combinations(range(8), 2):
        found = journal_chain.verify_lines(lines[start : end + 1], hashes[start : end + 1])
        assert (found.entries, found.first, found.broken) == (end - start + 1, start + 1, None)
        assert found.anchor == ("0" * 64 if start == 0 else hashes[start - 1])
        assert found.absent == ()
    assert journal_chain.verify_lines([]) == Verdict(0, "0" * 64)


def test_reading_makes_nothing(tmp_path: Path) -> None:
    store = open_backend(tmp_path).catalog_store
    for look in (store.verify_journal, store.check_schema, store.require):
        with pytest.raises(NotFound, match="there is no registry"):
            look()
    assert list(tmp_path.iterdir()) == []
