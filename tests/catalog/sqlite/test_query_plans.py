"""How SQLite finds rows: by an index, without a walk or a sort."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from sqlalchemy import Select, event, true
from sqlalchemy.dialects import sqlite

from digestry.catalog import tag_history
from digestry.catalog.blob_links import LEASE
from digestry.catalog.catalog import Catalog
from digestry.catalog.retention_rules import TagRetention
from digestry.catalog.schema import journal
from tests.backends import file_of, sqlite_database
from tests.catalog.support import Clock, collected, image, put, rules


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
        (tag_history.last_entry("r", "t", 5), "journal_by_tag (repository=? AND tag=? AND at<?)"),
        (tag_history.pointing("r", "d", true(), 10), "journal_by_digest (repository=? AND to_digest=?)"),
        (tag_history.pointing("r", "d", journal.c.at < 7, 10), "(repository=? AND to_digest=? AND at<?)"),
        (tag_history.tags_at("r", 5, "", 100), "journal_by_tag (repository=? AND tag>?)"),
        (
            "SELECT * FROM journal WHERE repository = 'r' AND at <= 5 ORDER BY at DESC LIMIT 10",
            "journal_by_time (repository=? AND at<?)",
        ),
        (
            "SELECT number, at, hash FROM journal WHERE repository = 'r' ORDER BY number DESC LIMIT 1",
            "sqlite_autoindex_journal_1 (repository=?)",
        ),
        (
            "SELECT repository, number FROM journal WHERE sequence IS NULL ORDER BY at LIMIT 10",
            "journal_by_sequence (sequence=?)",
        ),
        (
            "SELECT number FROM journal WHERE repository = 'r' AND tag = 't' AND from_digest = 'd' LIMIT 1",
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


def test_what_changed_is_found_by_indices(catalog: Catalog) -> None:
    """However many manifests there are."""
    statements: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
        statements.append((statement, parameters))

    event.listen(sqlite_database(catalog)._reading, "before_cursor_execute", note)
    moment = catalog.changes.moment()
    assert catalog.changes.since(moment).known
    found = []
    with sqlite3.connect(file_of(catalog)) as connection:
        for statement, parameters in statements:
            if statement.startswith("SELECT"):
                rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
                found += [str(row[3]) for row in rows]
    connection.close()
    assert any("manifests_by_push (pushed_at>?)" in line for line in found), found
    assert any("manifests_by_deletion (deleted_at>?)" in line for line in found), found
    assert not [line for line in found if line.startswith(("SCAN manifests", "SCAN journal"))]


def test_the_walk_sorts_nothing(catalog: Catalog) -> None:
    """A page of a million links is a look into an index, and not a sort of them all."""
    statements: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        statements.append(statement)

    event.listen(sqlite_database(catalog)._reading, "before_cursor_execute", note)
    catalog.damage.content(after="", limit=10)
    selects = [statement for statement in statements if statement.startswith("SELECT")]
    assert len(selects) == 2
    connection = sqlite3.connect(file_of(catalog))
    for statement in selects:
        count = statement.count("?")
        plan = " / ".join(
            row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", ("x",) * count)
        )
        assert "by_digest" in plan
        assert "TEMP B-TREE" not in plan
    connection.close()


def test_no_question_walks_a_whole_repository(catalog: Catalog, later: Clock) -> None:
    """Each inner question is answered by an index that has the digest in it."""
    put(catalog, "x", image(catalog, "x"), "t")
    put(catalog, "x", image(catalog, "x"))
    later.now += LEASE + 1
    seen: list[str] = []

    def explain(connection: object, cursor: object, statement: str, parameters: object, *_: object) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")) and "EXISTS" in statement:
            plain = cursor.connection.cursor()  # type: ignore[attr-defined]
            plain.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            seen.extend(row[3] for row in plain.fetchall())

    for engine in (sqlite_database(catalog)._reading, sqlite_database(catalog)._writing):
        event.listen(engine, "before_cursor_execute", explain)
    collected(catalog, rules(TagRetention(newest=0, tags=("none",))))
    assert any("manifest_references_by_child (repository_id=? AND child=?" in line for line in seen)
    inner = [line for line in seen if "manifest_references" in line]
    assert all("child=?" in line or "parent=?" in line for line in inner), inner
    attached = [line for line in seen if " image " in line]
    assert any("digest>?" in line and "digest<?" in line for line in attached), attached
    # What refers to a layer is rare, and asks for that layer in each repository.
    scanned = {line for line in seen if line.startswith("SCAN")} - {"SCAN repositories"}
    assert not scanned, seen


def test_the_history_of_a_time_begins_there(catalog: Catalog) -> None:
    """Time bounds become places in the journal: nothing is read only to be passed over."""
    found = plan(
        catalog,
        "SELECT * FROM journal WHERE repository = 'r' AND tag = 't' AND at <= 5 AND at > 2"
        " ORDER BY at DESC LIMIT 10",
    )
    assert "journal_by_tag (repository=? AND tag=? AND at>? AND at<?)" in found
    assert "TEMP B-TREE" not in found
