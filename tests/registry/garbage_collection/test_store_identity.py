"""The catalog and the blobs beside it are of one registry: what else is there, nothing is removed by."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.command import upgrade
from alembic.config import Config
from sqlalchemy import create_engine

from digestry.backend import open_backend
from digestry.blobs.protocols import StoreMark
from digestry.catalog.registry_identity import RegistryIdentities
from digestry.catalog.schema_version import newest_schema
from digestry.catalog.sqlite.store import SqliteStore
from digestry.errors import Conflict
from digestry.model.digest import Digest
from digestry.registry import store_identity
from digestry.registry.config import RegistryConfig
from digestry.registry.server import prepare
from tests.backends import collect, dry_run, open_blobs, open_catalog
from tests.registry.backup.support import back_up, push, restore
from tests.registry.garbage_collection.support import gathered
from tests.stores import digests, needs_disk
from tests.support import run_digestry


def made(root: Path, images: int = 3) -> Path:
    """The root of a registry that was served once, with images."""
    prepare(RegistryConfig(root))
    for number in range(images):
        push(root, "x", f"t{number}", b"%d of %d" % (number, len(str(root))))
    with closing(sqlite3.connect(root / "catalog.db")) as connection, connection:
        connection.execute("UPDATE leases SET expires_at = 0")
    return root


def files(root: Path) -> set[Digest]:
    return digests(root)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_digestry(*arguments, timeout=60)


def other(root: Path, tmp_path: Path) -> None:
    needs_disk(root)  # what is in other stores, the catalog says itself
    shutil.copy(made(tmp_path / "other", 0) / "catalog.db", root / "catalog.db")


def older(root: Path, _: Path) -> None:
    needs_disk(root)
    copy = root.with_name("copy.db")
    with closing(sqlite3.connect(root / "catalog.db")) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    prepare(RegistryConfig(root))  # served again, and more is pushed
    push(root, "x", "newer", b"newer")
    shutil.move(copy, root / "catalog.db")


def mark_file(root: Path) -> Path:
    needs_disk(root)
    return Path(open_blobs(root).mark_location)


def of_before(root: Path, tmp_path: Path) -> None:
    """Another registry's, from before there were IDs, that was brought up to date."""
    other(root, tmp_path)
    with closing(sqlite3.connect(root / "catalog.db")) as connection, connection:
        connection.execute("UPDATE identity SET bound = 0")
    mark_file(root).unlink()


def blobs_of_another(root: Path, tmp_path: Path) -> None:
    shutil.rmtree(needs_disk(root) / "blobs")
    shutil.copytree(made(tmp_path / "another") / "blobs", root / "blobs")


def mark_lost(root: Path, _: Path) -> None:
    mark_file(root).unlink()


def damaged_mark(root: Path, _: Path) -> None:
    mark_file(root).write_text("nothing of the kind")


WRONG: dict[str, Callable[[Path, Path], None]] = {
    "another registry's": other,
    "older": older,
    "another's, from before there were IDs": of_before,
    "blobs of another": blobs_of_another,
    "no mark": mark_lost,
    "damaged mark": damaged_mark,
}


@pytest.mark.long
@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_nothing_is_removed_or_served(
    tmp_path: Path, change: Callable[[Path, Path], None], request: pytest.FixtureRequest
) -> None:
    root = made(tmp_path / "root")
    for leftover in root.glob("catalog.db-*"):
        leftover.unlink()
    change(root, tmp_path)
    before = files(root)
    assert len(before) >= 9
    for arguments in (
        ("gc", "--root", root),
        ("gc", "--dry-run", "--root", root),
        ("gc", "--really-remove-most", "--root", root),
        ("scrub", "--root", root),
        ("serve", "--listen", "127.0.0.1:0", "--root", root),
    ):
        found = run(*arguments)
        # A scrub removes nothing, and looks at a registry from before there were IDs as it is.
        may = {0, 2, 6} if arguments[0] == "scrub" and change is of_before else {2, 6}
        assert found.returncode in may, (arguments, found.stderr)
        assert "Traceback" not in found.stderr
        assert files(root) == before


@pytest.mark.parametrize("change", [other, older, blobs_of_another])
def test_what_belongs_together_all_the_same_can_be_said_to(
    tmp_path: Path, change: Callable[[Path, Path], None]
) -> None:
    root = made(tmp_path / "root")
    change(root, tmp_path)
    refused = run("gc", "--root", root)
    words = refused.stderr.partition("write '")[2].partition("'")[0]
    mark_file(root).write_text(words)
    assert run("gc", "--dry-run", "--root", root).returncode == 0


@pytest.mark.long
def test_a_backup_is_not_overwritten_by_one_of_another_registry(tmp_path: Path) -> None:
    root, backup = needs_disk(made(tmp_path / "root")), tmp_path / "backup"
    back_up(root, backup)
    before = files(backup)
    another = made(tmp_path / "another", 0)  # without a journal that could tell
    with pytest.raises(Conflict):
        back_up(another, backup)
    other(root, tmp_path)
    with pytest.raises(Conflict):
        back_up(root, backup)
    assert files(backup) == before


def test_a_backup_keeps_the_identity(tmp_path: Path) -> None:
    root = needs_disk(made(tmp_path / "root"))
    back_up(root, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "again")
    assert open_blobs(tmp_path / "again").mark() == open_blobs(root).mark()
    prepare(RegistryConfig(tmp_path / "again"))
    assert not gathered(collect, RegistryConfig(tmp_path / "again"))


def of_schema(path: Path, schema: str) -> Path:
    """Make an empty catalog of an older schema."""
    config = Config()
    config.set_main_option("script_location", "digestry.catalog:migrations")
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        upgrade(config, schema)
    engine.dispose()
    return path


def take_over(old: Path, new: Path) -> None:
    """Fill a catalog of an older schema with the rows of a newer one, as far as it has the columns."""
    with closing(sqlite3.connect(old)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("ATTACH ? AS new", (str(new),))
        columns: dict[str, list[str]] = {}
        for table, column in connection.execute(
            "SELECT t.name, o.name FROM sqlite_schema t, pragma_table_info(t.name) o,"
            " pragma_table_info(t.name, 'new') n WHERE t.type = 'table' AND o.name = n.name"
        ):
            columns.setdefault(table, []).append(column)
        for table in columns.keys() - {"alembic_version", "journal", "usage"}:  # a trigger fills that
            names = ", ".join(f'"{column}"' for column in columns[table])
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of a schema
            connection.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM new.{table}")  # noqa: S608


@pytest.mark.long
def test_a_registry_of_before_gets_an_identity_once(tmp_path: Path) -> None:
    root = made(tmp_path / "root")
    older = of_schema(tmp_path / "older.db", "0006")
    take_over(older, root / "catalog.db")
    for path in root.glob("catalog.db*"):
        path.unlink()
    shutil.move(older, root / "catalog.db")
    mark_file(root).unlink()
    for command in (("gc", "--root", root), ("gc", "--dry-run", "--root", root), ("scrub", "--root", root)):
        refused = run(*command)
        assert refused.returncode == 6
        assert "digestry serve brings it up to date" in refused.stderr
    before = files(root)
    prepare(RegistryConfig(root))
    mark = open_blobs(root).mark()
    assert mark is not None
    prepare(RegistryConfig(root))
    again = open_blobs(root).mark()
    assert again is not None
    assert again.id == mark.id
    assert again.generation > mark.generation
    assert run("gc", "--root", root).returncode == 0
    assert files(root) == before


@pytest.fixture
def commands(tmp_path: Path) -> list[tuple[str | Path, ...]]:
    root = needs_disk(made(tmp_path / "root"))  # what else is stored, a catalog says that can be read
    return [
        ("gc", "--root", root),
        ("gc", "--dry-run", "--root", root),
        ("scrub", "--root", root),
        ("scrub", "--list", "--root", root),
        ("journal", "verify", "--root", root),
        ("journal", "export", "--root", root),
        ("webhook", "list", "--root", root),
        ("token", "list", "--root", root),
        ("backup", "--root", root, tmp_path / "backup"),
        ("serve", "--listen", "127.0.0.1:0", "--root", root),
    ]


@pytest.mark.long
def test_every_command_refuses_what_a_newer_digestry_changed(
    tmp_path: Path, commands: list[tuple[str | Path, ...]]
) -> None:
    root = tmp_path / "root"
    with closing(sqlite3.connect(root / "catalog.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("UPDATE schema_support SET oldest = '9998'")
    before = files(root)
    for command in commands:
        found = run(*command)
        assert found.returncode in {2, 6}, (command, found)
        assert "9999" in found.stderr, (command, found.stderr)
        assert files(root) == before


@pytest.mark.long
def test_a_catalog_that_is_none_is_said_to_be(tmp_path: Path, commands: list[tuple[str | Path, ...]]) -> None:
    root = tmp_path / "root"
    before = files(root)
    for path in root.glob("catalog.db*"):
        path.unlink()
    (root / "catalog.db").touch()
    for command in commands:
        found = run(*command)
        assert found.returncode not in {0, 70}, (command, found)
        assert "Traceback" not in found.stderr
        assert files(root) == before


def test_the_newest_schema_is_that_of_a_new_catalog(tmp_path: Path) -> None:
    made(tmp_path / "root", 0)
    with closing(sqlite3.connect(tmp_path / "root" / "catalog.db")) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [
            (newest_schema(),)
        ]


def test_a_start_that_was_killed_between_the_two_goes_on(tmp_path: Path) -> None:
    catalog, blobs = open_catalog(tmp_path), open_blobs(tmp_path)
    catalog.migrate()
    blobs.set_mark(StoreMark(catalog.identity.get().id, 0))
    store_identity.ensure(catalog, blobs)
    assert catalog.identity.get().bound
    catalog.close()


def test_copies_from_while_it_is_served_are_older(tmp_path: Path) -> None:
    """Every ten seconds, if something was written, a copy that was taken before is told from the catalog."""
    root = made(tmp_path / "root")
    catalog, blobs = open_catalog(root), open_blobs(root)
    job = store_identity.IdentityJob(open_backend(root))
    job.run(threading.Event())
    first = catalog.identity.get().generation
    job.run(threading.Event())
    assert catalog.identity.get().generation == first  # nothing was written
    push(root, "x", "more", b"more")
    assert job.run(threading.Event()) <= 10
    mark: Any = blobs.mark()
    assert mark.generation == catalog.identity.get().generation == first + 1
    catalog.close()


@pytest.mark.parametrize("where", ["RegistryIdentities.get", "SqliteStore.snapshot_to"])
def test_one_that_is_advanced_meanwhile_is_no_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A server may do so at any moment: here, once another process has read the catalog's generation."""
    root = made(tmp_path / "root")
    catalog, blobs = open_catalog(root), open_blobs(root)
    kind = {"RegistryIdentities": RegistryIdentities, "SqliteStore": SqliteStore}[where.partition(".")[0]]
    method = where.rpartition(".")[2]
    real: Any = getattr(kind, method)
    before = catalog.identity.get().generation

    def read_and_advanced(*arguments: Any) -> Any:
        result = real(*arguments)
        with monkeypatch.context() as undone:
            undone.setattr(kind, method, real)
            store_identity.advance(catalog, blobs)
        return result

    monkeypatch.setattr(kind, method, read_and_advanced)
    assert not gathered(dry_run, RegistryConfig(root))
    back_up(root, tmp_path / "backup")
    assert catalog.identity.get().generation > before
    catalog.close()


def test_one_of_two_nodes_tells_copies(tmp_path: Path) -> None:
    """And the other one does once it has stopped, so that nothing that was written goes untold."""
    root = made(tmp_path / "root")
    catalog = open_catalog(root)
    first, second = (store_identity.IdentityJob(open_backend(root)) for _ in range(2))

    def run(job: store_identity.IdentityJob) -> int:
        before = catalog.identity.get().generation
        job.run(threading.Event())
        return catalog.identity.get().generation - before

    assert [run(first), run(second)] == [1, 1]  # each at its start
    found = []
    for number in range(4):
        push(root, "x", f"t{number}", b"more")
        found.append((run(first), run(second)))
    assert found[0] in {(1, 0), (0, 1)}
    assert found == [found[0]] * 4
    push(root, "x", "last", b"more")
    assert run(second) + run(second) == 1
    catalog.close()


def test_a_dry_run_works_with_the_right_catalog(tmp_path: Path) -> None:
    root = made(tmp_path / "root")
    assert not gathered(dry_run, RegistryConfig(root))
