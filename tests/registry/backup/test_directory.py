"""A backup in a directory: what is in it, what a second one costs, and what comes back."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from digestry.backend import catalog_file
from digestry.catalog.catalog import Catalog
from digestry.catalog.fleet.run_pages import RunFilter
from digestry.catalog.schema_version import newest_schema
from digestry.catalog.sqlite.triggers import TRIGGERS
from digestry.errors import Conflict, ContentError, NotFound, StorageError
from digestry.model.digest import Digest
from digestry.registry.backup import description
from digestry.registry.root import BACKUP_LOCK, RESTORING, check_root
from tests import stores
from tests.backends import open_blobs, open_catalog
from tests.catalog.fleet_support import Agent
from tests.catalog.support import Clock
from tests.registry.backup.support import (
    ORIGIN,
    archive,
    back_up,
    blob_files,
    damaged,
    note_damaged,
    push,
    restore,
    tags,
    tree,
)


def blob_file(root: Path, content: bytes) -> Path:
    """The file of a blob under ``root``, a registry's or a backup's."""
    digest = Digest.of(content)
    if not (root / BACKUP_LOCK).exists():
        return stores.blob_file(root, digest)
    return root / "blobs" / digest.algorithm / digest.encoded


def test_what_was_backed_up_comes_back(root: Path, tmp_path: Path) -> None:
    taken = back_up(root, tmp_path / "backup")
    restored = restore(tmp_path / "backup", tmp_path / "again")
    assert taken.description.blobs == restored.blobs == len(blob_files(root)) == 12
    assert restored.missing == []
    assert blob_files(tmp_path / "again") == blob_files(root)
    assert tags(tmp_path / "again") == tags(root)
    old, new = open_catalog(root), open_catalog(tmp_path / "again")
    assert new.journal("golftrack", limit=9) == old.journal("golftrack", limit=9)
    assert new.verify_journal() is None
    old.close()
    new.close()
    check_root(tmp_path / "again")


def test_what_agents_reported_comes_back(root: Path, tmp_path: Path) -> None:
    catalog, now = open_catalog(root), Clock()
    agent = Agent(catalog, now)
    agent.send(agent.started("c1", -60), agent.stopped("c1", -30), agent.started("c2", -20))
    agent.confirm(problem="the engine does not answer")
    back_up(root, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "again")
    new = open_catalog(tmp_path / "again")
    asked: tuple[Callable[[Catalog], object], ...] = (
        lambda one: one.fleet.runs(RunFilter(ever=True), now=now.now, limit=9, with_reports=True),
        lambda one: one.fleet.places(now=now.now, limit=9),
        lambda one: one.fleet.summary(now=now.now),
        lambda one: one.fleet.timeline(RunFilter(), now=now.now),
    )
    for ask in asked:
        assert ask(new) == ask(catalog)
    assert new.fleet.runs(RunFilter(ever=True), now=now.now, limit=9).total == 2
    # The agent goes on where it was.
    agent.catalog = new
    assert not agent.send(agent.stopped("c2")).resynchronize
    assert new.fleet.summary(now=now.now).containers == {}
    catalog.close()
    new.close()


def test_keys_come_back_for_their_owner_alone(root: Path, tmp_path: Path) -> None:
    back_up(root, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "again")
    (key,) = (root / "keys").iterdir()
    for place in (tmp_path / "backup", tmp_path / "again"):
        copy = place / "keys" / key.name
        assert copy.read_bytes() == key.read_bytes()
        assert copy.stat().st_mode & 0o777 == 0o600
        assert copy.parent.stat().st_mode & 0o777 == 0o700
    (catalog,) = (tmp_path / "backup").glob("catalog-*.db")
    assert catalog.stat().st_mode & 0o077 == 0


def test_what_is_not_visible_is_not_in_it(root: Path, tmp_path: Path) -> None:
    catalog = open_catalog(root)
    catalog.begin_upload("golftrack", "sha256")
    gone = push(root, "golftrack", "old", b"to be deleted")
    catalog.delete_manifest("golftrack", gone, origin=ORIGIN)
    catalog.delete_blob("golftrack", Digest.of(b"to be deleted"))
    catalog.close()
    open_blobs(root).put(b"nobody's")
    stores.ingest_file(root, "half").write_bytes(b"half")
    (root / "registry.toml").write_text("")
    for log in ("audit.log", "audit.log.1"):
        (root / log).write_text("")
    (root / "kept.json").write_text("{}")  # what a server notes as it starts
    taken = back_up(root, tmp_path / "backup")
    held = blob_files(tmp_path / "backup")
    assert not {str(gone), str(Digest.of(b"nobody's")), str(Digest.of(b"to be deleted"))} & set(held)
    left = dict(taken.left_out)
    assert list(left) == ["audit.log", "audit.log.1", "ingest", "registry.toml"]
    assert left["audit.log"] == left["audit.log.1"] != left["registry.toml"]
    restore(tmp_path / "backup", tmp_path / "again")
    with sqlite3.connect(tmp_path / "again" / "catalog.db") as connection:
        assert connection.execute("SELECT count(*) FROM uploads").fetchone() == (0,)
    connection.close()


def test_a_second_backup_copies_what_is_new_and_removes_what_is_gone(root: Path, tmp_path: Path) -> None:
    destination = tmp_path / "backup"
    first = back_up(root, destination)
    before = tree(destination / "blobs")
    assert first.copied == first.description.blobs
    push(root, "golftrack", "1.6", b"new")
    catalog = open_catalog(root)
    catalog.delete_tag("team/long", "1", origin=ORIGIN)
    old = next(row.digest for row in catalog.tags("golftrack") if row.name == "1.5")
    catalog.delete_manifest("golftrack", old, origin=ORIGIN)
    catalog.close()
    second = back_up(root, destination)
    after = tree(destination / "blobs")
    assert (second.copied, second.kept, second.removed) == (3, 11, 1)
    assert {name for name in before if name not in after} == {f"sha256/{old.encoded}"}
    assert all(after[name] == was for name, was in before.items() if name in after)
    assert len(list(destination.glob("catalog-*.db"))) == 1
    restore(destination, tmp_path / "again")
    assert tags(tmp_path / "again") == tags(root)


def test_keep_leaves_what_is_gone(root: Path, tmp_path: Path) -> None:
    back_up(root, tmp_path / "backup")
    catalog = open_catalog(root)
    old = next(row.digest for row in catalog.tags("golftrack"))
    catalog.delete_manifest("golftrack", old, origin=ORIGIN)
    catalog.close()
    assert back_up(root, tmp_path / "backup", keep=True).removed == 0
    assert str(old) in blob_files(tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "again")
    assert str(old) not in blob_files(tmp_path / "again")


def test_a_key_that_was_retired_goes(root: Path, tmp_path: Path) -> None:
    back_up(root, tmp_path / "backup")
    (key,) = (root / "keys").iterdir()
    key.rename(key.with_name("00000000000000000009-aaaaaaaa.json"))
    back_up(root, tmp_path / "backup")
    assert [path.name for path in (tmp_path / "backup" / "keys").iterdir()] == [
        "00000000000000000009-aaaaaaaa.json"
    ]


@pytest.mark.parametrize("damage", ["gone", "short", "wrong", "a link", "a pipe", "a socket"])
def test_damage_is_told_and_the_rest_is_backed_up(root: Path, tmp_path: Path, damage: str) -> None:
    path = blob_file(root, b"good")
    path.chmod(0o644)
    if damage == "gone":
        path.unlink()
    elif damage == "short":
        path.write_bytes(b"goo")
    elif damage == "wrong":
        path.write_bytes(b"evil")
    elif damage == "a link":
        path.write_bytes(b"evil")
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif damage == "a pipe":
        path.unlink()
        os.mkfifo(path)
    else:
        path.unlink()
        os.mknod(path, stat.S_IFSOCK | 0o644)
    taken = back_up(root, tmp_path / "backup")
    (missing,) = taken.description.missing
    assert taken.findings
    assert missing.digest == str(Digest.of(b"good"))
    assert missing.held_by == ["golftrack:1.5"]
    assert missing.problem
    assert missing.digest not in blob_files(tmp_path / "backup")
    restored = restore(tmp_path / "backup", tmp_path / "again")
    assert restored.missing == [missing]
    assert restored.blobs == 11
    assert tags(tmp_path / "again") == tags(root)
    # Clients that ask are told that it is not there, and send it.
    assert list(damaged(tmp_path / "again")) == [missing.digest]
    assert missing.problem in damaged(tmp_path / "again")[missing.digest]


def test_a_blob_that_was_moved_and_linked_to_is_backed_up(root: Path, tmp_path: Path) -> None:
    path = blob_file(root, b"good")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert not back_up(root, tmp_path / "backup").findings
    copy = blob_file(tmp_path / "backup", b"good")
    assert copy.read_bytes() == b"good"
    assert not copy.is_symlink()


@pytest.mark.parametrize("kind", ["directory", "archive"])
def test_what_came_back_whole_is_served(root: Path, tmp_path: Path, kind: str) -> None:
    for content in (b"good", b"bad"):
        note_damaged(root, Digest.of(content))
    blob_file(root, b"bad").unlink()
    if kind == "archive":
        source: Path | bytes = archive(root)[0]
    else:
        back_up(root, tmp_path / "backup")
        source = tmp_path / "backup"
    restore(source, tmp_path / "again")
    assert list(damaged(tmp_path / "again")) == [str(Digest.of(b"bad"))]


def test_an_earlier_copy_outlives_damage_to_the_registry(root: Path, tmp_path: Path) -> None:
    back_up(root, tmp_path / "backup")
    blob_file(root, b"good").unlink()
    assert not back_up(root, tmp_path / "backup", verify=True).findings
    assert restore(tmp_path / "backup", tmp_path / "again").missing == []


def test_verify_reads_the_backup_again(root: Path, tmp_path: Path) -> None:
    back_up(root, tmp_path / "backup")
    rotten = blob_file(tmp_path / "backup", b"good")
    rotten.write_bytes(b"evil")
    assert back_up(root, tmp_path / "backup").copied == 0
    assert back_up(root, tmp_path / "backup", verify=True).copied == 1
    assert rotten.read_bytes() == b"good"


def test_a_backup_stays_whole_until_the_next_is(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(root, tmp_path / "backup")
    was = tags(root)
    push(root, "golftrack", "1.6", b"new")

    def fails(*_: object, **__: object) -> None:
        raise StorageError("no space")

    with monkeypatch.context() as patched:
        patched.setattr("digestry.registry.backup.taking.fsio.write_file", fails)
        with pytest.raises(StorageError):
            back_up(root, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "before")
    assert tags(tmp_path / "before") == was
    back_up(root, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "after")
    assert tags(tmp_path / "after") == tags(root)
    assert not list((tmp_path / "backup").glob(".backup-*"))


# -- refusals ----------------------------------------------------------------------------------


def test_what_is_no_registry_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    with pytest.raises(NotFound):
        back_up(tmp_path / "root", tmp_path / "backup")
    assert not (tmp_path / "backup").exists()
    assert list((tmp_path / "root").iterdir()) == []


def test_a_directory_with_something_else_is_left_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("mine")
    with pytest.raises(Conflict):
        back_up(root, tmp_path / "mine")
    assert os.listdir(tmp_path / "mine") == ["letter.txt"]  # noqa: PTH208
    for inside in (root, root / "backup", tmp_path):
        with pytest.raises(Conflict):
            back_up(root, inside)


def test_a_backup_of_another_registry_is_left_alone(root: Path, tmp_path: Path) -> None:
    back_up(root, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "other")
    push(root, "golftrack", "1.6", b"new")
    back_up(root, tmp_path / "backup")
    with pytest.raises(Conflict, match="later state"):
        back_up(tmp_path / "other", tmp_path / "backup")
    assert restore(tmp_path / "backup", tmp_path / "again").blobs == 15


def test_a_backup_of_a_newer_digestry_is_not_written_over(root: Path, tmp_path: Path) -> None:
    back_up(root, tmp_path / "backup")
    change_description(tmp_path / "backup", version=2)
    before = tree(tmp_path / "backup")
    with pytest.raises(ContentError, match="newer digestry"):
        back_up(root, tmp_path / "backup")
    assert tree(tmp_path / "backup") == before


def test_a_catalog_of_a_newer_digestry_is_not_guessed_at(root: Path, tmp_path: Path) -> None:
    with sqlite3.connect(root / "catalog.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(Conflict, match="9999") as caught:
        back_up(root, tmp_path / "backup")
    assert "newer" in caught.value.hint
    assert not (tmp_path / "backup" / "backup.json").exists()


def test_an_older_catalog_is_backed_up_as_it_is_and_served_anew(tmp_path: Path) -> None:
    root = tmp_path / "root"
    open_blobs(root).prepare()
    engine = create_engine(f"sqlite:///{root}/catalog.db")
    config = Config()
    config.set_main_option("script_location", "digestry.catalog:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO repositories VALUES (1, 'golftrack', 0)")
        digest = open_blobs(root).put(b"old")
        connection.exec_driver_sql("INSERT INTO links VALUES (1, ?, 3, 0)", (str(digest),))
    engine.dispose()
    assert back_up(root, tmp_path / "backup").description.schema == "0001"
    restore(tmp_path / "backup", tmp_path / "again")
    with catalog_file(tmp_path / "again").open_snapshot() as found:
        assert found.schema == "0001"
    catalog = open_catalog(tmp_path / "again")
    catalog.migrate()
    assert catalog.blob_size("golftrack", digest) == 3
    catalog.close()
    assert open_blobs(tmp_path / "again").read(digest) == b"old"
    with catalog_file(tmp_path / "again").open_snapshot() as found:
        assert found.schema == newest_schema()
    # It had no room to say what is damaged.
    (tmp_path / "backup" / "blobs" / "sha256" / digest.encoded).unlink()
    restore(tmp_path / "backup", tmp_path / "lossy", skip_damaged=True)
    assert list(damaged(tmp_path / "lossy")) == [str(digest)]


def test_the_allowed_triggers_are_those_that_a_catalog_has(root: Path) -> None:
    with sqlite3.connect(root / "catalog.db") as connection:
        found = connection.execute(
            "SELECT sql FROM sqlite_schema WHERE type IN ('trigger', 'view')"
        ).fetchall()
    connection.close()
    assert {text for (text,) in found} == TRIGGERS


def test_a_broken_journal_is_a_finding_and_comes_back_as_it_was(root: Path, tmp_path: Path) -> None:
    with sqlite3.connect(root / "catalog.db") as connection:
        connection.execute("DROP TRIGGER journal_no_update")
        connection.execute("UPDATE journal SET actor = 'somebody' WHERE sequence = 2")
    connection.close()
    taken = back_up(root, tmp_path / "backup")
    assert taken.findings
    assert taken.description.journal.broken is not None
    assert "entry 2" in taken.description.journal.broken
    restored = restore(tmp_path / "backup", tmp_path / "again")
    assert restored.description.journal.entries == 1
    assert tags(tmp_path / "again") == tags(root)


def test_restoring_wants_an_empty_root(root: Path, tmp_path: Path) -> None:
    back_up(root, tmp_path / "backup")
    before = tree(root)
    with pytest.raises(Conflict, match="not empty"):
        restore(tmp_path / "backup", root)
    assert tree(root) == before
    empty = tmp_path / "empty"
    (empty / "lost+found").mkdir(parents=True)  # a file system of its own
    restore(tmp_path / "backup", empty)
    assert tags(empty) == tags(root)


def test_an_unfinished_backup_is_refused(root: Path, tmp_path: Path) -> None:
    back_up(root, tmp_path / "backup")
    (tmp_path / "backup" / "backup.json").unlink()
    with pytest.raises(NotFound, match="complete"):
        restore(tmp_path / "backup", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def change_description(backup: Path, **values: object) -> None:
    told = json.loads((backup / "backup.json").read_bytes())
    (backup / "backup.json").write_text(json.dumps({**told, **values}))


@pytest.mark.parametrize(
    "values",
    [
        {"version": 2},
        {"version": "1"},
        {"blobs": 11},
        {"schema": "0002"},
        {"catalog": {"path": "../../root/catalog.db", "size": 1, "sha256": "00"}},
        {"catalog": {"path": "catalog-0123456789abcdef.db", "size": 1, "sha256": "00"}},
        {"keys": [{"path": "keys/../../../etc/passwd.json", "size": 1, "sha256": "00"}]},
        {"keys": [{"path": "keys/none.json", "size": 1, "sha256": "00"}]},
        {"journal": {"entries": 4, "last_hash": "0" * 64}},
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    root: Path, tmp_path: Path, values: dict[str, object]
) -> None:
    back_up(root, tmp_path / "backup")
    change_description(tmp_path / "backup", **values)
    with pytest.raises(ContentError):
        restore(tmp_path / "backup", tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("name", ["backup.json", "catalog", "keys", "blob"])
def test_a_damaged_backup_is_refused(root: Path, tmp_path: Path, name: str) -> None:
    backup = tmp_path / "backup"
    back_up(root, backup)
    paths = {
        "backup.json": backup / description.FILE,
        "catalog": next(backup.glob("catalog-*.db")),
        "keys": next((backup / "keys").iterdir()),
        "blob": blob_file(backup, b"good"),
    }
    content = bytearray(paths[name].read_bytes())
    content[len(content) // 2] ^= 0x80
    paths[name].write_bytes(content)
    with pytest.raises(ContentError):
        restore(backup, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_skip_damaged_restores_the_rest(root: Path, tmp_path: Path) -> None:
    back_up(root, tmp_path / "backup")
    blob_file(tmp_path / "backup", b"good").write_bytes(b"evil")
    blob_file(tmp_path / "backup", b"bad").unlink()
    restored = restore(tmp_path / "backup", tmp_path / "again", skip_damaged=True)
    assert {missing.digest for missing in restored.missing} == {
        str(Digest.of(b"good")),
        str(Digest.of(b"bad")),
    }
    assert {missing.digest: missing.held_by for missing in restored.missing}[str(Digest.of(b"good"))] == [
        "golftrack:1.5"
    ]
    assert restored.blobs == 10


def test_an_expected_hash_must_be_there(root: Path, tmp_path: Path) -> None:
    end = back_up(root, tmp_path / "backup").description.journal.last_hash
    with pytest.raises(ContentError, match="no entry"):
        restore(tmp_path / "backup", tmp_path / "again", expect=("f" * 64,))
    assert not (tmp_path / "again").exists()
    restore(tmp_path / "backup", tmp_path / "again", expect=(end,))


def test_what_runs_by_itself_is_not_restored(root: Path, tmp_path: Path) -> None:
    with sqlite3.connect(root / "catalog.db") as connection:
        connection.execute("CREATE TRIGGER sly AFTER INSERT ON tags BEGIN DELETE FROM links; END")
    connection.close()
    with pytest.raises(StorageError, match="sly"):
        back_up(root, tmp_path / "backup")


def test_a_restoration_that_was_broken_off_is_not_served_and_begins_again(root: Path, tmp_path: Path) -> None:
    back_up(root, tmp_path / "backup")
    half = tmp_path / "half"
    (half / RESTORING).mkdir(parents=True)
    (half / RESTORING / "catalog.db").write_bytes(b"half")
    shutil.copytree(stores.needs_disk(root) / "blobs", half / "blobs")
    blob_file(half, b"good").write_bytes(b"half")
    with pytest.raises(Conflict, match="not complete"):
        check_root(half)
    restore(tmp_path / "backup", half)
    check_root(half)
    assert blob_files(half) == blob_files(root)


def test_what_no_restoration_made_is_not_cleared_away(root: Path, tmp_path: Path) -> None:
    back_up(root, tmp_path / "backup")
    half = tmp_path / "half"
    (half / RESTORING).mkdir(parents=True)
    (half / "blobs").mkdir()
    (half / "registry.toml").write_text("precious")
    with pytest.raises(Conflict, match=r"registry\.toml"):
        restore(tmp_path / "backup", half)
    assert (half / "registry.toml").read_text() == "precious"
    (half / "registry.toml").unlink()
    restore(tmp_path / "backup", half)
    check_root(half)
