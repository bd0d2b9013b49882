"""The signed log of a registry that moves to other stores, is taken back, or whose database is put back."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.blobs.s3.store import S3Blobs
from digestry.translog.checkpoints import SignedCheckpoint
from tests.postgresql import USER, Cluster
from tests.registry.migration.support import MakePlace, Place, migrate
from tests.registry.test_transparency import checkpoint, keys_of, verified_by_go
from tests.support import RegistryServer, run_digestry, start_digestry, wait_until


@contextlib.contextmanager
def served(place: Place) -> Iterator[RegistryServer]:
    """The registry of these stores, which may be without a root."""
    log = place.file.with_suffix(".log")
    line: list[str | Path] = ["serve", "--config", place.file, "--listen", "127.0.0.1:0", "--workers", "1"]
    with log.open("ab") as errors:
        process = start_digestry(
            *line, env=dict(os.environ), stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
    assert process.stdout is not None
    url = process.stdout.readline().decode().strip()
    process.stdout.close()
    if not url:
        process.wait(timeout=30)
        pytest.fail(log.read_text())
    server = RegistryServer(url.partition("://")[2], process, place.file.parent, log)
    try:
        yield server
    finally:
        server.stop()


def push_and_sign(server: RegistryServer, tag: str) -> SignedCheckpoint:
    """Move a tag, and wait until that, and all before it, is signed."""
    line = b"digestry_log_unsigned_entries 0.0"
    wait_until(lambda: line in server.request("GET", "/metrics").body, what="the signing of what was there")
    before = checkpoint(server).checkpoint.size
    server.push_image("golftrack", tag, os.urandom(8))
    return checkpoint(server, least=before + 1)


def refusal(server: RegistryServer, words: str) -> None:
    """Wait until the server says that it does not sign, and why."""
    wait_until(lambda: words in server.log.read_text(), what=words, log=server.log)
    wait_until(
        lambda: b"digestry_log_refused 1.0" in server.request("GET", "/metrics").body, what="the metric"
    )


@pytest.mark.long
@pytest.mark.parametrize("kind", ["disk", pytest.param("both", marks=pytest.mark.long)])
def test_a_log_goes_with_the_registry_there_and_back(old: Place, new_place: MakePlace, kind: str) -> None:
    with served(old) as server:
        origin, keys = keys_of(server)
        first = push_and_sign(server, "a")
    allowed = run_digestry("age", "allow", "--config", old.file, "golftrack:a", "--reason", "an urgent fix")
    assert allowed.returncode == 0, allowed.stderr
    new, back = new_place(kind), new_place("disk")
    migrate(old, new)
    with served(new) as server:
        assert keys_of(server) == (origin, keys)
        # The journalled override, which nobody served yet, is signed here.
        assert verified_by_go(server, first)[0] >= first.checkpoint.size
        second = push_and_sign(server, "b")
        assert second.checkpoint.size == first.checkpoint.size + 2
        verified_by_go(server, first)
    migrate(new.read_only() if kind == "both" else new, back)
    with served(back) as server:
        assert keys_of(server) == (origin, keys)
        verified_by_go(server, second)
        third = push_and_sign(server, "c")
        verified_by_go(server, first)
    assert third.checkpoint.size == second.checkpoint.size + 1
    done = run_digestry("journal", "verify", "--config", back.file)
    assert done.returncode == 0, done.stdout


@pytest.mark.long
def test_a_registry_that_is_taken_back_signs_nothing(old: Place, new_place: MakePlace) -> None:
    """Where it had moved to, more may have been signed."""
    new = new_place("disk")
    with served(old) as server:
        push_and_sign(server, "a")
    migrate(old, new)
    with served(new) as server:
        push_and_sign(server, "b")
    done = run_digestry("migrate-storage", "--from", old.file, "--reopen")
    assert done.returncode == 0, done.stderr
    with served(old) as server:
        refusal(server, f"taken back from {new.stores.name}")
        size = checkpoint(server).checkpoint.size
        server.push_image("golftrack", "other", os.urandom(8))
        again = run_digestry(
            "log", "begin", "--config", old.file, "--reason", "taken back", "registry.example/log-2"
        )
        assert again.returncode == 0, again.stderr
        wait_until(lambda: keys_of(server)[0] == "registry.example/log-2", what="the other name")
        assert checkpoint(server, least=size + 1).checkpoint.origin == "registry.example/log-2"


@pytest.mark.long
def test_a_database_of_yesterday_beside_the_content_of_today(
    old: Place, new_place: MakePlace, postgresql: Cluster
) -> None:
    """A node without a root has the note of what was signed beside its content."""
    node = new_place("both")
    migrate(old, node)
    with served(node) as server:
        push_and_sign(server, "a")
    database = node.file.read_text().partition('database = "')[2].partition('"')[0]
    name = database.rpartition("/")[2]
    yesterday = f"{name}_yesterday"
    copied(postgresql, name, yesterday)
    blobs = node.backend.blobs
    assert isinstance(blobs, S3Blobs)
    mark = blobs.mark()
    assert mark is not None
    with served(node) as server:
        newest = push_and_sign(server, "b").checkpoint
    assert f'"size":{newest.size}'.encode() in (blobs.read_note("log-head.json", 4096) or b"")
    with postgresql.superuser() as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    copied(postgresql, yesterday, name)
    with postgresql.superuser() as connection:
        connection.execute(f"DROP DATABASE {yesterday}")
    blobs.set_mark(mark)  # as an operator may, who is told how
    have = newest.size - 1
    with served(node) as server:
        refusal(server, f"was signed with {newest.size} entries, and this catalog has signed {have}")
        server.push_image("golftrack", "c", os.urandom(8))
        assert checkpoint(server).checkpoint.size == have


def copied(postgresql: Cluster, name: str, copy: str) -> None:
    """Copy a database that nobody uses any more."""
    with postgresql.superuser() as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")  # noqa: S608
        connection.execute(f"CREATE DATABASE {copy} TEMPLATE {name} OWNER {USER}")
