"""Advisory locks on files."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from digestry.errors import Conflict, StorageError
from digestry.file_locks import check_locks, locked
from tests.support import open_directory


def test_a_held_lock_is_a_conflict_in_the_callers_words(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path):
        with (
            pytest.raises(Conflict, match="somebody serves"),
            locked(path, wait=False, held="somebody serves"),
        ):
            pytest.fail("the lock was taken twice")
        with pytest.raises(Conflict, match="in use by another process"), locked(path, wait=False):
            pytest.fail("the lock was taken twice")
    with locked(path, wait=False):
        pass


def test_shared_locks_share(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        locked(path, shared=True),
        locked(path, shared=True, wait=False),
        pytest.raises(Conflict),
        locked(path, wait=False),
    ):
        pytest.fail("an exclusive lock was taken beside shared ones")
    with locked(path), pytest.raises(Conflict), locked(path, shared=True, wait=False):
        pytest.fail("a shared lock was taken beside an exclusive one")


def test_a_lock_file_that_was_removed_or_replaced_is_noticed(tmp_path: Path) -> None:
    path, beside = tmp_path / "lock", tmp_path / "beside"
    beside.mkdir()
    with locked(path, beside=beside) as lock:
        lock.check()
        path.unlink()
        with pytest.raises(Conflict, match="removed or replaced"):
            lock.check()
        # Who comes now gets the new file, but not the directory.
        with (
            pytest.raises(Conflict, match="served"),
            locked(path, wait=False, held="served", beside=beside),
        ):
            pytest.fail("the lock was taken twice")
        path.write_bytes(b"")
        with pytest.raises(Conflict, match="removed or replaced"):
            lock.check()
    with locked(path, wait=False, beside=beside) as lock:
        lock.check()


def test_who_waited_for_a_file_that_was_removed_meanwhile_locks_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with ThreadPoolExecutor(1) as pool:

        def wait() -> None:
            with locked(path) as lock:
                lock.check()

        with locked(path):
            waiting = pool.submit(wait)
            time.sleep(0.2)
            path.unlink()
        waiting.result(timeout=10)


def test_locks_that_lock(tmp_path: Path) -> None:
    check_locks(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["flock", "fcntl"])
def test_locks_that_do_not_lock_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(fcntl, kind, lambda *_: 0)
    with pytest.raises(StorageError, match="do not lock"):
        check_locks(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_block_is_the_blocks_and_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(BlockingIOError), locked(path):
        raise BlockingIOError
    with locked(path, wait=False):
        pass


def test_waiting_for_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    order: list[str] = []
    holding = threading.Event()

    def hold() -> None:
        with locked(path):
            holding.set()
            order.append("first")

    with locked(path):
        other = threading.Thread(target=hold)
        other.start()
        assert not holding.wait(0.05)
        order.append("before")
    other.join(timeout=60)
    assert order == ["before", "first"]


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    script = """
        import sys, time
        from pathlib import Path
        from digestry.file_locks import locked
        with locked(Path(sys.argv[1])):
            print("held", flush=True)
            time.sleep(60)
    """
    path = tmp_path / "lock"
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(Conflict), locked(path, wait=False):
                pytest.fail("another process holds it")
        finally:
            holder.kill()
    with locked(path, wait=False):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_lock_file_that_another_user_made() -> None:
    """A backup that root takes must not keep the server's user from its own locks."""
    script = """
        import os, sys
        from pathlib import Path
        from digestry.errors import Conflict
        from digestry.file_locks import locked
        path = Path(sys.argv[1])
        os.setuid(12345)
        with locked(path, wait=False):
            try:
                with locked(path, shared=True, wait=False):
                    print("both")
            except Conflict:
                print("one")
    """
    with open_directory("digestry-lock-") as directory:
        path = directory / "x.lock"
        before = os.umask(0o022)
        try:
            with locked(path):
                pass
        finally:
            os.umask(before)
        command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("one\n", "")
