"""The order in which processes write: each in its turn, and never a wait without an end."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from digestry.catalog.sqlite import database, write_queue
from digestry.catalog.sqlite.write_queue import WriteQueue
from digestry.errors import StorageBusy
from digestry.model.digest import Digest
from tests.backends import open_catalog

_LONG = 60.0


def test_who_has_just_written_stands_behind_who_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_queue, "_SLICE", 0.0)
    one, two = WriteQueue(tmp_path), WriteQueue(tmp_path)
    assert one.pass_through(lambda: True, seconds=_LONG)
    order: list[str] = []
    waits, free, asked = threading.Event(), threading.Event(), threading.Event()

    def second() -> bool:
        waits.set()
        if free.is_set():
            order.append("two")
        return free.is_set()

    def again() -> bool:
        order.append("one")
        return True

    def ask() -> None:
        asked.set()
        one.pass_through(again, seconds=_LONG)

    threads = [
        threading.Thread(target=lambda: two.pass_through(second, seconds=_LONG)),
        threading.Thread(target=ask),
    ]
    threads[0].start()
    assert waits.wait(_LONG)
    threads[1].start()
    assert asked.wait(_LONG)
    threads[1].join(0.05)
    assert order == []
    free.set()
    for thread in threads:
        thread.join(_LONG)
    assert order == ["two", "one"]


def test_within_its_slice_a_process_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_queue, "_SLICE", _LONG)
    one = WriteQueue(tmp_path)
    assert one.pass_through(lambda: True, seconds=_LONG)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # another waits, first in line
        assert one.pass_through(lambda: True, seconds=0)
    finally:
        os.close(descriptor)


def test_no_wait_is_without_an_end(tmp_path: Path) -> None:
    one = WriteQueue(tmp_path)
    assert not one.pass_through(lambda: False, seconds=0.01)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # a process that was stopped while it stood first
        assert one.pass_through(lambda: True, seconds=0.01)
    finally:
        os.close(descriptor)
    one.close()


def test_without_a_directory_there_is_no_order_and_no_failure(tmp_path: Path) -> None:
    assert WriteQueue(tmp_path / "none").pass_through(lambda: True, seconds=_LONG)


def test_a_lock_that_is_held_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = open_catalog(tmp_path)
    catalog.migrate()
    other = sqlite3.connect(tmp_path / database.FILE, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with monkeypatch.context() as hurried:
            hurried.setattr(database, "BUSY_SECONDS", 0.05)
            with pytest.raises(StorageBusy, match=r"catalog\.db is locked"):
                catalog.add_blob("a/b", Digest.of(b"one"), 3)
        other.execute("ROLLBACK")
        catalog.add_blob("a/b", Digest.of(b"one"), 3)
    finally:
        other.close()
        catalog.close()
