"""The log of a catalog that is written to without a pause: it is copied into the file beside the commits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from digestry.catalog.sqlite.database import FILE, SqliteDatabase
from tests.support import wait_until

_PAGE = 4096


@pytest.fixture
def database(tmp_path: Path) -> Iterator[SqliteDatabase]:
    database = SqliteDatabase(tmp_path)
    database.migrate()
    with database.write() as connection:
        connection.execute(text("CREATE TABLE filler (number INTEGER PRIMARY KEY, content BLOB)"))
    yield database
    database.close()


def _fill(database: SqliteDatabase, commits: int, pages: int = 40) -> None:
    for _ in range(commits):
        with database.write(durable=False) as connection:
            content = bytes(pages * _PAGE)
            connection.execute(text("INSERT INTO filler (content) VALUES (:content)"), {"content": content})


def test_a_checkpoint_is_done_although_no_commit_does_one(database: SqliteDatabase, tmp_path: Path) -> None:
    """The content is found in the file itself, where a commit would have put it only after 128 MB."""
    _fill(database, 60)  # 10 MB
    wait_until(
        lambda: (tmp_path / FILE).stat().st_size > 12 * 40 * _PAGE, what="the first 12 are in the file"
    )


def test_a_log_that_grew_begins_anew(database: SqliteDatabase, tmp_path: Path) -> None:
    log = tmp_path / f"{FILE}-wal"

    def grows_no_more() -> bool:
        before = log.stat().st_size
        _fill(database, 30)
        return log.stat().st_size <= before

    _fill(database, 400)  # 65 MB
    wait_until(grows_no_more, what="the log begins anew")
    assert log.stat().st_size < 128 << 20


def test_a_reader_of_the_log_is_waited_for_and_writers_go_on(
    database: SqliteDatabase, tmp_path: Path
) -> None:
    with database.read() as reader:
        before = reader.execute(text("SELECT count(*) FROM filler")).scalar()
        _fill(database, 150)
        assert reader.execute(text("SELECT count(*) FROM filler")).scalar() == before
    with database.read() as reader:
        assert reader.execute(text("SELECT count(*) FROM filler")).scalar() == 150
    _fill(database, 30)
    wait_until(lambda: (tmp_path / FILE).stat().st_size > 150 * 40 * _PAGE, what="the file has it all")


def test_commits_go_on_after_the_database_was_closed(database: SqliteDatabase, tmp_path: Path) -> None:
    _fill(database, 30)
    database.close()
    assert not (tmp_path / f"{FILE}-wal").exists()  # no connection of the thread is left
    _fill(database, 30)
    with database.read() as reader:
        assert reader.execute(text("SELECT count(*) FROM filler")).scalar() == 60
