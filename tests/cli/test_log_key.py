"""``digestry log key`` and ``digestry log begin``, beside a registry that is served."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from digestry.cli import exit_codes
from digestry.translog.checkpoints import open_checkpoint
from digestry.translog.notes import parse_verifier_key
from tests.registry.test_log_witnesses import logging_to, started, witness_of
from tests.registry.test_transparency import LOG, checkpoint, keys_of
from tests.support import run_digestry, running_registry, wait_until


@pytest.mark.long
def test_a_key_is_replaced_and_both_sign() -> None:
    with running_registry() as server:
        server.push_image("x", "t", os.urandom(8))
        origin, (old,) = keys_of(server)
        assert run_digestry("log", "key", "show", "--root", server.root).stdout.strip() == str(old)
        done = run_digestry("log", "key", "rotate", "--root", server.root)
        new = parse_verifier_key(done.stdout.strip())
        assert new != old
        assert "both keys" in done.stderr
        size = checkpoint(server, least=1).checkpoint.size
        server.push_image("x", "u", os.urandom(8))
        checkpoint(server, least=size + 1)
        note = server.request("GET", f"{LOG}/checkpoint").body
        for key in (old, new):
            assert open_checkpoint(note, origin, [key]).checkpoint.size == size + 1
        rows = json.loads(
            run_digestry("log", "key", "list", "--root", server.root, "--format", "json").stdout
        )
        assert [(row["use"], row["state"], row["retired_at"] is None) for row in rows] == [
            ("log", "signs", True),
            ("log", "signs", False),
        ]
        assert [row["key"] for row in rows] == [str(new), str(old)]
        assert origin in run_digestry("log", "key", "list", "--root", server.root).stdout
        assert "rotate-log-key" in (server.root / "audit.log").read_text()


@pytest.mark.long
def test_a_log_is_begun_again_after_a_restore(tmp_path: Path) -> None:
    root = tmp_path / "a" / "root"
    with started(root, logging_to()) as log:
        log.push_image("x", "t", os.urandom(8))
        checkpoint(log, least=1)
    shutil.copytree(root, tmp_path / "old" / "root")
    with started(root, logging_to()) as log:
        log.push_image("x", "u", os.urandom(8))
        checkpoint(log, least=2)
    old = tmp_path / "old" / "root"
    shutil.copy(root / "log-head.json", old)
    with started(old, logging_to()) as log:
        wait_until(lambda: "the log is not signed" in log.log.read_text(), what="the refusal")
        again = run_digestry("log", "begin", "--root", old, "--reason", "x", "registry.example/log")
        assert again.returncode != exit_codes.OK
        assert "was signed as registry.example/log before" in again.stderr
        done = run_digestry("log", "begin", "--root", old, "--reason", "restored", "registry.example/log-2")
        key = parse_verifier_key(done.stdout.strip())
        log.push_image("x", "v", os.urandom(8))
        wait_until(lambda: keys_of(log)[0] == "registry.example/log-2", what="the other name")
        signed = checkpoint(log, least=2)
        assert signed.checkpoint.origin == key.name == "registry.example/log-2"
        found = log.request("GET", f"{LOG}/keys").json()
        assert found["earlierOrigins"] == ["registry.example/log"]
        wait_until(
            lambda: "digestry_log_refused 0.0" in log.request("GET", "/metrics").body.decode(),
            what="the end of it",
        )


@pytest.mark.long
def test_the_key_of_a_witness(tmp_path: Path) -> None:
    root = tmp_path / "w" / "root"
    origin = parse_verifier_key("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")
    with started(root, witness_of((origin.name, origin))) as server:
        keys_of(server)
        config = ("--config", root.parent / "registry.toml", "--root", root)
        first = run_digestry("log", "key", "show", "--witness", *config).stdout.strip()
        assert server.request("GET", f"{LOG}/keys").json()["witness"] == first
        second = run_digestry("log", "key", "rotate", "--witness", *config).stdout.strip()
        assert second != first
        assert server.request("GET", f"{LOG}/keys").json()["witness"] == second
        rows = json.loads(run_digestry("log", "key", "list", *config, "--format", "json").stdout)
        assert [(row["use"], row["state"]) for row in rows] == [
            ("log", "signs"),
            ("witness", "signs"),
            ("witness", "retired"),
        ]


@pytest.mark.long
def test_what_cannot_be(tmp_path: Path) -> None:
    for line in (("key", "show"), ("key", "list"), ("key", "rotate"), ("begin", "--reason", "x", "n/log")):
        done = run_digestry("log", line[0], *line[1:], "--root", tmp_path)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
    with running_registry() as server:
        done = run_digestry("log", "key", "show", "--witness", "--root", server.root)
        assert "is no witness" in done.stderr
        done = run_digestry("log", "begin", "--root", server.root, "--reason", "x", "a b")
        assert "is not the name of a key" in done.stderr
