"""A full disk below a signed log, and below a copy of one: it is said, nothing is lost, and all goes on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.catalog.sqlite.private_file import PrivateFile
from digestry.client.session import Session
from digestry.errors import StorageError, StorageFull
from digestry.follower.follower import Follower
from tests.crash.test_log import Watcher, check
from tests.faults.conftest import SmallDisk
from tests.follower.conftest import OPTIONS, open_follower
from tests.follower.test_follower import is_the_log
from tests.registry.test_transparency import checkpoint
from tests.support import start_registry, wait_until
from tests.verifier.log_server import LogServer, log_server


@pytest.fixture
def server() -> Iterator[LogServer]:
    with log_server() as running:
        yield running


@contextlib.contextmanager
def following(server: LogServer, place: Path) -> Iterator[Follower]:
    with Session(OPTIONS) as session:
        follower = open_follower(session, server.host, place)
        try:
            yield follower
        finally:
            follower.close()


@pytest.mark.long
@pytest.mark.parametrize("leave", [0, 8 << 10, 100 << 10, 400 << 10])
def test_a_copy_on_a_full_disk_stays_and_goes_on(
    server: LogServer, small_disk: SmallDisk, leave: int
) -> None:
    place = small_disk.path / "copy"
    place.mkdir()
    server.fill(300)
    with following(server, place) as follower:
        follower.round()
        server.fill(1500)
        small_disk.fill(leave=leave)
        with pytest.raises(StorageError, match=r"disk is full|[Nn]o space left"):
            follower.round()
        assert follower.copy.size == 300
        assert follower.copy.is_whole()
        assert follower.alarms.current is None  # the registry did nothing wrong
    small_disk.make_room()
    with following(server, place) as again:  # as a process that starts
        assert again.round().alarm == ""
        is_the_log(again, server)


def test_a_file_of_ones_own_says_that_the_disk_is_full(small_disk: SmallDisk) -> None:
    file = PrivateFile(small_disk.path / "x.db", "CREATE TABLE IF NOT EXISTS t (v BLOB);", hint="remove it")
    file.write("INSERT INTO t VALUES (?)", [(b"kept",)])
    small_disk.fill(leave=64 << 10)
    with pytest.raises(StorageFull, match="the disk is full"):
        file.write("INSERT INTO t VALUES (?)", [(os.urandom(1 << 20),)])
    assert file.rows("SELECT v FROM t") == [(b"kept",)]
    small_disk.make_room()
    file.write("INSERT INTO t VALUES (?)", [(b"more",)])
    assert len(file.rows("SELECT v FROM t")) == 2
    file.close()


@pytest.mark.long
def test_a_log_on_a_full_disk_is_signed_on_when_there_is_room(small_disk: SmallDisk) -> None:
    server = start_registry(small_disk.path / "root")
    watcher = Watcher([server])
    watcher.start()
    try:
        server.push_image("a", "1", b"before")
        checkpoint(server, least=1)
        pushed = 1
        for number in range(3):
            small_disk.fill(leave=0)
            for tag in range(5):  # refused, or taken from what the registry keeps in reserve
                with contextlib.suppress(AssertionError, OSError):
                    pushed += server.push_image("a", f"full{number}-{tag}", os.urandom(8)) is not None
            # What is there is served.
            assert checkpoint(server).checkpoint.size >= 1
            small_disk.make_room()
            wait_until(lambda: _pushes(server), what="a push after there was room", log=server.log)
            pushed += 1
            checkpoint(server, least=pushed)
        wait_until(
            lambda: b"digestry_log_unsigned_entries 0.0" in server.request("GET", "/metrics").body,
            what="the end of signing",
        )
        assert b"digestry_log_refused 0.0" in server.request("GET", "/metrics").body
        watcher.stop()
        check(server, watcher.seen)
        assert server.stop() == 0
    finally:
        if server.process.poll() is None:
            server.kill()


def _pushes(server: object) -> bool:
    with contextlib.suppress(AssertionError, OSError):
        server.push_image("a", "after", os.urandom(8))  # type: ignore[attr-defined]
        return True
    return False
