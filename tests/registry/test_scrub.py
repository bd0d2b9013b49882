"""Scrub and quarantine, on the stores themselves: what is found, moved, kept, told and healed."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from digestry.backend import open_backend
from digestry.blobs.protocols import GONE, QuarantinedBlob, Verification
from digestry.catalog import clock
from digestry.catalog.job_states import SCRUB
from digestry.coordination.files import lock_file
from digestry.coordination.protocol import Job
from digestry.errors import Conflict, StorageError
from digestry.file_locks import locked
from digestry.model.digest import Digest
from digestry.registry.quarantine import Quarantine
from digestry.registry.scrub import Pass, RateThrottle, Scrub, ScrubConfig, ScrubJob, Stopped, last
from tests.backends import open_blobs, open_catalog, open_coordination
from tests.catalog.support import Clock
from tests.stores import blob_file, needs_disk
from tests.support import PATIENCE, start_registry, wait_until

FAST = 1 << 40


class Store:
    """The stores of a registry that nobody serves."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = open_blobs(root)
        self.coordination = open_coordination(root)
        self.blobs.prepare()
        self.catalog = open_catalog(root)
        self.catalog.migrate()
        self.quarantine = Quarantine(self.blobs, self.coordination, self.catalog.damage)

    def push(self, content: bytes, repository: str = "x") -> Digest:
        digest = Digest.of(content)
        with self.coordination.guard(digest):
            self.blobs.put(content, digest)
            self.catalog.add_blob(repository, digest, len(content))
        return digest

    def scrub(self, *, rate: int = FAST, stop: threading.Event | None = None, **options: object) -> Pass:
        made = Scrub(self.catalog, open_backend(self.root), rate=rate)
        return made.run(stop or threading.Event(), **options)  # type: ignore[arg-type]

    def quarantined(self, digest: Digest) -> list[QuarantinedBlob]:
        return list(self.blobs.quarantined(digest))

    def damaged(self) -> dict[Digest, str]:
        return {row.digest: row.problem for row in self.catalog.damage.listed(limit=1000)}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "root")
    yield made
    made.catalog.close()


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").touch()


def nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


HARMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped": (flip, "its bytes hash to"),
    "cut": (lambda path: os.truncate(path, 5), "it has 5 bytes, not"),
    "gone": (Path.unlink, GONE),
    "a directory": (directory, "it is no regular file"),
    "a link to nothing": (nowhere, GONE),
}


@pytest.mark.parametrize("size", [1000, 2_000_000])
@pytest.mark.parametrize("harm", HARMS)
def test_damage_is_found_set_aside_and_healed_by_the_next_push(store: Store, harm: str, size: int) -> None:
    content = os.urandom(size)
    digest, fine = store.push(content), store.push(b"fine")
    path = blob_file(store.root, digest)
    do, words = HARMS[harm]
    do(path)
    bad = path.read_bytes() if path.is_file() else None
    found = store.scrub()
    assert (found.blobs, found.damaged, found.unread, found.passes) == (2, 1, 0, 1)
    assert found.bytes == size + 4
    (known,) = store.damaged().items()
    assert known[0] == digest
    assert words in known[1]
    assert not os.path.lexists(path)
    aside = store.quarantined(digest)
    assert len(aside) == (harm != "gone")
    if bad is not None:
        assert Path(aside[0].location).read_bytes() == bad  # nothing is deleted
    assert store.scrub().damaged == 1  # it stays so, and nothing is moved again
    assert store.quarantined(digest) == aside

    assert store.push(content) == digest
    assert store.damaged() == {}
    assert store.scrub().damaged == 0
    assert store.blobs.read(digest) == content
    assert store.blobs.read(fine) == b"fine"


def test_damaged_twice(store: Store) -> None:
    digest = store.push(b"content")
    for _ in range(2):
        flip(blob_file(store.root, digest))
        assert store.scrub().damaged == 1
        store.push(b"content")
    assert len(store.quarantined(digest)) == 2


def test_a_file_that_was_put_back_by_hand_is_served_again(store: Store) -> None:
    digest = store.push(b"content")
    path = blob_file(store.root, digest)
    path.unlink()
    assert store.scrub().damaged == 1
    path.write_bytes(b"contenT")
    assert store.scrub().damaged == 1
    assert len(store.quarantined(digest)) == 1
    path.write_bytes(b"content")
    assert store.scrub().damaged == 0
    assert store.damaged() == {}


def test_what_nobody_can_be_served_is_left_to_the_collector(store: Store) -> None:
    digest = store.blobs.put(b"nobody's")
    flip(blob_file(store.root, digest))
    assert store.quarantine.verify(digest, 8) is False
    found = store.scrub()
    assert (found.blobs, found.damaged) == (0, 0)
    assert blob_file(store.root, digest).exists()
    gone = store.push(b"deleted")
    store.blobs.delete(gone)
    assert store.scrub().damaged == 1
    store.catalog.delete_blob("x", gone)
    assert store.scrub().damaged == 0
    assert store.damaged() == {}


# -- stopped, killed, resumed ----------------------------------------------------------------------


def test_a_pass_goes_on_where_it_was(store: Store) -> None:
    digests = sorted(store.push(b"%d" % number) for number in range(30))
    for digest in digests:
        flip(blob_file(store.root, digest))
    stop = threading.Event()

    def watch(current: Pass) -> None:
        if current.blobs == 10:
            stop.set()

    first = store.scrub(stop=stop, watch=watch)
    assert (first.blobs, first.finished_at, first.passes) == (10, None, 0)
    assert 0 < first.done < 1
    assert sorted(store.damaged()) == digests[:10]
    kept = store.catalog.jobs.state(SCRUB)
    assert kept is not None
    assert kept.finished_at is None
    assert kept.state == {
        "after": str(digests[9]),
        "blobs": 10,
        "bytes": first.bytes,
        "damaged": 10,
        "unread": 0,
        "passes": 0,
        "rate": FAST,
    }
    # Healed behind the place: the rest of the pass does not go back.
    store.push(b"%d" % next(number for number in range(30) if Digest.of(b"%d" % number) == digests[0]))
    flip(blob_file(store.root, digests[0]))
    second = store.scrub()
    assert second.started_at == first.started_at
    assert (second.blobs, second.damaged, second.passes, second.done) == (30, 30, 1, 1.0)
    assert digests[0] not in store.damaged()
    third = store.scrub()
    assert third.started_at > second.started_at
    assert (third.blobs, third.passes) == (30, 2)
    assert sorted(store.damaged()) == digests


def test_from_the_start(store: Store) -> None:
    for number in range(10):
        store.push(b"%d" % number)
    stop = threading.Event()
    store.scrub(stop=stop, watch=lambda _: stop.set())
    assert store.scrub(from_start=True).blobs == 10


_KILLED = """
import os, signal, sys, threading
from pathlib import Path
from digestry import fsio
from digestry.blobs.disk import DiskBlobs
from digestry.backend import open_backend
from digestry.registry.scrub import Scrub
root, place = Path(sys.argv[1]), sys.argv[2]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if place == "before the move":
    DiskBlobs.quarantine = die
elif place == "after the rename":
    real = fsio.sync_directory
    fsio.sync_directory = lambda path: die() if path.parent.name == "quarantine" else real(path)
backend = open_backend(root)
Scrub(backend.open_catalog(), backend, rate=1 << 40).run(
    threading.Event(), watch=lambda current: die() if current.blobs == 5 and place == "between" else None
)
"""


@pytest.mark.long
@pytest.mark.parametrize("place", ["before the move", "after the rename", "between"])
def test_a_kill_leaves_what_the_next_scrub_completes(store: Store, place: str) -> None:
    contents = {Digest.of(b"%d" % number): b"%d" % number for number in range(10)}
    digests = sorted(contents)
    for content in contents.values():
        store.push(content)
    bad = digests[4]
    flip(blob_file(store.root, bad))
    done = subprocess.run([sys.executable, "-c", _KILLED, str(store.root), place], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(store.damaged()) == [bad]  # from here on nobody is served it
    assert blob_file(store.root, bad).exists() == (place == "before the move")
    found = store.scrub()
    assert (found.blobs, found.damaged, found.passes) == (10, 1, 1)
    assert not blob_file(store.root, bad).exists()
    assert len(store.quarantined(bad)) == 1
    store.push(contents[bad])
    assert store.scrub().damaged == 0


def test_one_at_a_time(store: Store) -> None:
    store.push(b"content")
    job = ScrubJob(open_backend(store.root), ScrubConfig())
    with locked(store.root / lock_file(Job.SCRUB)):
        with pytest.raises(Conflict, match="under way"):
            store.scrub()
        assert job.run(threading.Event()) == 5.0  # it waits its turn
    assert store.scrub().blobs == 1


def test_what_another_process_has_just_done_is_not_done_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.push(b"content")
    job = ScrubJob(open_backend(store.root), ScrubConfig())
    real = job._scrub.run

    def later(*arguments: Any, **options: Any) -> Pass:
        store.scrub()  # another process was faster
        return real(*arguments, **options)

    monkeypatch.setattr(job._scrub, "run", later)
    job.run(threading.Event())
    found = last(store.catalog)
    assert found is not None
    assert found.passes == 1


def test_who_loses_the_lock_scrubs_no_further(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        store.push(str(number).encode())
    looked = []

    def look(*arguments: Any, **_: Any) -> bool:
        looked.append(arguments)
        (store.root / lock_file(Job.SCRUB)).unlink()
        return False

    monkeypatch.setattr(store.quarantine, "verify", look)
    scrub = Scrub(store.catalog, open_backend(store.root), rate=1 << 30)
    monkeypatch.setattr(scrub, "_quarantine", store.quarantine)
    with pytest.raises(Conflict, match="removed or replaced"):
        scrub.run(threading.Event())
    assert len(looked) == 1


# -- pushes meanwhile ------------------------------------------------------------------------------


def test_a_push_between_the_look_and_the_move_wins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = store.push(b"content")
    flip(blob_file(store.root, digest))
    real = store.blobs.verify

    def verify(*arguments: Any, **options: Any) -> Verification:
        found = real(*arguments, **options)
        store.push(b"content")
        return found

    monkeypatch.setattr(store.blobs, "verify", verify)
    assert store.quarantine.verify(digest, 7) is False
    assert store.damaged() == {}
    assert store.blobs.read(digest) == b"content"
    assert store.quarantined(digest) == []


def test_a_push_that_has_not_committed_is_waited_for(store: Store) -> None:
    digest = store.push(b"content")
    flip(blob_file(store.root, digest))
    with store.coordination.guard(digest):
        looker = threading.Thread(target=store.quarantine.verify, args=(digest, 7))
        looker.start()
        time.sleep(0.3)
        assert looker.is_alive()
        assert store.damaged() == {}
        store.blobs.put(b"content", digest)
        store.catalog.add_blob("x", digest, 7)
    looker.join(PATIENCE)
    assert store.damaged() == {}
    assert store.blobs.read(digest) == b"content"


@pytest.mark.long
def test_pushes_damage_and_looks_all_at_once(store: Store) -> None:
    """Whole content is never set aside, and what was pushed last is there."""
    needs_disk(store.root)
    contents = [os.urandom(100_000) for _ in range(2)]
    digests = [store.push(content) for content in contents]
    end = time.monotonic() + 2
    failures: list[BaseException] = []

    def again(function: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                while time.monotonic() < end:
                    function()
            except BaseException as error:  # noqa: BLE001 - told below
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def push() -> None:
        for content in contents:
            store.push(content)

    def harm() -> None:
        for digest, content in zip(digests, contents, strict=True):
            with contextlib.suppress(FileNotFoundError), blob_file(store.root, digest).open("r+b") as file:
                file.write(bytes([content[0] ^ 1]))
        time.sleep(0.005)

    def look() -> None:
        for digest, content in zip(digests, contents, strict=True):
            store.quarantine.verify(digest, len(content), known=store.catalog.damage.known(digest))

    threads = [again(one) for one in (push, push, harm, look, look)]
    for thread in threads:
        thread.join(PATIENCE)
    assert failures == []
    for digest, content in zip(digests, contents, strict=True):
        set_aside = store.quarantined(digest)
        assert all(Path(blob.location).read_bytes() != content for blob in set_aside)
        store.push(content)
        assert store.quarantine.verify(digest, len(content)) is False
        assert store.blobs.read(digest) == content
    assert store.damaged() == {}


# -- what is no damage -----------------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, path: Path, number: int) -> None:
    real = os.open

    def fail(name: object, *arguments: object, **options: object) -> int:
        if name == path:
            raise OSError(number, os.strerror(number))
        return real(name, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", fail)


def test_a_file_that_may_not_be_read_is_said_and_the_rest_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = [store.push(b"%d" % number) for number in range(5)]
    with monkeypatch.context() as patch:
        failing(patch, blob_file(store.root, digests[2]), errno.EACCES)
        found = store.scrub()
    assert (found.blobs, found.unread, found.damaged) == (5, 1, 0)
    (problem,) = found.problems
    assert "Permission denied" in problem
    assert store.damaged() == {}


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_the_scrubs_own_trouble_ends_it_and_damages_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    digests = sorted(store.push(b"%d" % number) for number in range(5))
    with monkeypatch.context() as patch:
        failing(patch, blob_file(store.root, digests[2]), number)
        with pytest.raises(StorageError):
            store.scrub()
    assert store.damaged() == {}
    found = last(store.catalog)
    assert found is not None
    assert found.after == str(digests[1])
    assert store.scrub().blobs == 5


def test_a_disk_that_is_not_mounted_damages_nothing(store: Store) -> None:
    store.push(b"content")
    (needs_disk(store.root) / "blobs").rename(store.root / "away")
    with pytest.raises(StorageError, match="is not there"):
        store.scrub()
    (store.root / "away").rename(store.root / "blobs")
    assert store.scrub().damaged == 0


def test_a_quarantine_that_cannot_be_written_is_told_and_nothing_bad_is_served(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = store.push(b"content")
    flip(blob_file(store.root, digest))
    (store.root / "quarantine").touch()  # no directory can be made there
    with pytest.raises(StorageError):
        store.scrub()
    assert list(store.damaged()) == [digest]
    (store.root / "quarantine").unlink()
    assert store.scrub().damaged == 1
    assert len(store.quarantined(digest)) == 1


# -- how fast, and when ----------------------------------------------------------------------------


@pytest.mark.long
def test_the_rate_is_kept(store: Store) -> None:
    store.push(os.urandom(2 << 20))
    began = time.monotonic()
    store.scrub(rate=2 << 20)
    assert time.monotonic() - began > 0.7  # the first part, and a quarter of a second, come at once


@pytest.mark.long
def test_many_small_files_are_not_a_storm(store: Store) -> None:
    for number in range(20):
        store.push(b"%d" % number)
    began = time.monotonic()
    store.scrub(rate=1 << 20)
    assert time.monotonic() - began > 0.8  # as if they were 64 KiB each


@pytest.mark.long
def test_the_pace_does_not_save_up_time_and_stops_at_once() -> None:
    stop = threading.Event()
    bucket = RateThrottle(1 << 20, stop)
    time.sleep(1)
    began = time.monotonic()
    for _ in range(8):
        bucket.take(bucket.chunk)
    assert time.monotonic() - began > 0.5
    bucket.take(1 << 30)
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(Stopped):
        bucket.take(1)


def test_when_a_pass_is_due(store: Store) -> None:
    now = Clock()
    store.push(b"content")
    job = ScrubJob(open_backend(store.root, now=now), ScrubConfig(every=10_000.0))
    stop = threading.Event()

    def passes() -> int:
        found = last(store.catalog)
        return 0 if found is None else found.passes

    assert job.run(stop) == 0
    assert passes() == 1
    assert job.run(stop) == 3600  # at the latest, whatever is due then
    now.now += 9_000 * clock.SECOND
    assert job.run(stop) == 1000
    assert passes() == 1
    now.now += 1_000 * clock.SECOND
    assert job.run(stop) == 0
    assert passes() == 2
    now.now -= 1_000_000 * clock.SECOND  # a clock that was set back does not put it off for days
    assert job.run(stop) == 0
    assert passes() == 3
    assert job.run(stop) > 0
    lost = store.push(b"lost")
    store.catalog.damage.note(lost, "bad", now.now)
    off = ScrubJob(open_backend(store.root, now=Clock()), ScrubConfig(every=None))
    assert off.run(stop) > 0
    assert passes() == 3
    assert list(store.damaged()) == [lost]
    store.catalog.delete_blob("x", lost)
    assert off.run(stop) > 0
    assert store.damaged() == {}


@pytest.mark.long
def test_a_served_registry_scrubs_itself(store: Store, tmp_path: Path) -> None:
    digest = store.push(b"content")
    flip(blob_file(store.root, digest))
    config = tmp_path / "registry.toml"
    config.write_text('[scrub]\nevery = "1s"\nrate = "1 MiB"\n')
    server = start_registry(store.root, "--config", str(config))
    try:
        wait_until(lambda: store.damaged() != {}, what="the scrub of a server that starts")
        assert server.request("HEAD", f"/v2/x/blobs/{digest}").status == 404
        assert server.push_blob("x", b"content") == digest
        assert store.damaged() == {}
        assert server.request("GET", f"/v2/x/blobs/{digest}").body == b"content"
        wait_until(lambda: (last(store.catalog) or Pass(0)).passes >= 1, what="the end of it")
    finally:
        server.stop()
