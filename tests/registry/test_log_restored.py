"""The signed log of a registry that was put back: from a backup, or with its whole directory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from digestry.translog.notes import COSIGNATURE, SignerKey
from tests.backends import open_blobs
from tests.registry.test_log_witnesses import logging_to, started, witness_key, witness_of
from tests.registry.test_transparency import LOG, checkpoint, keys_of, verified_by_go
from tests.stores import on_disk
from tests.support import RegistryServer, run_digestry, wait_until


def is_refused(server: RegistryServer, *words: str) -> None:
    """Wait until the server says that it does not sign, and why; what is pushed then is not signed."""
    wait_until(lambda: "the log is not signed" in server.log.read_text(), what="the refusal", log=server.log)
    text = server.log.read_text()
    assert all(word in text for word in words), text
    line = b"digestry_log_refused 1.0"
    wait_until(lambda: line in server.request("GET", "/metrics").body, what="the metric")
    before = checkpoint(server).checkpoint.size
    server.push_image("x", "refused", os.urandom(8))
    assert checkpoint(server).checkpoint.size == before


def backed_up(root: Path, target: Path) -> None:
    """Take a backup, and restore it to ``target``. Skips the test if the catalog lists the content."""
    if open_blobs(root).is_listed_in_catalog:
        pytest.skip("of a store without rows in the catalog, which is not there yet when content is restored")
    place = target.with_name(f"{target.name}-backup")
    taken = run_digestry("backup", "--root", root, place)
    assert taken.returncode == 0, taken.stderr
    target.parent.mkdir(parents=True, exist_ok=True)
    done = run_digestry("restore-backup", place, "--root", target)
    assert done.returncode == 0, done.stderr
    assert "the signed log is suspended" in done.stderr
    assert "digestry log begin" in done.stderr


@pytest.mark.long
def test_a_restored_backup_signs_when_its_operator_says_so(tmp_path: Path) -> None:
    root, restored = tmp_path / "a" / "root", tmp_path / "b" / "root"
    with started(root, logging_to()) as log:
        log.push_image("x", "t", os.urandom(8))
        older = checkpoint(log, least=1)
    backed_up(root, restored)
    with started(restored, logging_to()) as log:
        is_refused(log, "restored from the backup of", "is not known", "digestry log resume")
        assert checkpoint(log).checkpoint == older.checkpoint
        done = run_digestry("log", "resume", "--root", restored, "--reason", "nothing was pushed")
        assert done.returncode == 0, done.stderr
        assert "is signed on after its 1 entries" in done.stderr
        again = run_digestry("log", "resume", "--root", restored, "--reason", "x")
        assert (again.returncode != 0, "is not suspended" in again.stderr) == (True, True)
        assert checkpoint(log, least=2).checkpoint.origin == older.checkpoint.origin
        verified_by_go(log, older)
        line = b"digestry_log_refused 0.0"
        wait_until(lambda: line in log.request("GET", "/metrics").body, what="the metric")
        assert "resume-log" in (restored / "audit.log").read_text()


@pytest.mark.long
@pytest.mark.parametrize("more", [False, True])
def test_a_restored_backup_asks_its_witnesses(tmp_path: Path, more: bool) -> None:
    """If all say that nothing was signed since, it signs on by itself."""
    root, restored = tmp_path / "a" / "root", tmp_path / "b" / "root"
    with started(root, logging_to()) as log:
        log.push_image("x", "t", os.urandom(8))
        origin, (key, *_) = keys_of(log)
        older = checkpoint(log, least=1)
    with started(tmp_path / "w" / "root", witness_of((origin, key))) as other:
        witnesses = logging_to((f"http://{other.host}{LOG}/witness", str(witness_key(other))))
        with started(root, witnesses) as log:
            wait_until(lambda: checkpoint(log).note.signatures[1:], what="a cosignature")
        backed_up(root, restored)
        if more:
            with started(root, witnesses) as log:
                log.push_image("x", "u", os.urandom(8))
                wait_until(lambda: checkpoint(log, least=2).note.signatures[1:], what="a cosignature")
        with started(restored, witnesses) as log:
            if more:
                is_refused(log, "cosigned this log with 2 entries, and this catalog has signed 1")
                return
            log.push_image("x", "u", os.urandom(8))
            checkpoint(log, least=2)
            assert "all witnesses say that the log ends with its 1 entries" in log.log.read_text()
            verified_by_go(log, older)


@pytest.mark.long
def test_a_whole_directory_of_yesterday_is_found_before_anything_is_signed(tmp_path: Path) -> None:
    """Its own note is of yesterday, too; the witness's is not."""
    root, old = tmp_path / "a" / "root", tmp_path / "old" / "root"
    if not on_disk(root):
        pytest.skip("of a store that is in the directory: another one knows that the catalog is older")
    with started(root, logging_to()) as log:
        log.push_image("x", "t", os.urandom(8))
        origin, (key, *_) = keys_of(log)
        checkpoint(log, least=1)
    old.parent.mkdir()
    shutil.copytree(root, old)
    with started(tmp_path / "w" / "root", witness_of((origin, key))) as other:
        witnesses = logging_to((f"http://{other.host}{LOG}/witness", str(witness_key(other))))
        with started(root, witnesses) as log:
            log.push_image("x", "u", os.urandom(8))
            wait_until(lambda: checkpoint(log, least=2).note.signatures[1:], what="a cosignature")
        with started(old, witnesses) as log:
            is_refused(log, "cosigned this log with 2 entries, and this catalog has signed 1")


@pytest.mark.long
def test_a_witness_that_is_away_delays_no_start(tmp_path: Path) -> None:
    root = tmp_path / "a" / "root"
    with started(root, logging_to()) as log:
        log.push_image("x", "t", os.urandom(8))
        checkpoint(log, least=1)
    away = str(SignerKey.new("witness.example/away", COSIGNATURE).verifier)
    with started(root, logging_to(("http://127.0.0.1:9/w", away))) as log:
        log.push_image("x", "u", os.urandom(8))
        checkpoint(log, least=2)
        assert "whether the log went on since is not known" in log.log.read_text()
