"""The database: its schema, its settings, its errors."""

from __future__ import annotations

import os
import pwd
import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import event, text

from digestry.backend import open_backend
from digestry.catalog.catalog import Catalog
from digestry.catalog.schema import FLEET_TABLES, OBSERVATION_TABLES
from digestry.catalog.sqlite import database
from digestry.catalog.sqlite.connection import connect_directly
from digestry.catalog.sqlite.database import SqliteDatabase
from digestry.errors import StorageError
from digestry.model.digest import Digest
from tests.backends import BlockingReads, file_of, open_catalog
from tests.catalog.support import ORIGIN, image, pushed
from tests.crash.checks import check_usage


def test_migrating_again_changes_nothing(catalog: Catalog) -> None:
    manifest = pushed(catalog, "x")
    with sqlite3.connect(file_of(catalog)) as connection:
        before = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
    catalog.migrate()
    with sqlite3.connect(file_of(catalog)) as connection:
        assert (
            connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall() == before
        )
    connection.close()
    assert catalog.manifest("x", manifest.digest) is not None


def test_settings(catalog: Catalog) -> None:
    database = SqliteDatabase(file_of(catalog).parent)
    for transaction, query_only in ((database.write, 0), (database.read, 1)):
        with transaction() as connection:
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
            assert connection.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL
            assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
            assert connection.execute(text("PRAGMA query_only")).scalar() == query_only
    database.close()


def test_who_may_not_write_is_told_why(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions do not bind root, so that they are told here."""
    database = SqliteDatabase(file_of(catalog).parent)

    def hint() -> str:
        with pytest.raises(StorageError) as caught, database.read() as connection:
            connection.execute(text("DELETE FROM uploads"))
        return caught.value.hint

    writable = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != file_of(catalog) and writable(path, mode))
    assert hint() == f"{file_of(catalog)} is write-protected (chmod u+w)"
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam("nobody").pw_uid)
    owner = pwd.getpwuid(os.getuid()).pw_name
    assert hint() == f"{file_of(catalog)} belongs to user {owner}, this is nobody: call it as that user"
    mounted = os.statvfs(file_of(catalog).parent)
    fields = (*mounted[:8], mounted.f_flag | os.ST_RDONLY, *mounted[9:], 0)
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(fields))
    assert hint() == f"the file system of {file_of(catalog).parent} is mounted read-only"
    database.close()


def test_a_reader_cannot_write(catalog: Catalog) -> None:
    database = SqliteDatabase(file_of(catalog).parent)
    with pytest.raises(StorageError, match="cannot write the catalog"), database.read() as connection:
        connection.execute(text("DELETE FROM uploads"))
    database.close()
    reads = connect_directly(file_of(catalog))
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reads.execute("DELETE FROM uploads")
    reads.close()


def test_a_transaction_that_fails_leaves_nothing(catalog: Catalog) -> None:
    database = SqliteDatabase(file_of(catalog).parent)

    def half() -> None:
        with database.write() as connection:
            connection.execute(text("INSERT INTO repositories (name, created_at) VALUES ('half', 1)"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert not catalog.has_repository("half")
    catalog.add_blob("whole", Digest.of(b""), 0)  # and the writer's turn is free again
    database.close()


def test_a_reader_sees_one_state(catalog: Catalog) -> None:
    database = SqliteDatabase(file_of(catalog).parent)
    with database.read() as connection:
        count = text("SELECT count(*) FROM repositories")
        assert connection.execute(count).scalar() == 0
        pushed(catalog, "meanwhile")
        assert connection.execute(count).scalar() == 0
    with database.read() as connection:
        assert connection.execute(count).scalar() == 1
    database.close()


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 8000])
def test_garbage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "catalog.db").write_bytes(content)
    catalog = open_catalog(tmp_path)
    for call in (catalog.migrate, catalog.upload_ids, catalog.verify_journal):
        with pytest.raises(StorageError, match=str(tmp_path)) as caught:
            call()
        assert "backup" in caught.value.hint
    catalog.close()


def test_garbage_in_the_middle(catalog: Catalog) -> None:
    for number in range(50):
        pushed(catalog, f"x{number}")
    catalog.close()
    with sqlite3.connect(file_of(catalog)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    size = file_of(catalog).stat().st_size
    with file_of(catalog).open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(size - 8192))
    again = open_catalog(file_of(catalog).parent)
    with pytest.raises(StorageError) as caught:
        again.verify_journal()
    assert "backup" in caught.value.hint
    again.close()


def test_a_row_that_is_damaged_is_not_the_callers_fault(catalog: Catalog) -> None:
    manifest = pushed(catalog, "x")
    with sqlite3.connect(file_of(catalog)) as connection:
        connection.execute("UPDATE tags SET digest = 'sha256:nonsense'")
    connection.close()
    with pytest.raises(StorageError) as caught:
        catalog.tags("x")
    assert "backup" in caught.value.hint
    assert catalog.manifest("x", manifest.digest) is not None


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        open_backend(tmp_path).open_reads()
    catalog = open_catalog(tmp_path / "no-such-directory")
    with pytest.raises(StorageError, match="cannot open the catalog") as caught:
        catalog.upload_ids()
    assert caught.value.hint == f"there is no directory {tmp_path / 'no-such-directory'}"
    catalog.close()


def test_a_path_that_would_be_read_as_an_address(tmp_path: Path) -> None:
    root = tmp_path / "a?mode=memory&x=#y%41"
    root.mkdir()
    catalog = open_catalog(root)
    catalog.migrate()
    manifest = pushed(catalog, "x")
    reads = BlockingReads(open_backend(file_of(catalog).parent))
    found = reads.manifest("x", "t")
    assert found is not None
    assert found.digest == str(manifest.digest)
    assert (root / "catalog.db").stat().st_size > 0
    reads.close()
    catalog.close()


def test_writers_in_many_threads_all_get_their_turn(catalog: Catalog) -> None:
    failures: list[BaseException] = []

    def push(number: int) -> None:
        try:
            for _ in range(5):
                catalog.put_manifest(
                    f"x{number}", image(catalog, f"x{number}"), tag_names=["t"], origin=ORIGIN
                )
        except BaseException as error:  # noqa: BLE001 - told in the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(catalog.repositories(limit=100)) == 10
    assert catalog.verify_journal() is None


S3_STORE = (
    "blob_objects",
    "quarantined_objects",
    "blob_ingest_parts",
    "blob_ingest_fragments",
    "blob_ingests",
    "object_removals",
)
COORDINATION = ("locks", "shared_guards", "signing_keys", "login_failures", "upstream_limits", "notes")
"""The tables of schema 11."""
PAGES = (*(table.name for table in reversed(FLEET_TABLES)), "web_sessions", "advisory_statements")
"""The tables of schema 14."""
OBSERVATIONS = tuple(table.name for table in reversed(OBSERVATION_TABLES))
"""The tables of schema 15."""


def test_a_catalog_of_before_counted_what_it_held_is_counted(catalog: Catalog) -> None:
    """Schema 5 adds the table; the triggers keep it from then on."""
    manifest = pushed(catalog, "x", ("t", "u"))
    gone = pushed(catalog, "x", ("v",))
    catalog.delete_manifest("x", gone.digest, origin=ORIGIN)
    connection = sqlite3.connect(file_of(catalog))
    before = connection.execute("SELECT bytes, tags FROM usage").fetchall()
    assert before[0][1] == 2
    assert before[0][0] > len(manifest.raw)
    for (name,) in connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name NOT LIKE 'journal%'"
    ).fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute("DROP TABLE sighting_usage")
    connection.execute("DROP INDEX sightings_by_actor")
    connection.execute("DROP INDEX manifests_by_subject_anywhere")
    connection.execute("DROP INDEX manifests_by_push")
    connection.execute("DROP INDEX manifests_by_deletion")
    for table in (
        "usage",
        "identity",
        "transaction_locks",
        "schema_support",
        *COORDINATION,
        *S3_STORE,
        *OBSERVATIONS,
        *PAGES,
    ):
        connection.execute(f"DROP TABLE {table}")
    connection.execute("ALTER TABLE robot_tokens DROP COLUMN place")
    connection.execute("ALTER TABLE deliveries DROP COLUMN document")
    connection.execute("ALTER TABLE uploads DROP COLUMN reserved")
    connection.execute("UPDATE alembic_version SET version_num = '0004'")
    connection.commit()
    catalog.migrate()
    assert connection.execute("SELECT bytes, tags FROM usage").fetchall() == before
    connection.close()
    pushed(catalog, "y")
    check_usage(file_of(catalog).parent)


def test_a_check_lets_others_have_a_turn(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """And ends with whatever is raised there: an interrupt, in the middle of a long one."""
    monkeypatch.setattr(database, "_STEPS", 10)
    pushed(catalog, "x")
    turns: list[int] = []
    catalog._database.check(["links", "manifests"], pause=lambda: turns.append(1))
    assert turns
    with pytest.raises(KeyboardInterrupt):
        catalog._database.check(["links"], pause=_interrupt)
    catalog._database.check(["links"])
    assert catalog.repositories(limit=10) == ["x"]


def _interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("writes", [False, True])
def test_an_exception_that_ends_the_process_costs_the_others_nothing(
    catalog: Catalog, *, writes: bool
) -> None:
    """SQLAlchemy closes the connection whose statement it ends; whoever catches it uses others."""
    database = SqliteDatabase(file_of(catalog).parent)
    transaction = database.write if writes else database.read

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def ended() -> None:
        with transaction() as connection:
            event.listen(connection, "before_cursor_execute", interrupt)
            connection.execute(text("SELECT 1"))

    for _ in range(10):
        with pytest.raises(KeyboardInterrupt):
            ended()
    for _ in range(10):
        with transaction() as connection:
            assert connection.execute(text("SELECT 1")).scalar() == 1
    database.close()
