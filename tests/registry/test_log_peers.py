"""The log and its witnesses with filippo.io/torchwood: its client reads it, and its witness cosigns it."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from digestry.translog.cosignatures import cosignatures
from digestry.translog.notes import VerifierKey, parse_verifier_key
from tests.e2e.peers import built
from tests.registry.support import rewrite_past
from tests.registry.test_log_witnesses import logging_to, started, witness_key, witness_of
from tests.registry.test_transparency import LOG, checkpoint, keys_of
from tests.support import PATIENCE, RegistryServer, free_port, program, wait_until


def peer(log: RegistryServer, *witness: str) -> list[int]:
    """Let torchwood's client read all of the log, and have it cosigned; what it says."""
    _, (key, *_) = keys_of(log)
    line = [str(built("logpeer")), f"http://{log.host}{LOG}", str(key), *witness]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


def push_many(log: RegistryServer, count: int) -> None:
    images = [log.image("log/peer", os.urandom(8)) for _ in range(2)]
    for number in range(count):
        log.push_manifest("log/peer", "t", images[number % 2])


@pytest.mark.long
def test_torchwood_reads_the_log_and_has_it_cosigned_here(tmp_path: Path) -> None:
    with started(tmp_path / "a" / "root", logging_to()) as log:
        origin, (key, *_) = keys_of(log)
        push_many(log, 300)
        checkpoint(log, least=300)
        with started(tmp_path / "w" / "root", witness_of((origin, key))) as witness:
            there = f"http://{witness.host}{LOG}/witness", str(witness_key(witness))
            assert peer(log, *there) == [300, 300, 0]
            push_many(log, 5)
            checkpoint(log, least=305)
            assert peer(log, *there) == [305, 305, 300]
            assert peer(log, *there) == [305, 305, 305]


@dataclass
class Litewitness:
    url: str
    key: VerifierKey
    database: Path

    def knows(self, origin: str, key: VerifierKey) -> None:
        """Configure a log, as its own tool does, which cannot be had."""
        empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
        with contextlib.closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute("INSERT INTO log VALUES (?, 0, ?)", (origin, empty))
            connection.execute("INSERT INTO key VALUES (?, ?)", (origin, str(key)))


@pytest.fixture
def litewitness(tmp_path: Path) -> Iterator[Litewitness]:
    """torchwood's witness, whose key is in an SSH agent."""
    agent, place = program("ssh-agent"), tmp_path / "lw"
    place.mkdir()
    socket, key = place / "agent", place / "key"
    with contextlib.ExitStack() as stack:

        def start(*line: str | Path, log: Path | None = None) -> None:
            stderr = subprocess.DEVNULL if log is None else stack.enter_context(log.open("wb"))
            process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=stderr)
            stack.callback(process.wait, PATIENCE)
            stack.callback(process.terminate)

        start(agent, "-D", "-a", socket)
        wait_until(socket.exists, what="the agent")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        environment = {**os.environ, "SSH_AUTH_SOCK": str(socket)}
        subprocess.run(["ssh-add", "-q", key], check=True, env=environment)
        said = subprocess.run(["ssh-keygen", "-l", "-f", key], check=True, capture_output=True, text=True)
        port, database, log = free_port(), place / "witness.db", place / "log"
        options = ("-db", database, "-ssh-agent", socket, "-listen", f"127.0.0.1:{port}")
        name = ("-name", "witness.example/lite", "-key", said.stdout.split()[1])
        start(built("litewitness"), *options, *name, log=log)
        wait_until(lambda: "listening" in log.read_text(), what="the witness", log=log)
        found = re.search(r"vkey=\"?([^\s\"]+)", log.read_text())
        assert found is not None, log.read_text()
        yield Litewitness(f"http://127.0.0.1:{port}", parse_verifier_key(found[1]), database)


@pytest.mark.long
def test_litewitness_cosigns_the_log_and_finds_a_fork(tmp_path: Path, litewitness: Litewitness) -> None:
    root = tmp_path / "a" / "root"
    there = logging_to((litewitness.url, str(litewitness.key)), quorum=1)
    with started(root, there) as log:
        litewitness.knows(*_first_key(log))
        for size in (1, 2, 3):
            log.push_image("log/peer", "t", os.urandom(8))
            note = checkpoint(log, least=size).note
            assert len(cosignatures(note, [litewitness.key])) == 1
    rewrite_past(root)
    with started(root, there) as log:
        words = "has cosigned this log with 3 entries, and this catalog has signed 0"
        wait_until(lambda: words in log.log.read_text(), what="the discovery", log=log.log)
        line = b"digestry_log_refused 1.0"
        wait_until(lambda: line in log.request("GET", "/metrics").body, what="the metric")
        assert log.request("GET", f"{LOG}/checkpoint").status in {404, 503}  # the fork was not signed


def _first_key(log: RegistryServer) -> tuple[str, VerifierKey]:
    origin, (key, *_) = keys_of(log)
    return origin, key
