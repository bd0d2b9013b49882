from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from digestry import fsio
from digestry.blobs.disk import DiskBlobs
from digestry.blobs.protocols import FullSpeed
from digestry.errors import Conflict, DigestMismatch, NotFound, SizeMismatch, StorageError
from digestry.model.digest import Digest
from tests.blobs.contract import HELLO, HELLO_DIGEST, Damage, StoreContract
from tests.support import wait_until


@pytest.fixture
def store(tmp_path: Path) -> DiskBlobs:
    blobs = DiskBlobs(tmp_path / "store")
    blobs.prepare()
    return blobs


class TestContract(StoreContract):
    """DiskBlobs keeps the contract."""

    @pytest.fixture
    def damage(self, store: DiskBlobs) -> Damage:
        return lambda digest, content: store.path(digest).write_bytes(content)


def leftovers(store: DiskBlobs) -> list[Path]:
    return list((store.root / "ingest").iterdir())


def test_the_layout_on_disk(store: DiskBlobs) -> None:
    store.prepare()  # again: nothing happens
    store.put(HELLO)
    assert (store.root / "oci-layout").read_bytes() == b'{"imageLayoutVersion":"1.0.0"}'
    path = store.root / "blobs" / "sha256" / HELLO_DIGEST.encoded
    assert store.path(HELLO_DIGEST) == path
    assert path.read_bytes() == HELLO
    assert leftovers(store) == []
    assert stat.S_IMODE(path.stat().st_mode) & 0o444


def test_nothing_is_touched_before_prepare(tmp_path: Path) -> None:
    store = DiskBlobs(tmp_path / "store")
    assert list(store.digests()) == []
    assert list(store.ingests()) == []
    assert store.stat(HELLO_DIGEST) is None
    assert not (tmp_path / "store").exists()


def test_failed_commits_leave_no_file(store: DiskBlobs) -> None:
    with store.begin() as ingest:
        ingest.write(b"x")
        with pytest.raises(DigestMismatch):
            ingest.commit(HELLO_DIGEST)
        assert leftovers(store) == []


def test_a_damaged_file_is_told_and_healed(store: DiskBlobs) -> None:
    store.put(HELLO)
    store.path(HELLO_DIGEST).write_bytes(b"hello, damage")
    with pytest.raises(DigestMismatch, match="damaged") as caught:
        store.read(HELLO_DIGEST)
    assert "pull or push" in caught.value.hint
    assert "its bytes hash to" in (store.verify(HELLO_DIGEST, len(HELLO), FullSpeed()).problem or "")
    store.put(HELLO)
    assert store.read(HELLO_DIGEST) == HELLO
    assert store.verify(HELLO_DIGEST, len(HELLO), FullSpeed()).problem is None


def test_digests_passes_strangers_over(store: DiskBlobs) -> None:
    store.put(HELLO)
    (store.root / "blobs" / "sha256" / "README").write_text("not a blob")
    (store.root / "blobs" / "sha256" / ("Z" * 64)).write_text("not a blob")
    assert list(store.digests()) == [HELLO_DIGEST]


# -- uploads that several requests, or processes, carry on ----------------------------------------


def test_an_ingest_goes_on_in_another_opening(store: DiskBlobs) -> None:
    with store.ingest("upload-1") as first:
        first.write_all([b"hel", b"", b"lo"])
    assert list(store.ingests()) == ["upload-1"]
    with store.ingest("upload-1", create=False) as second:
        assert second.offset == 5
        second.write(HELLO[5:])
        assert second.digest() == HELLO_DIGEST  # read again: this opening did not see the start
        second.commit(HELLO_DIGEST, len(HELLO))
    assert store.read(HELLO_DIGEST) == HELLO
    assert list(store.ingests()) == []


def test_bytes_after_the_offset_are_cut_off(store: DiskBlobs) -> None:
    with store.ingest("u") as ingest:
        ingest.write(b"hello and what was never acknowledged")
    with store.ingest("u") as ingest:
        ingest.resume(5)
        assert ingest.offset == 5
        ingest.write(HELLO[5:])
        ingest.commit(HELLO_DIGEST)
    assert store.read(HELLO_DIGEST) == HELLO


def test_a_known_digest_saves_reading_again(store: DiskBlobs) -> None:
    with store.ingest("u") as ingest:
        ingest.write(HELLO)
        known = ingest.digest()
    with store.ingest("u") as ingest:
        ingest.resume(len(HELLO), known)
        # Damage that only reading again could see shows that it was not read again.
        ingest.path.write_bytes(b"HELLO, DIGEST")
        ingest.commit(HELLO_DIGEST)
    assert store.stat(HELLO_DIGEST) == len(HELLO)


def test_a_known_digest_ends_with_the_next_byte(store: DiskBlobs) -> None:
    with store.ingest("u") as ingest:
        ingest.write(b"hello")
        known = ingest.digest()
    with store.ingest("u") as ingest:
        ingest.resume(5, known)
        ingest.write(HELLO[5:])
        ingest.commit(HELLO_DIGEST)
    assert store.read(HELLO_DIGEST) == HELLO


def test_an_ingest_in_another_algorithm_than_it_was_opened_with(store: DiskBlobs) -> None:
    with store.ingest("u") as ingest:
        ingest.write(HELLO)
        assert ingest.digest("sha512") == Digest.of(HELLO, "sha512")
        ingest.commit(Digest.of(HELLO, "sha512"))
    assert store.read(Digest.of(HELLO, "sha512")) == HELLO


def test_two_writers_exclude_each_other(store: DiskBlobs) -> None:
    with store.ingest("u") as ingest:
        ingest.write(HELLO)
        with pytest.raises(Conflict, match="another request"):
            store.ingest("u")
        with pytest.raises(Conflict):
            store.discard("u")
        assert store.sweep_ingests(older_than=-1) == []
    assert store.discard("u") is True
    assert store.discard("u") is False


def test_two_processes_exclude_each_other(store: DiskBlobs) -> None:
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from digestry.blobs.disk import DiskBlobs
        from digestry.errors import Conflict
        try:
            DiskBlobs(Path(sys.argv[1])).ingest("u")
        except Conflict:
            print("conflict")
    """)
    with store.ingest("u"):
        answer = subprocess.run(
            [sys.executable, "-c", program, store.root], capture_output=True, text=True, check=True
        )
    assert answer.stdout == "conflict\n"


def test_an_ingest_that_must_exist(store: DiskBlobs) -> None:
    with pytest.raises(NotFound):
        store.ingest("never-begun", create=False)
    assert leftovers(store) == []


def test_lost_bytes_are_told(store: DiskBlobs) -> None:
    with store.ingest("u") as ingest:
        ingest.write(b"hello")
    with store.ingest("u") as ingest, pytest.raises(StorageError, match="holds 5 bytes, but 9"):
        ingest.resume(9)
    store.discard("u")  # and no lock stays behind


@pytest.mark.parametrize("name", ["../escape", "", ".hidden", "a/b", "a\n", "a" * 200])
def test_a_name_cannot_leave_the_directory(store: DiskBlobs, name: str) -> None:
    with pytest.raises(StorageError):
        store.ingest(name)


def test_a_declared_size_stops_many_chunks(store: DiskBlobs) -> None:
    with store.begin(size=6) as ingest:
        ingest.write(b"hello")
        with pytest.raises(SizeMismatch):
            ingest.write_all([b",", b" "])
        assert ingest.offset == 5


def test_more_chunks_than_one_system_call_takes(store: DiskBlobs) -> None:
    chunks = [bytes([n % 251]) for n in range(5000)]
    with store.begin() as ingest:
        ingest.write_all(chunks)
        ingest.commit(Digest.of(b"".join(chunks)), 5000)


def test_use_after_the_end(store: DiskBlobs) -> None:
    ingest = store.begin()
    ingest.commit(Digest.of(b""))
    with pytest.raises(StorageError, match="already"):
        ingest.write(b"x")
    with pytest.raises(StorageError, match="already"):
        ingest.write_all([b"x"])
    with pytest.raises(StorageError, match="already"):
        ingest.commit(Digest.of(b""))


# -- crashes and faults -----------------------------------------------------------------------------


def test_what_a_killed_process_leaves_is_swept(store: DiskBlobs) -> None:
    program = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from digestry.blobs.disk import DiskBlobs
        DiskBlobs(Path(sys.argv[1])).begin().write(b"half of it")
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    subprocess.run([sys.executable, "-c", program, store.root], check=False)
    assert len(leftovers(store)) == 1
    assert store.sweep_ingests(older_than=3600) == []
    old = time.time() - 7200
    os.utime(leftovers(store)[0], (old, old))
    assert len(store.sweep_ingests(older_than=3600)) == 1
    assert leftovers(store) == []
    assert list(store.digests()) == []


def test_a_short_write_goes_on(store: DiskBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, views, at: real(fd, [views[0][:3]], at))
    with store.begin() as ingest:
        ingest.write_all([HELLO[:4], HELLO[4:]])
        ingest.commit(HELLO_DIGEST, len(HELLO))
    assert store.read(HELLO_DIGEST) == HELLO


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["pwritev", "fdatasync", "fsync"])
def test_a_full_disk(store: DiskBlobs, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setattr(os, call, full)
    with pytest.raises(StorageError, match="No space") as caught:
        store.put(HELLO)
    assert "free some space" in caught.value.hint
    monkeypatch.undo()
    assert leftovers(store) == []


def test_a_failed_write_can_go_on_from_the_offset(store: DiskBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.ingest("u") as ingest:
        ingest.write(HELLO[:5])
        monkeypatch.setattr(os, "pwritev", full)
        with pytest.raises(StorageError):
            ingest.write(HELLO[5:])
        monkeypatch.undo()
        assert ingest.offset == 5
        ingest.write(HELLO[5:])
        ingest.commit(HELLO_DIGEST)


def test_faults_while_reading_and_listing(store: DiskBlobs) -> None:
    store.path(HELLO_DIGEST).mkdir()
    with pytest.raises(DigestMismatch, match="no regular file"):
        store.read(HELLO_DIGEST)
    with pytest.raises(StorageError):
        store.delete(HELLO_DIGEST)
    sha512 = store.root / "blobs" / "sha512"
    sha512.rmdir()
    sha512.write_text("not a directory")
    with pytest.raises(StorageError):
        list(store.digests())


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")  # relative: the whole path would be too long for one
    Path("socket").rename(path)


@pytest.mark.parametrize("kind", [pipe, device, listening])
def test_what_is_no_file_is_neither_read_nor_waited_for(
    store: DiskBlobs, kind: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store.root)
    kind(store.path(HELLO_DIGEST))
    for read in (store.read, store.open):
        with pytest.raises(DigestMismatch, match="no regular file"):
            read(HELLO_DIGEST)
    assert store.verify(HELLO_DIGEST, 5, FullSpeed()).problem == "it is no regular file"


def test_bytes_are_durable_before_they_have_their_name(
    store: DiskBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_sync, real_replace, real_directory = os.fdatasync, Path.replace, fsio.sync_directory

    def fdatasync(descriptor: int) -> None:
        calls.append("fdatasync")
        real_sync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        calls.append("rename")
        return real_replace(self, target)

    def sync_directory(path: Path) -> None:
        calls.append("fsync directory")
        real_directory(path)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(fsio, "sync_directory", sync_directory)
    store.put(HELLO)
    assert calls == ["fdatasync", "rename", "fsync directory"]
    calls.clear()
    store.put_all([(b"%d" % number, Digest.of(b"%d" % number)) for number in range(3)])
    assert calls == ["fdatasync"] * 3 + ["rename"] * 3 + ["fsync directory"]


def test_a_long_stream_is_hashed_beside_the_writing(tmp_path: Path) -> None:
    """In parts of every length, of bytes that last and of buffers that are used again."""
    blobs = DiskBlobs(tmp_path)
    blobs.prepare()
    content = os.urandom(5 << 20)
    for sizes in ([1 << 20] * 5, [700_000, 3, 600_001, 1, 900_000], [len(content)]):
        with blobs.begin() as ingest:
            place = 0
            buffer = bytearray(1 << 20)
            for number, size in enumerate(sizes):
                part = content[place : place + size]
                place += size
                if number % 2:
                    buffer[: len(part)] = part
                    ingest.write(memoryview(buffer)[: len(part)])
                    buffer[: len(part)] = bytes(len(part))
                else:
                    ingest.write_all([part[:100], part[100:]])
            digest = Digest.of(content[:place])
            assert ingest.digest() == digest
            ingest.commit(digest, place)
        assert blobs.verify(digest, place, FullSpeed()).problem is None


def test_an_upload_that_is_given_up_leaves_no_thread(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path)
    blobs.prepare()
    before = threading.active_count()
    for _ in range(5):
        with blobs.begin() as ingest:
            ingest.write(bytes(2 << 20))
    wait_until(lambda: threading.active_count() <= before, what="the end of the threads")


def test_a_directory_of_incoming_content_that_somebody_removed_is_made_again(store: DiskBlobs) -> None:
    """Two copies into one layout: the one that ends first removes it if it is empty."""
    ingests = store.root / "ingest"
    ingests.rmdir()
    store.put(HELLO)
    ingests.rmdir()
    small = Digest.of(b"small")
    assert store.put_all([(b"small", small)]) == [None]
    assert set(store.digests()) == {HELLO_DIGEST, small}
