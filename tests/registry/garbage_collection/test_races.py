"""Collection beside everything else: no answer promises what goes, and what goes is no damage."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from digestry.backend import Backend
from digestry.blobs.protocols import BlobStore
from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.job_states import COLLECTION, JobState
from digestry.catalog.removals import Removed, Stayed
from digestry.coordination.files import FileCoordination, lock_file
from digestry.coordination.protocol import Job
from digestry.errors import Conflict, StorageError
from digestry.file_locks import Lock, locked
from digestry.model.digest import Digest
from digestry.registry import garbage_collection
from digestry.registry.config import RegistryConfig
from digestry.registry.garbage_run import CollectionCounts
from digestry.registry.retention_config import CollectionConfig
from tests.backends import collect, collection_job, dry_run, open_blobs, open_catalog, open_coordination
from tests.registry.garbage_collection.support import config, gathered, later
from tests.registry.support import end_leases
from tests.stores import blob_file, needs_disk
from tests.support import PATIENCE, RegistryServer


@pytest.mark.long
def test_what_goes_between_the_look_up_and_the_file_is_no_damage(
    server: RegistryServer, settings: Path
) -> None:
    """The file is gone, and the catalog, asked again, has let go of it: 404, and nothing to report."""
    needs_disk(server.root)  # other stores keep content that a repository has
    loaded = config(server, settings)
    large = b"l" * (1 << 20)
    digests = [server.push_blob("x", b"small"), server.push_blob("x", large)]
    blobs = open_blobs(server.root)
    answers: list[int] = []
    for digest in map(Digest.parse, map(str, digests)):
        # As a reader sees it that found the link just before: the file goes first, then the link, while
        # the reader waits for the guard to look again.
        with open_coordination(server.root).guard(digest):
            blobs.delete(digest)
            reader = threading.Thread(
                target=lambda path=f"/v2/x/blobs/{digest}": answers.append(server.request("GET", path).status)
            )
            reader.start()
            time.sleep(0.3)
            collect(loaded, now=later())
        reader.join(PATIENCE)
    assert answers == [404, 404]
    with sqlite3.connect(server.root / "catalog.db") as connection:
        assert connection.execute("SELECT count(*) FROM damaged").fetchone() == (0,)
    assert list(open_blobs(server.root).quarantined()) == []
    assert "damaged" not in server.log.read_text()


def test_a_head_that_is_answered_304_promises_as_well(server: RegistryServer, settings: Path) -> None:
    loaded = config(server, settings)
    raw = json.dumps(server.image("x", b"layer")).encode()
    digest = server.push_manifest("x", str(Digest.of(raw)), raw)
    end_leases(server)
    path = f"/v2/x/manifests/{digest}"
    assert server.request("HEAD", path, headers={"If-None-Match": f'"{digest}"'}).status == 304
    collect(loaded)
    assert server.request("GET", path).status == 200
    assert server.request("GET", f"/v2/x/blobs/{Digest.of(b'layer')}").status == 200


# -- bytes ---------------------------------------------------------------------------------------------


@pytest.mark.long
def test_damaged_content_goes_with_the_last_that_holds_it(server: RegistryServer, settings: Path) -> None:
    loaded = config(server, settings)
    kept = Digest.parse(str(server.push_image("x", "t", b"kept")))
    blobs = open_blobs(server.root)
    loose, layer = Digest.of(b"nobody has it"), Digest.of(b"kept")
    for digest in (loose, layer):
        blob_file(server.root, digest).write_bytes(b"rotten")
        blobs.quarantine(digest, 7)
    (needs_disk(server.root) / "quarantine" / "sha256" / "a note of the operator").write_text("stays")
    expected = [("blob", str(loose), "it was damaged, and no repository holds it", 6)]
    for run in (dry_run, collect):
        items = [item for item in gathered(run, loaded) if isinstance(item, Removed)]
        assert [(item.kind, item.name, item.why, item.size) for item in items] == expected
    assert list(blobs.quarantined(loose)) == []
    assert len(list(blobs.quarantined(layer))) == 1
    assert server.request("HEAD", f"/v2/x/manifests/{kept}").status == 200
    assert gathered(collect, loaded) == []


def test_what_is_no_blob_is_in_nobodys_way(server: RegistryServer, settings: Path) -> None:
    """A directory that is called as a blob would be: it cannot be removed, and must not end each run."""
    loaded = config(server, settings)
    blobs = open_blobs(server.root)
    folder = blob_file(server.root, Digest.of(b"a folder"))
    folder.mkdir()
    (folder.parent / "README").write_text("of no digest")
    link = blob_file(server.root, Digest.of(b"a link"))
    link.symlink_to(folder.parent / "README")
    stray = blobs.put(b"stray")
    assert {item.name for item in gathered(collect, loaded)} >= {str(stray)}
    assert folder.is_dir()
    assert (folder.parent / "README").exists()
    assert not blob_file(server.root, stray).exists()


def test_a_dry_run_leaves_out_what_came_while_it_copied(
    server: RegistryServer, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = config(server, settings)
    copied = garbage_collection._copied

    @contextlib.contextmanager
    def pushed_after(backend: Backend, destination: Path) -> Iterator[Catalog]:
        with copied(backend, destination) as copy:
            server.push_blob("x", b"after the copy")
            yield copy

    monkeypatch.setattr(garbage_collection, "_copied", pushed_after)
    assert gathered(dry_run, loaded) == []


def test_what_a_killed_dry_run_left_goes_with_the_next_run(server: RegistryServer, settings: Path) -> None:
    loaded = config(server, settings)
    left, used = (server.root / f".gc-dry-run-{name}" for name in ("left", "used"))
    for folder in (left, used):
        folder.mkdir()
        (folder / "catalog.db").write_bytes(b"large")
    with locked(used / "lock"):
        collect(loaded)
    assert not left.exists()
    assert (used / "catalog.db").exists()


def test_a_dry_run_that_has_no_room_says_so(
    server: RegistryServer, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = config(server, settings)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(StorageError, match="No space left"):
        dry_run(loaded, tell=lambda _: None)


# -- the schedule --------------------------------------------------------------------------------------


@pytest.fixture
def daily(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RegistryConfig:
    made = open_catalog(tmp_path)
    made.migrate()
    made.close()
    monkeypatch.setattr(garbage_collection, "_FIRST_SECONDS", 0.0)
    return RegistryConfig(tmp_path, collection=CollectionConfig(every=86400.0))


def test_while_another_has_the_root_it_waits(daily: RegistryConfig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with locked(daily.scratch / lock_file(Job.COLLECTION)):
        assert collection_job(daily).run(threading.Event()) == 5.0
    assert len(caplog.records) == 1


def test_what_another_process_has_just_done_is_not_done_again(
    daily: RegistryConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = collection_job(daily)
    real = garbage_collection.collect

    def slower(*arguments: Any, **options: Any) -> CollectionCounts:
        real(daily, daily.backend())  # another process was faster
        return real(*arguments, **options)

    monkeypatch.setattr(garbage_collection, "collect", slower)
    job.run(threading.Event())
    catalog = open_catalog(daily.scratch)
    state = catalog.jobs.state(COLLECTION)
    catalog.close()
    assert state is not None
    assert state.state["runs"] == 1


@pytest.mark.long
def test_what_was_broken_off_is_begun_again_at_the_next_start(daily: RegistryConfig) -> None:
    """Else a registry that is restarted each day would never come to the end of a run."""
    stopped = threading.Event()
    stopped.set()
    job = collection_job(daily)
    job.run(stopped)
    job.run(threading.Event())
    catalog = open_catalog(daily.scratch)
    state = catalog.jobs.state(COLLECTION)
    catalog.close()
    assert state is not None
    assert state.finished_at is not None
    assert state.state["runs"] == 2


def test_a_run_that_fails_is_tried_again_more_and_more_rarely(
    daily: RegistryConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage_collection, "_FIRST_SECONDS", 0.05)
    now = time.monotonic()
    monkeypatch.setattr(garbage_collection, "time", SimpleNamespace(monotonic=lambda: now, time=time.time))
    runs: list[int] = []

    def fails(config: RegistryConfig, _: Backend, **__: object) -> CollectionCounts:
        runs.append(1)
        catalog = open_catalog(config.scratch)
        catalog.jobs.store(JobState(COLLECTION, clock.now(), None, {}))
        catalog.close()
        raise StorageError("the disk is on fire")

    monkeypatch.setattr(garbage_collection, "collect", fails)
    job = collection_job(daily)
    pauses = []
    for _ in range(3):
        now = max(job._held_until, now + 0.06)
        with pytest.raises(StorageError):
            job.run(threading.Event())
        pauses.append(job._held_until - now)
        assert job.run(threading.Event()) > 0  # not yet
    assert len(runs) == 3
    assert pauses == pytest.approx([0.1, 0.2, 0.4])


@pytest.mark.long
def test_one_that_has_the_root_is_waited_for_by_hand_too(server: RegistryServer, settings: Path) -> None:
    loaded = config(server, settings)
    with locked(server.root / lock_file(Job.COLLECTION)), pytest.raises(Conflict, match="already"):
        collect(loaded)


def test_a_root_of_an_older_version_is_left_as_it_is(tmp_path: Path) -> None:
    needs_disk(tmp_path)  # what is in other stores, a catalog of the present version says
    with sqlite3.connect(tmp_path / "catalog.db") as connection:
        connection.execute("CREATE TABLE repositories (id INTEGER PRIMARY KEY, name TEXT)")
    blobs = open_blobs(tmp_path)
    blobs.prepare()
    stray = blobs.put(b"stray")
    loaded = RegistryConfig(tmp_path)
    for run in (collect, dry_run):
        with pytest.raises(StorageError, match="does not say which schema"):
            gathered(run, loaded)
    assert blobs.stat(stray) == 5


@pytest.mark.long
def test_an_error_among_many_files_ends_the_run_and_tells_of_those_that_went(
    server: RegistryServer, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = config(server, settings)
    blobs = open_blobs(server.root)
    strays = {str(blobs.put(b"%d" % number)) for number in range(40)}
    monkeypatch.setattr(FileCoordination, "guard_group", lambda *_: "00")
    delete = type(blobs).delete
    left = [25]

    def fails(store: BlobStore, digest: Digest, *, durable: bool = True) -> bool:
        left[0] -= 1
        if left[0] < 0:
            raise StorageError("the disk is on fire")
        return delete(store, digest, durable=durable)

    monkeypatch.setattr(type(blobs), "delete", fails)
    told: list[Removed | Stayed] = []
    with pytest.raises(StorageError, match="on fire"):
        collect(loaded, tell=told.append)
    gone = {item.name for item in told}
    assert len(gone) == 25
    assert strays - gone == {str(digest) for digest in blobs.digests()}
    monkeypatch.setattr(type(blobs), "delete", delete)
    collect(loaded)
    assert not list(blobs.digests())


def test_of_what_shares_a_guard_only_what_nobody_holds_goes(
    server: RegistryServer, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pushed after the first question, and before the guard was taken."""
    loaded = config(server, settings)
    blobs = open_blobs(server.root)
    strays = [blobs.put(b"%d" % number) for number in range(6)]
    monkeypatch.setattr(FileCoordination, "guard_group", lambda *_: "00")
    guard = FileCoordination.guard

    def pushed_just_before(
        locks: FileCoordination, digest: Digest, **how: bool
    ) -> AbstractContextManager[Lock]:
        server.push_blob("x", b"3")
        return guard(locks, digest, **how)

    monkeypatch.setattr(FileCoordination, "guard", pushed_just_before)
    collect(loaded)
    assert list(blobs.digests()) == [strays[3]]
    assert server.request("GET", f"/v2/x/blobs/{strays[3]}").body == b"3"
