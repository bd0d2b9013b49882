"""Durable writes: what a fault or a crash at each step leaves, and what the caller hears."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from digestry import fsio
from digestry.errors import StorageError
from digestry.file_locks import locked


@contextlib.contextmanager
def broken(**faults: int) -> Iterator[None]:
    """Makes functions of ``os`` fail, each with its errno."""

    def failing(code: int) -> Callable[..., Any]:
        def fail(*_: object, **__: object) -> Any:
            raise OSError(code, os.strerror(code))

        return fail

    with pytest.MonkeyPatch.context() as patch:
        for name, code in faults.items():
            patch.setattr(os, name, failing(code))
        yield


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The order of the system calls that make a write durable, as ``call:name``."""
    seen: list[str] = []

    def name_of(descriptor: int) -> str:
        return Path(f"/proc/self/fd/{descriptor}").readlink().name.partition(".new")[0]

    def spy(name: str, describe: Callable[..., str]) -> None:
        real = getattr(os, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            seen.append(f"{name}:{describe(*args)}")
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, wrapped)

    spy("fdatasync", name_of)
    spy("fsync", name_of)
    spy("replace", lambda _, destination: Path(destination).name)
    spy("unlink", lambda path: Path(path).name)
    spy("mkdir", lambda path, *_: Path(path).name)
    return seen


# -- the order of steps -------------------------------------------------------------------------


def test_publish_syncs_the_bytes_then_the_name(tmp_path: Path, calls: list[str]) -> None:
    temporary, destination = tmp_path / "a.new", tmp_path / "b"
    temporary.write_bytes(b"new")
    destination.write_bytes(b"old")
    fsio.publish(temporary, destination)
    assert calls == ["fdatasync:a", "replace:b", f"fsync:{tmp_path.name}"]
    assert destination.read_bytes() == b"new"
    assert not temporary.exists()


def test_publish_uses_an_open_descriptor(tmp_path: Path, calls: list[str]) -> None:
    temporary, destination = tmp_path / "a.new", tmp_path / "b"
    with temporary.open("wb", buffering=0) as file:
        file.write(b"new")
        fsio.publish(temporary, destination, descriptor=file.fileno())
        assert not file.closed
    assert calls == ["fdatasync:a", "replace:b", f"fsync:{tmp_path.name}"]
    assert destination.read_bytes() == b"new"


def test_write_file(tmp_path: Path, calls: list[str]) -> None:
    path = tmp_path / "a"
    fsio.write_file(path, b"one", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [call.partition(":")[0] for call in calls] == ["fdatasync", "replace", "fsync"]
    fsio.write_file(path, b"")
    assert path.read_bytes() == b""
    assert os.listdir(tmp_path) == ["a"]  # noqa: PTH208


def test_remove_file(tmp_path: Path, calls: list[str]) -> None:
    path = tmp_path / "a"
    path.touch()
    assert fsio.remove_file(path) is True
    assert calls == ["unlink:a", f"fsync:{tmp_path.name}"]
    assert fsio.remove_file(path) is False


def test_make_directory_syncs_every_new_entry(tmp_path: Path, calls: list[str]) -> None:
    fsio.make_directory(tmp_path / "a" / "b")
    assert calls == ["mkdir:a", f"fsync:{tmp_path.name}", "mkdir:b", "fsync:a"]
    calls.clear()
    fsio.make_directory(tmp_path / "a" / "b")
    assert calls == []


def test_make_directory_from_many_threads(tmp_path: Path) -> None:
    problems: list[BaseException] = []
    barrier = threading.Barrier(8)

    def make() -> None:
        barrier.wait()
        try:
            fsio.make_directory(tmp_path / "a" / "b" / "c")
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            problems.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_a_relative_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fsio.make_directory(Path("a/b"))
    assert (tmp_path / "a" / "b").is_dir()


# -- faults -------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["open", "fdatasync", "replace"])
def test_a_fault_before_the_rename_leaves_the_old_bytes(tmp_path: Path, step: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with broken(**{step: errno.ENOSPC}), pytest.raises(StorageError) as raised:
        fsio.write_file(path, b"new")
    assert str(path) in raised.value.message
    assert "No space left" in raised.value.message
    assert "free some space" in raised.value.hint
    assert isinstance(raised.value.__cause__, OSError)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_fault_of_the_last_sync_is_told_and_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with broken(fsync=errno.EIO), pytest.raises(StorageError, match="Input/output error"):
        fsio.write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_while_writing(tmp_path: Path) -> None:
    # A real fault, in a process of its own: no file may grow beyond 1000 bytes.
    script = """
        import resource, signal, sys
        from pathlib import Path
        from digestry import fsio
        from digestry.errors import StorageError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            fsio.write_file(Path(sys.argv[1]), b"n" * 5000)
        except StorageError as error:
            print(error.message)
    """
    path = tmp_path / "a"
    path.write_bytes(b"old")
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"cannot write {path}: File too large\n"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fdatasync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fsio.write_file(tmp_path / "a", b"new")
    assert list(tmp_path.iterdir()) == []


def test_what_failed_first_is_what_is_told(tmp_path: Path) -> None:
    faults = broken(fdatasync=errno.EIO, unlink=errno.EROFS)
    with faults, pytest.raises(StorageError, match="Input/output error"):
        fsio.write_file(tmp_path / "a", b"new")


def operations(path: Path) -> dict[str, Callable[[], object]]:
    return {
        "write": lambda: fsio.write_file(path, b"x"),
        "remove": lambda: fsio.remove_file(path),
        "create the directory": lambda: fsio.make_directory(path),
        "publish": lambda: fsio.publish(path, path),
        "sync the directory": lambda: fsio.sync_directory(path),
        "open the lock file": lambda: locked(path).__enter__(),
    }


@pytest.mark.parametrize("action", operations(Path()))
def test_a_file_where_a_directory_should_be(tmp_path: Path, action: str) -> None:
    (tmp_path / "file").write_bytes(b"in the way")
    path = tmp_path / "file" / "a"
    with pytest.raises(StorageError) as raised:
        operations(path)[action]()
    assert raised.value.message.startswith(f"cannot {action} {path}: ")
    assert (tmp_path / "file").read_bytes() == b"in the way"


def test_a_fault_of_remove_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    with broken(unlink=errno.EROFS), pytest.raises(StorageError, match="Read-only") as raised:
        fsio.remove_file(path)
    assert "mounted read-only" in raised.value.hint
    assert path.exists()


def test_an_error_without_words_is_told_too(tmp_path: Path) -> None:
    assert fsio.storage_error("read", tmp_path, OSError("odd")).message == f"cannot read {tmp_path}: odd"


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), fsio.storage_errors("read", tmp_path):
        _ = 1 / 0


def test_no_descriptor_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_now() -> set[str]:
        # The listing itself is one of those that it lists.
        return {entry.name for entry in Path("/proc/self/fd").iterdir() if entry.exists()}

    def no_lock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    before = open_now()
    path = tmp_path / "a"
    with broken(fsync=errno.EIO):
        for action in ("write", "remove", "publish", "create the directory"):
            path.unlink(missing_ok=True)
            if action in {"remove", "publish"}:
                path.touch()
            with pytest.raises(StorageError, match="Input/output error"):
                operations(path)[action]()
    monkeypatch.setattr(fcntl, "flock", no_lock)
    with pytest.raises(StorageError, match="cannot lock"), locked(tmp_path / "lock"):
        pytest.fail("the lock was not taken")
    assert open_now() == before


# -- crashes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fdatasync", "replace", "fsync"])
def test_killed_at_any_step_the_file_is_old_or_new(tmp_path: Path, step: str) -> None:
    script = """
        import os, signal, sys
        from pathlib import Path
        from digestry import fsio
        setattr(os, sys.argv[2], lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        fsio.write_file(Path(sys.argv[1]), b"new")
    """
    path = tmp_path / "a"
    path.write_bytes(b"old")
    command = [sys.executable, "-c", textwrap.dedent(script), str(path), step]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == (b"new" if step == "fsync" else b"old")
    # What is left is hidden, does not have the file's name, and is in nobody's way.
    leftovers = [entry for entry in tmp_path.iterdir() if entry != path]
    assert all(entry.name.startswith(".a.") for entry in leftovers)
    assert len(leftovers) == (step != "fsync")
    fsio.write_file(path, b"newer")
    assert path.read_bytes() == b"newer"


def test_readers_never_see_a_mixture(tmp_path: Path) -> None:
    path = tmp_path / "a"
    contents = {bytes([letter]) * 50_000 for letter in b"ab"}
    fsio.write_file(path, min(contents))
    done = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(50):
            for content in contents:
                fsio.write_file(path, content)
    finally:
        done.set()
        reader.join()
    assert seen
    assert seen <= contents


# -- early writeback ----------------------------------------------------------------------------


def test_writeback_starts_once_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[int, int, int]] = []
    monkeypatch.setattr(fsio, "_find_sync_file_range", lambda: lambda *range_: started.append(range_))
    writeback = fsio.Writeback(7, offset=100, step=50)
    for end in (100, 120, 149, 150, 160, 199, 260, 260):
        writeback.advance(end)
    assert started == [(7, 100, 50), (7, 150, 110)]


def test_writeback_is_only_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.write(b"x" * 10_000)
        file.flush()
        fsio.Writeback(file.fileno(), step=1).advance(10_000)
    fsio.Writeback(file.fileno() if not file.closed else -1, step=1).advance(10)  # no such descriptor
    monkeypatch.setattr(fsio, "_find_sync_file_range", lambda: None)  # no such call
    fsio.Writeback(0, step=1).advance(10)
    assert (tmp_path / "a").stat().st_size == 10_000


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    old, new = tmp_path / ".name.0123456789abcdef", tmp_path / ".name.fedcba9876543210"
    others = [tmp_path / name for name in ("name", ".hidden", "name.0123456789abcdef", ".name.0123")]
    for path in (old, new, *others):
        path.write_bytes(b"x")
        os.utime(path, (0, 0))
    os.utime(new)
    fsio.sweep_temporaries(tmp_path)
    assert set(tmp_path.iterdir()) == {new, *others}
