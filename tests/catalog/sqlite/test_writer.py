"""Writes that are committed as one: each stands or falls by itself, and is told of when the disk has it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import cast

import pytest
from sqlalchemy import Connection, Executable
from sqlalchemy.engine.default import DefaultDialect

from digestry.catalog import push_statements
from digestry.catalog.catalog import Catalog
from digestry.catalog.database import Job, Outcome
from digestry.errors import Conflict, NotFound, StorageBusy, StorageFull
from digestry.model.digest import Digest
from digestry.model.history import TagEvent
from tests.backends import sqlite_database
from tests.catalog.support import ORIGIN, image, pushed
from tests.support import PATIENCE

CONTENTS = [Digest.of(b"%d" % number) for number in range(5)]


def adding(catalog: Catalog, digest: Digest) -> Job:
    return lambda: catalog.add_blob("r", digest, 1)


def there(catalog: Catalog) -> list[Digest]:
    return [digest for digest in CONTENTS if catalog.blob_size("r", digest) is not None]


def counting_commits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ``PRAGMA synchronous`` of each commit of a writer from now on."""
    found: list[int] = []
    real = DefaultDialect.do_commit

    def commit(dialect: DefaultDialect, connection: sqlite3.Connection) -> None:
        if not connection.execute("PRAGMA query_only").fetchone()[0]:
            found.append(connection.execute("PRAGMA synchronous").fetchone()[0])
        real(dialect, connection)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(DefaultDialect, "do_commit", commit)
    return found


def test_jobs_together_are_one_commit(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = counting_commits(monkeypatch)
    outcomes = catalog.group_commit([adding(catalog, digest) for digest in CONTENTS])
    assert outcomes == [Outcome()] * len(CONTENTS)
    assert len(commits) == 1
    assert there(catalog) == CONTENTS


def test_nobody_sees_a_job_before_the_commit_of_all(catalog: Catalog) -> None:
    seen: list[list[Digest]] = []
    jobs = [adding(catalog, CONTENTS[0]), lambda: seen.append(there(catalog)), adding(catalog, CONTENTS[1])]
    catalog.group_commit(jobs)
    assert seen == [[]]
    assert there(catalog) == CONTENTS[:2]


def test_a_job_that_fails_undoes_its_own_part_alone(catalog: Catalog) -> None:
    def half() -> None:
        with sqlite_database(catalog).write() as connection:
            catalog._add(connection, "r", CONTENTS[1], 1)
            raise Conflict("no")

    jobs = [adding(catalog, CONTENTS[0]), half, adding(catalog, CONTENTS[2])]
    first, second, third = catalog.group_commit(jobs)
    assert (first, third) == (Outcome(), Outcome())
    assert isinstance(second.error, Conflict)
    assert there(catalog) == [CONTENTS[0], CONTENTS[2]]


def test_what_a_job_had_committed_before_it_failed_stays(catalog: Catalog) -> None:
    def two_steps() -> None:
        catalog.add_blob("r", CONTENTS[0], 1)
        catalog.delete_blob("r", CONTENTS[1])

    (outcome, _) = catalog.group_commit([two_steps, adding(catalog, CONTENTS[2])])
    assert isinstance(outcome.error, NotFound)
    assert there(catalog) == [CONTENTS[0], CONTENTS[2]]


def test_each_move_of_one_tag_has_its_entry_after_the_one_before(catalog: Catalog) -> None:
    manifests = [image(catalog, "r", b"%d" % number) for number in range(4)]

    def put(number: int) -> Job:
        return lambda: catalog.put_manifest("r", manifests[number], tag_names=["t"], origin=ORIGIN)

    outcomes = catalog.group_commit([put(number) for number in range(4)])
    assert [outcome.error for outcome in outcomes] == [None] * 4
    moves = [event for outcome in outcomes for event in cast("list[TagEvent]", outcome.value)]
    assert [move.to_digest for move in moves] == [manifest.digest for manifest in manifests]
    assert [move.from_digest for move in moves] == [None, *(manifest.digest for manifest in manifests[:-1])]


def failing_commits(monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], bool]) -> None:
    """Has the commits of writers fail whose number ``fails`` says so of, as on a full disk."""
    count = iter(range(1000))
    real = DefaultDialect.do_commit

    def commit(dialect: DefaultDialect, connection: sqlite3.Connection) -> None:
        if not connection.execute("PRAGMA query_only").fetchone()[0] and fails(next(count)):
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        real(dialect, connection)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(DefaultDialect, "do_commit", commit)


def test_if_their_commit_fails_each_is_tried_alone(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        failing_commits(patched, lambda number: number in {0, 2})
        first, second, third = catalog.group_commit([adding(catalog, digest) for digest in CONTENTS[:3]])
    assert (first, third) == (Outcome(), Outcome())
    assert isinstance(second.error, StorageFull)
    assert there(catalog) == [CONTENTS[0], CONTENTS[2]]
    assert catalog.group_commit([adding(catalog, digest) for digest in CONTENTS]) == [Outcome()] * 5


@pytest.mark.long
def test_a_job_that_fills_the_disk_takes_no_other_with_it(catalog: Catalog) -> None:
    catalog.group_commit([adding(catalog, digest) for digest in CONTENTS[:1]])
    bare = sqlite_database(catalog)._writer._opened().bare
    used = bare.execute("PRAGMA page_count").fetchone()[0]

    def large() -> None:
        for number in range(2000):
            catalog.add_blob(f"r/{number}", CONTENTS[4], 1)

    bare.execute(f"PRAGMA max_page_count={used + 20}")
    before, filled, after = catalog.group_commit(
        [adding(catalog, CONTENTS[1]), large, adding(catalog, CONTENTS[2])]
    )
    bare.execute("PRAGMA max_page_count=1000000")
    assert isinstance(filled.error, StorageFull)
    assert before == Outcome()
    assert isinstance(after.error, StorageFull) or after == Outcome()
    assert there(catalog) == CONTENTS[: 3 if after.error is None else 2]
    assert catalog.group_commit([adding(catalog, digest) for digest in CONTENTS]) == [Outcome()] * 5


def test_each_is_told_that_another_process_has_the_catalog(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = sqlite_database(catalog)._write_queue
    monkeypatch.setattr(type(queue), "pass_through", lambda *_, **__: False)
    outcomes = catalog.group_commit([adding(catalog, digest) for digest in CONTENTS])
    assert [type(outcome.error) for outcome in outcomes] == [StorageBusy] * 5


def test_volatile_writes_do_not_wait_for_the_disk_and_durable_ones_do(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = counting_commits(monkeypatch)
    normal, full = 1, 2
    upload = catalog.begin_upload("r", "sha256")
    catalog.advance_upload(upload, 3, None)
    assert commits == [normal, normal]
    catalog.end_upload(upload.id)
    assert commits == [normal, normal, full]
    begin = [lambda: catalog.begin_upload("r", "sha256")] * 3
    assert all(outcome.error is None for outcome in catalog.group_commit(begin, durable=False))
    catalog.add_blob("r", CONTENTS[0], 1)
    assert commits == [normal, normal, full, normal, full]


def test_a_durable_write_is_not_hidden_among_volatile_ones(catalog: Catalog) -> None:
    outcomes = catalog.group_commit([adding(catalog, digest) for digest in CONTENTS[:2]], durable=False)
    assert [type(outcome.error) for outcome in outcomes] == [RuntimeError] * 2
    assert there(catalog) == []


def test_others_write_while_jobs_are_done_and_after_them(catalog: Catalog) -> None:
    """Another thread's transaction is its own, before or after that of the group."""
    began = threading.Event()

    def write() -> None:
        began.set()
        catalog.add_blob("r", CONTENTS[4], 1)

    other = threading.Thread(target=write)

    def start_other() -> None:
        other.start()
        assert began.wait(PATIENCE)

    catalog.group_commit([adding(catalog, CONTENTS[0]), start_other, adding(catalog, CONTENTS[1])])
    other.join(PATIENCE)
    assert there(catalog) == [CONTENTS[0], CONTENTS[1], CONTENTS[4]]


def test_a_frequent_statement_is_the_same_by_both_ways(catalog: Catalog) -> None:
    """What the driver runs returns what SQLAlchemy would."""
    manifest = pushed(catalog, "r").digest
    with sqlite_database(catalog).read() as connection:
        for statement, values in _statements(str(manifest)):
            quick = connection.execute(statement, values)
            plain = Connection.execute(connection, statement, values)
            assert quick.all() == plain.all()


def _statements(digest: str) -> list[tuple[Executable, dict[str, object]]]:
    row = {"repository": 1}
    return [
        (push_statements.REPOSITORY_ID, {"name": "r"}),
        (push_statements.MANIFEST, {**row, "digest": digest}),
        (push_statements.POINTED, {**row, "tag": "t"}),
        (push_statements.HAVE_MANIFESTS, {**row, "digests": [digest, "sha256:none"]}),
        (push_statements.HAVE_MANIFESTS, {**row, "digests": []}),
        (push_statements.LAST_ENTRY, {"repository": "r"}),
    ]
