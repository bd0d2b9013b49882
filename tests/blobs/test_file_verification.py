"""Whether a file still is what its name says, and what the reading leaves in memory."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from digestry.blobs.disk import DiskBlobs
from digestry.blobs.failures import Unreadable
from digestry.blobs.file_verification import file_revision, verify_file
from digestry.blobs.protocols import GONE, FullSpeed
from digestry.errors import StorageError
from digestry.model.digest import Digest

CONTENT = os.urandom(3_000_000)
THROTTLE = FullSpeed()


@pytest.fixture
def store(tmp_path: Path) -> DiskBlobs:
    blobs = DiskBlobs(tmp_path / "store")
    blobs.prepare()
    return blobs


@pytest.fixture(params=[0, 10, len(CONTENT)])
def content(request: pytest.FixtureRequest) -> bytes:
    size: int = request.param
    return CONTENT[:size]


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


HARMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (flip, "its bytes hash to sha256:"),
    "cut": (lambda path: os.truncate(path, 5), "it has 5 bytes, not"),
    "emptied": (lambda path: os.truncate(path, 0), "it has 0 bytes, not"),
    "longer": (lambda path: path.write_bytes(CONTENT + b"x"), "bytes, not"),
    "gone": (Path.unlink, GONE),
    "a directory": (directory, "it is no regular file"),
    "a pipe": (pipe, "it is no regular file"),
    "a link to nothing": (nowhere, GONE),
    "a link to itself": (itself, "it cannot be opened: "),
}


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_what_is_whole(store: DiskBlobs, content: bytes, algorithm: str) -> None:
    digest = store.put(content, Digest.of(content, algorithm))
    path = store.path(digest)
    for size in (len(content), None):
        found = verify_file(path, digest, size, THROTTLE)
        assert found.problem is None
        assert found.revision == file_revision(path)
    moved = store.root / "elsewhere"
    path.rename(moved)
    path.symlink_to(moved)  # somebody needed the space: it still is that content
    assert verify_file(path, digest, len(content), THROTTLE).problem is None


@pytest.mark.parametrize("harm", HARMS)
def test_every_sort_of_damage(store: DiskBlobs, harm: str) -> None:
    digest = store.put(CONTENT)
    path = store.path(digest)
    do, words = HARMS[harm]
    do(path)
    found = verify_file(path, digest, len(CONTENT), THROTTLE)
    assert words in (found.problem or "")
    assert found.revision == file_revision(path)
    assert (found.revision is None) == (harm == "gone")


def failing(monkeypatch: pytest.MonkeyPatch, function: str, number: int) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, function, fail)


@pytest.mark.parametrize("function", ["open", "preadv"])
def test_what_the_disk_cannot_give_any_more_is_damage(
    store: DiskBlobs, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    digest = store.put(CONTENT)
    path = store.path(digest)
    with monkeypatch.context() as patch:
        failing(patch, function, errno.EIO)
        found = verify_file(path, digest, len(CONTENT), THROTTLE)
    assert "Input/output error" in (found.problem or "")
    assert found.revision == file_revision(path)


@pytest.mark.parametrize(
    ("number", "alone"),
    [(errno.EACCES, True), (errno.ESTALE, True), (errno.EMFILE, False), (errno.ENOMEM, False)],
)
@pytest.mark.parametrize("function", ["open", "preadv"])
def test_trouble_that_says_nothing_about_the_content(
    store: DiskBlobs, monkeypatch: pytest.MonkeyPatch, function: str, number: int, *, alone: bool
) -> None:
    digest = store.put(CONTENT)
    with monkeypatch.context() as patch:
        failing(patch, function, number)
        with pytest.raises(StorageError) as caught:
            verify_file(store.path(digest), digest, len(CONTENT), THROTTLE)
    assert isinstance(caught.value, Unreadable) == alone


def test_a_store_that_is_not_there_does_not_make_everything_damaged(store: DiskBlobs) -> None:
    digest = store.put(CONTENT)
    (store.root / "blobs/sha256").rename(store.root / "away")
    with pytest.raises(StorageError, match="is not there") as caught:
        verify_file(store.path(digest), digest, len(CONTENT), THROTTLE)
    assert not isinstance(caught.value, Unreadable)
    assert "mounted" in caught.value.hint


def test_what_is_bad_in_memory_alone_is_whole(store: DiskBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = store.put(CONTENT)
    real = os.preadv
    lies = [True]

    def lying(descriptor: int, buffers: list[memoryview], position: int, flags: int = 0) -> int:
        count = real(descriptor, buffers, position, flags)
        if lies:
            lies.clear()
            buffers[0][0] ^= 1
        return count

    monkeypatch.setattr(os, "preadv", lying)
    assert verify_file(store.path(digest), digest, len(CONTENT), THROTTLE).problem is None
    assert not lies


class Counting:
    """A throttle that notes what it was asked for."""

    chunk = 3 * mmap.PAGESIZE + 5  # pages are read whole

    def __init__(self) -> None:
        self.asked: list[int] = []

    def take(self, count: int) -> None:
        self.asked.append(count)


def test_as_much_is_asked_of_the_throttle_as_there_is(store: DiskBlobs) -> None:
    pages = 3 * mmap.PAGESIZE
    size = 2 * pages + 500
    digest = store.put(CONTENT[:size])
    throttle = Counting()
    assert verify_file(store.path(digest), digest, size, throttle).problem is None
    assert throttle.asked == [pages, pages, 500]


def in_memory(path: Path) -> int:
    """How many of a file's pages are in the page cache (mincore(2))."""
    size = path.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as mapped:
        states = (ctypes.c_ubyte * pages)()
        view = (ctypes.c_char * size).from_buffer(mapped)
        assert libc.mincore(ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(size), states) == 0
        del view
        return sum(state & 1 for state in states)


def dropped(path: Path) -> bool:
    """Puts a file out of the page cache; False on a file system that keeps all of it there."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    return in_memory(path) == 0


def test_the_page_cache_is_left_as_it_was(store: DiskBlobs) -> None:
    hot, cold = store.put(CONTENT), store.put(CONTENT[1:])
    if not dropped(store.path(cold)):
        pytest.skip("this file system is memory")
    store.path(hot).read_bytes()
    before = in_memory(store.path(hot))
    for digest, size in ((hot, len(CONTENT)), (cold, len(CONTENT) - 1)):
        assert verify_file(store.path(digest), digest, size, THROTTLE).problem is None
    assert in_memory(store.path(cold)) < 40  # of 733
    assert in_memory(store.path(hot)) > before // 2  # what the kernel needed itself, it took


def test_memory_can_be_told_to_forget_the_file(store: DiskBlobs) -> None:
    digest = store.put(CONTENT)
    path = store.path(digest)
    if not dropped(path):
        pytest.skip("this file system is memory")
    path.read_bytes()  # as if one of these pages were wrong
    assert verify_file(path, digest, len(CONTENT), THROTTLE, uncached=True).problem is None
    assert in_memory(path) == 0


def from_disk() -> int:
    """How many bytes this process has made the disk read."""
    try:
        text = Path("/proc/self/io").read_text()
    except OSError:
        pytest.skip("the system does not tell who reads how much")
    return int(text.partition("\nread_bytes: ")[2].partition("\n")[0])


def test_the_disk_is_read_whatever_memory_has(store: DiskBlobs) -> None:
    digest = store.put(CONTENT)
    path = store.path(digest)
    if not dropped(path):
        pytest.skip("this file system is memory")
    path.read_bytes()
    assert in_memory(path) == -(-len(CONTENT) // mmap.PAGESIZE)
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        pytest.skip("this file system cannot be read past memory")
    before = from_disk()
    assert verify_file(path, digest, len(CONTENT), THROTTLE).problem is None
    assert from_disk() - before >= len(CONTENT)


@pytest.mark.parametrize("when", ["at once", "after a part"])
def test_a_file_system_that_cannot_be_read_past_memory(
    store: DiskBlobs, content: bytes, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    digest = store.put(content)
    real = os.preadv

    def refusing(descriptor: int, buffers: list[memoryview], position: int, flags: int = 0) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT and (position or when == "at once"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(descriptor, buffers, position, flags)

    monkeypatch.setattr(os, "preadv", refusing)
    path = store.path(digest)
    assert verify_file(path, digest, len(content), THROTTLE).problem is None
    if content:
        flip(path)
        assert "its bytes hash to" in (verify_file(path, digest, len(content), THROTTLE).problem or "")
