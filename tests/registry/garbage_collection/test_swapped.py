"""Files and directories of the root that are replaced, before a collection or under it: by pipes, by links to
elsewhere, by another registry's store."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from digestry.catalog.removals import Removed, Stayed
from digestry.errors import StorageError
from digestry.registry.config import RegistryConfig
from digestry.registry.server import prepare
from tests.backends import collect
from tests.registry.backup.support import push
from tests.registry.garbage_collection.support import later
from tests.stores import needs_disk
from tests.support import PATIENCE, run_digestry, running_registry, start_digestry, start_registry


@pytest.fixture(autouse=True)
def _of_the_disk(tmp_path: Path) -> None:
    needs_disk(tmp_path)


def made(root: Path, images: int = 3) -> Path:
    prepare(RegistryConfig(root))
    for number in range(images):
        push(root, "x", f"t{number}", b"%d" % number)
    return root


def blobs(root: Path) -> set[str]:
    return {file.name for file in (root / "blobs/sha256").iterdir()}


@pytest.mark.long
def test_no_file_of_the_root_is_waited_for_as_a_pipe(tmp_path: Path) -> None:
    """Each in turn, whatever it is for; most at once under a server."""
    with running_registry() as server:
        server.push_image("x", "1")
        assert server.request("GET", "/metrics").status == 200
        server.stop()
        found = [file.relative_to(server.root) for file in server.root.rglob("*") if file.is_file()]
        alike = {"sha256", "guards"}  # one file of each will do
        files = {file.parent if file.parent.name in alike else file: file for file in found}
        runs = []
        for number, file in enumerate(files.values()):
            copy = shutil.copytree(server.root, tmp_path / str(number), symlinks=True)
            (copy / file).unlink()
            os.mkfifo(copy / file)
            runs.append(start_digestry("gc", "--root", copy, stderr=subprocess.PIPE))
        for run in runs:
            _, told = run.communicate(timeout=PATIENCE)
            assert run.returncode in {0, 4, 6}, told
            assert b"Traceback" not in told
        for name in ("kept.json", "audit-log.json", "reserve", "collection.lock", "metrics/begun.json"):
            (server.root / name).unlink(missing_ok=True)
            os.mkfifo(server.root / name)
        again = start_registry(server.root)
        assert again.request("GET", "/v2/x/manifests/1").status == 200
        assert again.request("GET", "/metrics").status == 200
        again.stop()


def test_nothing_is_removed_where_a_link_leads(tmp_path: Path) -> None:
    root, other = made(tmp_path / "root"), made(tmp_path / "other", 5)
    shutil.rmtree(root / "blobs/sha256")
    (root / "blobs/sha256").symlink_to(other / "blobs/sha256")
    before = blobs(other)
    run = run_digestry("gc", "--really-remove-most", "--root", root)
    assert run.returncode == 6
    assert "is a link" in run.stderr
    assert blobs(other) == before


def test_a_store_that_is_linked_as_a_whole_is_the_registrys(tmp_path: Path) -> None:
    root = made(tmp_path / "root")
    (root / "blobs").rename(tmp_path / "large disk")
    (root / "blobs").symlink_to(tmp_path / "large disk")
    collect(RegistryConfig(root), tell=lambda _: None)
    assert len(blobs(root)) >= 6


@pytest.mark.long
@pytest.mark.parametrize("directory", ["blobs", "blobs/sha256"])
def test_nothing_is_removed_from_a_store_that_came_meanwhile(tmp_path: Path, directory: str) -> None:
    root = made(tmp_path / "root", 20)
    with closing(sqlite3.connect(root / "catalog.db")) as connection, connection:
        for table in ("leases", "tags", "links", "manifest_references", "manifests"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - a name of ours
    copy = shutil.copytree(root / directory, tmp_path / "copy")
    whole = {file.name for file in copy.rglob("*") if file.is_file()}
    removed: list[str] = []

    def swap(item: Removed | Stayed) -> None:
        if item.kind == "blob":
            removed.append(item.name)
            if len(removed) == 1:
                (root / directory).rename(tmp_path / "gone")
                copy.rename(root / directory)

    with pytest.raises(StorageError, match="was replaced"):
        collect(RegistryConfig(root), tell=swap, now=later(), really=True)
    assert removed
    assert {file.name for file in (root / directory).rglob("*") if file.is_file()} == whole
