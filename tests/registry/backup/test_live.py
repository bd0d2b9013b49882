"""Backups of a registry that is served: under a load of pushes, killed in the middle, and by its verbs."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from digestry.coordination.files import lock_file
from digestry.coordination.protocol import Job
from digestry.file_locks import locked
from digestry.model.digest import Digest
from tests.crash.checks import (
    Reader,
    check_acknowledged,
    check_files,
    check_journal,
    check_served,
    check_story,
    check_usage,
)
from tests.crash.load import REPOSITORIES, Ledger, push_for
from tests.registry.backup.support import blob_files, push, tags
from tests.stores import blob_file, needs_disk
from tests.support import run_digestry, running_registry, start_digestry, start_registry, wait_until


def run(*arguments: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = run_digestry(*arguments)
    assert done.returncode == expect, done.stderr
    return done


@pytest.mark.long
@pytest.mark.parametrize("kind", ["directory", "archive"])
def test_under_a_load_of_pushes_nothing_acknowledged_is_missing(tmp_path: Path, kind: str) -> None:
    destination = tmp_path / ("backup.tar" if kind == "archive" else "backup")
    ledger = Ledger()
    with running_registry() as server:
        clients, enough = push_for(server.port, 1.5, "backup", ledger, clients=2)
        # A second one finds the first, and what the pushes have changed since.
        for _ in range(2):
            before = Ledger(copy.copy(ledger.blobs), copy.copy(ledger.manifests))
            run("backup", "--root", server.root, destination)
        pushing = all(client.is_alive() for client in clients)
        enough.set()
        for client in clients:
            client.join(timeout=60)
        assert pushing
        assert ledger.wrong == []
    restored = tmp_path / "again"
    run("restore-backup", destination, "--root", restored)
    again = start_registry(restored)
    try:
        reader = Reader(again)
        for gone in ledger.dropped:  # before the snapshot, perhaps
            before.manifests.pop(gone, None)
        assert len(before.manifests) > 3
        check_acknowledged(reader, before)
        for repository in REPOSITORIES:
            check_story(reader, repository)
        check_served(reader, restored)
        reader.close()
        again.push_image("golftrack", "after", os.urandom(100))
    finally:
        again.stop()
    check_files(restored)
    check_journal(restored)
    check_usage(restored)


def _copying(destination: Path) -> bool:
    ingest = needs_disk(destination) / "ingest"
    return ingest.is_dir() and any(path.stat().st_size for path in ingest.iterdir())


def test_a_killed_backup_is_refused_and_completed_by_the_next(root: Path, tmp_path: Path) -> None:
    destination = tmp_path / "backup"
    with start_digestry("backup", "--root", root, destination, "--rate", "20KiB") as process:
        wait_until(lambda: _copying(destination), what="copying")
        process.kill()
    left = list(destination.glob(".backup-*"))
    refused = run("restore-backup", destination, "--root", tmp_path / "again", expect=4)
    assert "complete" in refused.stderr
    assert not (tmp_path / "again").exists()
    run("backup", "--root", root, destination)
    assert len(left) == 1
    assert not list(destination.glob(".backup-*"))
    assert list((destination / "ingest").iterdir()) == []
    run("restore-backup", destination, "--root", tmp_path / "again")
    assert tags(tmp_path / "again") == tags(root)


def test_a_backup_that_is_killed_leaves_the_one_before(root: Path, tmp_path: Path) -> None:
    destination = tmp_path / "backup"
    run("backup", "--root", root, destination)
    was = tags(root)
    push(root, "golftrack", "1.6", os.urandom(2 << 20))
    with start_digestry("backup", "--root", root, destination, "--rate", "20KiB") as process:
        wait_until(lambda: _copying(destination), what="copying")
        process.kill()
    run("restore-backup", destination, "--root", tmp_path / "again")
    assert tags(tmp_path / "again") == was


def test_a_killed_archive_leaves_nothing_after_the_next(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with start_digestry("backup", "--root", root, place / "x.tar", "--rate", "20KiB") as process:
        wait_until(lambda: any(path.stat().st_size > 1 << 20 for path in place.iterdir()), what="copying")
        process.kill()
    assert [path.name.startswith(".x.tar.") for path in place.iterdir()] == [True]
    assert len(list(root.glob(".backup-*"))) == 1
    run("backup", "--root", root, place / "x.tar")
    assert [path.name for path in place.iterdir()] == ["x.tar"]
    assert (place / "x.tar").stat().st_mode & 0o777 == 0o600
    assert not list(root.glob(".backup-*"))


@pytest.mark.long
def test_a_killed_restoration_is_not_served_and_begins_again(root: Path, tmp_path: Path) -> None:
    run("backup", "--root", root, tmp_path / "backup")
    again = tmp_path / "again"
    with start_digestry("restore-backup", tmp_path / "backup", "--root", again, "--rate", "20KiB") as process:
        wait_until(lambda: _copying(again), what="copying")
        in_use = run("serve", "--root", again, "--listen", "127.0.0.1:0", expect=2)
        process.kill()
    assert "in use" in in_use.stderr or "served" in in_use.stderr
    refused = run("serve", "--root", again, "--listen", "127.0.0.1:0", expect=2)
    assert "not complete" in refused.stderr
    run("restore-backup", tmp_path / "backup", "--root", again)
    assert blob_files(again) == blob_files(root)
    assert list((again / "ingest").iterdir()) == []


def test_an_interrupted_restoration_leaves_nothing(root: Path, tmp_path: Path) -> None:
    run("backup", "--root", root, tmp_path / "backup")
    again = tmp_path / "again"
    with start_digestry(
        "restore-backup", tmp_path / "backup", "--root", again, "--rate", "20KiB", stderr=subprocess.PIPE
    ) as process:
        wait_until(lambda: _copying(again), what="copying")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    assert not again.exists()


def test_a_backup_is_not_served(root: Path, tmp_path: Path) -> None:
    run("backup", "--root", root, tmp_path / "backup")
    refused = run("serve", "--root", tmp_path / "backup", "--listen", "127.0.0.1:0", expect=2)
    assert "is a backup" in refused.stderr


@pytest.mark.long
def test_it_waits_for_a_collection(root: Path, tmp_path: Path) -> None:
    with locked(root / lock_file(Job.COLLECTION)):
        process = start_digestry("backup", "--root", root, tmp_path / "backup")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=2)
    assert process.wait(timeout=60) == 0


@pytest.mark.long
def test_damage_ends_with_1_and_names_who_holds_it(root: Path, tmp_path: Path) -> None:
    blob_file(root, Digest.of(b"good")).write_bytes(b"evil")
    done = run("backup", "--root", root, tmp_path / "backup", expect=1)
    assert str(Digest.of(b"good")) in done.stderr
    assert "golftrack:1.5" in done.stderr
    told = json.loads(run("backup", "--root", root, tmp_path / "backup", "--format", "json", expect=1).stdout)
    assert told["backup"] == json.loads((tmp_path / "backup" / "backup.json").read_bytes())
    assert [missing["held_by"] for missing in told["backup"]["missing"]] == [["golftrack:1.5"]]
    restored = run(
        "restore-backup", tmp_path / "backup", "--root", tmp_path / "again", "--format", "json", expect=1
    )
    assert json.loads(restored.stdout)["missing"] == told["backup"]["missing"]


def test_wrong_usage(root: Path, tmp_path: Path) -> None:
    for arguments in (
        [tmp_path / "x.tar.gz"],
        [tmp_path / "x.tar", "--verify"],
        [tmp_path / "x", "--temporary", tmp_path],
        [tmp_path / "x", "--rate", "fast"],
        [tmp_path / "x", "--rate", "1"],
    ):
        run("backup", "--root", root, *arguments, expect=2)
    assert [path.name for path in tmp_path.iterdir()] == ["root"]
    run("restore-backup", tmp_path / "x", "--root", tmp_path / "again", expect=4)


@pytest.mark.long
def test_pushes_are_answered_while_a_backup_copies(tmp_path: Path) -> None:
    with running_registry() as server:
        server.push_image("golftrack", "1", os.urandom(1 << 20))
        destination = tmp_path / "backup"
        with start_digestry("backup", "--root", server.root, destination, "--rate", "20KiB") as process:
            try:
                wait_until(lambda: _copying(destination), what="copying")
                server.push_image("golftrack", "1", b"meanwhile")
                assert process.poll() is None
            finally:
                process.kill()


def test_a_reader_that_leaves_ends_the_archive(root: Path) -> None:
    with start_digestry(
        "backup", "--root", root, "-", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1000)
        process.stdout.close()
        assert process.wait(timeout=60) == 141
    assert not list(root.glob(".backup-*"))
