"""Collection of a whole registry: bytes too, beside a server, by hand and on its schedule."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from digestry.catalog import clock
from digestry.catalog.garbage import Garbage
from digestry.catalog.job_states import COLLECTION, JobState
from digestry.catalog.removals import Removed, Stayed
from digestry.catalog.retention_rules import Retention, TagRetention
from digestry.catalog.sqlite.database import SqliteDatabase
from digestry.coordination.files import lock_file
from digestry.coordination.note_files import NoteFiles
from digestry.coordination.protocol import Job
from digestry.errors import Conflict, InvalidConfiguration, NotFound, StorageError
from digestry.file_locks import locked
from digestry.model.digest import Digest
from digestry.registry import garbage_collection, served_retention
from digestry.registry.config import RegistryConfig, load
from digestry.registry.garbage_run import CollectionCounts
from digestry.registry.retention_config import CollectionConfig
from tests.backends import collect, collection_job, dry_run, open_blobs, open_catalog, open_coordination
from tests.registry.garbage_collection.support import AT_ONCE, config, gathered, later
from tests.registry.support import end_leases
from tests.stores import digests
from tests.support import PATIENCE, RegistryServer, run_digestry, start_registry, wait_until


def files(root: Path) -> set[str]:
    return {digest.encoded for digest in digests(root)}


def everything(root: Path) -> list[str]:
    """All names but those that the server's processes make after their start."""
    own = {"metrics", "reserve", "log-head.json"}
    return sorted(
        str(path)
        for path in root.rglob("*")
        if own.isdisjoint(path.relative_to(root).parts)
        and path.suffix != ".lock"
        and not path.name.startswith(".registry-id")  # which is written anew now and then
    )


@pytest.mark.long
def test_bytes_go_when_no_repository_holds_them(server: RegistryServer, settings: Path) -> None:
    kept = server.push_image("x", "t", b"kept")
    loose = server.image("x", b"loose")
    raw = json.dumps(loose).encode()
    server.push_manifest("x", str(Digest.of(raw)), raw)
    shared = server.image("y", b"kept")
    before = files(server.root)
    items = gathered(collect, config(server, settings))
    assert {item.kind for item in items} == {"manifest", "link", "blob"}
    gone = {item.name.partition(":")[2] for item in items if item.kind == "blob"}
    assert before - files(server.root) == gone
    assert Digest.of(raw).encoded in gone
    assert Digest.of(b"loose").encoded in gone
    assert Digest.of(b"kept").encoded not in gone  # y let go of it, x did not
    assert server.request("GET", f"/v2/y/blobs/{shared['layers'][0]['digest']}").status == 404
    assert server.request("GET", f"/v2/x/manifests/{kept}").status == 200
    assert server.request("GET", f"/v2/x/manifests/{Digest.of(raw)}").code == "MANIFEST_UNKNOWN"
    assert gathered(collect, config(server, settings)) == []
    # And all of it can be pushed again.
    server.push_image("x", "again", b"loose")
    assert server.request("GET", f"/v2/x/blobs/{Digest.of(b'loose')}").body == b"loose"


@pytest.mark.long
def test_files_that_no_row_knows_go(server: RegistryServer, settings: Path) -> None:
    """A server that was killed between the rename and the commit leaves them."""
    stray = open_blobs(server.root).put(b"nobody knows this")
    items = gathered(collect, config(server, settings))
    assert [(item.kind, item.name) for item in items] == [("blob", str(stray))]
    assert stray.encoded not in files(server.root)


@pytest.mark.long
def test_no_file_goes_by_a_catalog_that_is_damaged(
    server: RegistryServer, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if there is nothing else to remove."""
    stray = open_blobs(server.root).put(b"nobody knows this")

    def damaged(*_: object, **__: object) -> None:
        raise StorageError("the catalog is damaged")

    with monkeypatch.context() as patched:
        patched.setattr(SqliteDatabase, "check", damaged)
        for run in (dry_run, collect):
            with pytest.raises(StorageError, match="damaged"):
                gathered(run, config(server, settings))
    assert stray.encoded in files(server.root)
    gathered(collect, config(server, settings))
    assert stray.encoded not in files(server.root)


def test_a_dry_run_tells_what_a_run_does_and_does_nothing(server: RegistryServer, settings: Path) -> None:
    server.push_image("x", "t", b"kept")
    server.push_image("x", "moves", b"old")
    server.push_image("x", "moves", b"new")
    for number in range(4):
        server.push_image("x", f"pr-{number}", b"%d" % number)
    loaded = config(server, settings)
    rules = (TagRetention(tags=("pr-*",), newest=1),)
    loaded = replace(loaded, collection=CollectionConfig(lease=1.0, retention=Retention(rules, 0.0, 0.0)))
    before = everything(server.root)
    time.sleep(1.1)  # what is leased, or as new as the copy of the catalog, is left out
    told = gathered(dry_run, loaded)
    assert everything(server.root) == before
    assert server.request("GET", "/v2/x/manifests/pr-0").status == 200
    done = gathered(collect, loaded)
    shape = [(item.kind, item.repository, item.name) for item in told]
    assert sorted(shape) == sorted((item.kind, item.repository, item.name) for item in done)
    assert [item.name for item in told if item.kind == "tag"] == ["pr-2", "pr-1", "pr-0"]
    assert server.request("GET", "/v2/x/manifests/pr-0").status == 404
    assert server.request("GET", "/v2/x/manifests/pr-3").status == 200


def test_what_is_just_being_pushed_stays(server: RegistryServer, settings: Path) -> None:
    """Its bytes are there under their digest, and the catalog does not know of them yet."""
    blobs = open_blobs(server.root)
    digest = Digest.of(b"in between")
    with open_coordination(server.root).guard(digest):
        blobs.put(b"in between")
        items = gathered(collect, config(server, settings))
        assert [(type(item), item.name) for item in items] == [(Stayed, str(digest))]
    assert digest.encoded in files(server.root)


@pytest.mark.long
def test_a_push_waits_while_its_digest_is_being_removed(server: RegistryServer) -> None:
    digest = Digest.of(b"contended")
    answered = threading.Event()

    def push() -> None:
        server.push_blob("x", b"contended")
        answered.set()

    with open_coordination(server.root).guard(digest, exclusive=True):
        pusher = threading.Thread(target=push)
        pusher.start()
        assert not answered.wait(0.5)
    pusher.join(PATIENCE)
    assert answered.is_set()


def test_one_at_a_time(server: RegistryServer, settings: Path) -> None:
    with locked(server.root / lock_file(Job.COLLECTION)), pytest.raises(Conflict, match="already"):
        collect(config(server, settings))


def test_where_no_registry_is(tmp_path: Path) -> None:
    for run in (collect, dry_run):
        with pytest.raises(NotFound, match=r"no catalog\.db"):
            run(RegistryConfig(tmp_path / "nowhere"), tell=lambda _: None)
    assert not (tmp_path / "nowhere").exists()


def test_a_run_that_fails_is_counted_and_removes_nothing_more(
    server: RegistryServer, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.image("x", b"loose")
    before = files(server.root)

    def broken(*_: object) -> None:
        raise StorageError("the disk is on fire")

    monkeypatch.setattr(Garbage, "unlink", broken)
    with pytest.raises(StorageError):
        collect(config(server, settings), now=later())
    assert files(server.root) == before
    catalog = open_catalog(server.root)
    state = catalog.jobs.state(COLLECTION)
    catalog.close()
    assert state is not None
    assert (state.finished_at, state.state["failures"]) == (None, 1)


def test_a_stop_ends_it_early_and_whole(server: RegistryServer, settings: Path) -> None:
    for number in range(3):
        server.image(f"r{number}", b"%d" % number)
    stop = threading.Event()
    items: list[Removed | Stayed] = []

    def tell(item: Removed | Stayed) -> None:
        items.append(item)
        stop.set()

    tally = collect(config(server, settings), tell=tell, stop=stop, now=later())
    assert [item.repository for item in items] == ["r0", "r0"]  # one transaction's
    assert tally.links == 2
    assert len(gathered(collect, config(server, settings))) == 4 + 6


@pytest.mark.long
def test_a_head_keeps_what_it_found(server: RegistryServer, settings: Path) -> None:
    loaded = config(server, settings)
    manifest = server.image("x", b"layer")
    raw = json.dumps(manifest).encode()
    digest = server.push_manifest("x", str(Digest.of(raw)), raw)
    blob = server.push_blob("x", b"blob alone")
    end_leases(server)
    assert server.request("HEAD", f"/v2/x/manifests/{digest}").status == 200
    assert server.request("HEAD", f"/v2/x/blobs/{blob}").status == 200
    collect(loaded)
    assert server.request("GET", f"/v2/x/manifests/{digest}").status == 200
    assert server.request("GET", f"/v2/x/blobs/{Digest.of(b'layer')}").status == 200
    assert server.request("GET", f"/v2/x/blobs/{blob}").status == 200
    end_leases(server)
    collect(loaded)
    assert server.request("HEAD", f"/v2/x/manifests/{digest}").status == 404
    assert server.request("HEAD", f"/v2/x/blobs/{blob}").status == 404


# -- the schedule --------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_server_collects_by_itself(tmp_path: Path, settings: Path) -> None:
    settings.write_text(AT_ONCE.replace('"off"', '"1s"'))
    running = start_registry(tmp_path / "root", "--config", str(settings), "--workers", "2")
    try:
        running.push_image("x", "t", b"kept")
        running.image("x", b"loose")
        gone = Digest.of(b"loose").encoded
        end_leases(running)
        wait_until(lambda: gone not in files(running.root), what="collection")
        assert running.request("GET", "/v2/x/manifests/t").status == 200
    finally:
        running.stop()


def counted_runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A 1 for each run that a job begins; nothing is collected."""
    runs: list[int] = []

    def run(*_: object, **__: object) -> CollectionCounts:
        runs.append(1)
        return CollectionCounts()

    monkeypatch.setattr(garbage_collection, "collect", run)
    return runs


@pytest.mark.long
def test_it_is_due_by_when_it_last_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.now()
    made = open_catalog(tmp_path)
    made.migrate()
    loaded = RegistryConfig(tmp_path, collection=CollectionConfig(every=3600.0))
    runs = counted_runs(monkeypatch)
    monkeypatch.setattr(garbage_collection, "_FIRST_SECONDS", 0.0)
    cases = {"never": None, "long ago": now - 3601 * clock.SECOND, "of a clock set back": now + 10**15}
    for name, began in cases.items():
        if began is not None:
            made.jobs.store(JobState(COLLECTION, began, began, {}))
        runs.clear()
        collection_job(loaded).run(threading.Event())
        assert runs == [1], name
    made.jobs.store(JobState(COLLECTION, now - 100 * clock.SECOND, now, {}))
    runs.clear()
    collection_job(loaded).run(threading.Event())
    collection_job(replace(loaded, collection=CollectionConfig(every=None))).run(threading.Event())
    assert runs == []
    made.close()


def test_nothing_is_collected_right_after_the_clock_went_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By the new time, the leases of what is just being pushed seem to be over."""
    open_catalog(tmp_path).migrate()
    ahead = [0]
    loaded = RegistryConfig(tmp_path, collection=CollectionConfig(every=0.0, lease=100.0))
    runs = counted_runs(monkeypatch)
    monkeypatch.setattr(garbage_collection, "_FIRST_SECONDS", 0.0)
    job = collection_job(loaded, now=lambda: clock.now() + ahead[0])
    job.run(threading.Event())
    assert runs == [1]
    ahead[0] = 365 * 86400 * clock.SECOND
    for _ in range(3):
        job.run(threading.Event())
    assert runs == [1]
    assert "the clock went forward" in caplog.text
    ahead[0] = 0  # set right again: backwards
    job.run(threading.Event())
    assert runs == [1]  # the pause goes on


@pytest.mark.long
def test_nothing_is_collected_right_after_a_start_long_after_the_last_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be the clock of a machine that has just been switched on."""
    made = open_catalog(tmp_path)
    made.migrate()
    month = 32 * 86400 * clock.SECOND
    made.jobs.store(JobState(COLLECTION, clock.now() - month, clock.now() - month, {}))
    made.close()
    runs = counted_runs(monkeypatch)
    monkeypatch.setattr(garbage_collection, "_FIRST_SECONDS", 0.0)
    loaded = RegistryConfig(tmp_path, collection=CollectionConfig(every=3600.0))
    job = collection_job(loaded)
    for _ in range(2):
        job.run(threading.Event())
    assert runs == []
    assert caplog.text.count("days late") == 1
    job._held_until = time.monotonic()  # an hour later
    job.run(threading.Event())
    assert runs == [1]


# -- by hand -------------------------------------------------------------------------------------------


def run_gc(server: RegistryServer, settings: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run_digestry("gc", "--config", settings, "--root", server.root, *options)


@pytest.mark.long
def test_by_hand(server: RegistryServer, settings: Path) -> None:
    server.image("x", b"loose")
    end_leases(server)
    told = run_gc(server, settings, "--dry-run")
    assert told.returncode == 0, told.stderr
    assert "no manifest of x needs it" in told.stdout
    assert told.stdout.endswith("Would remove 0 tags, 0 manifests, 2 links, 2 blobs of 164 bytes.\n")
    document = json.loads(run_gc(server, settings, "--dry-run", "--format", "json").stdout)
    assert document["dry_run"] is True
    assert len(document["items"]) == 4
    assert document["totals"]["blobs"] == 2
    done = run_gc(server, settings, "--quiet")
    assert done.stdout == "Removed 0 tags, 0 manifests, 2 links, 2 blobs of 164 bytes.\n"
    empty = json.loads(run_gc(server, settings, "--format", "json").stdout)
    assert empty["items"] == []


def test_by_hand_without_the_servers_configuration(tmp_path: Path, settings: Path) -> None:
    settings.write_text('[collection]\nuntagged = "365d"\n')
    root = tmp_path / "root"
    start_registry(root, "--config", str(settings)).stop()
    done = run_digestry("gc", "--root", root)
    assert done.returncode == 2
    assert "served with untagged = 365 days; without a configuration, what that keeps would" in done.stderr
    assert "--config" in done.stderr


def test_what_the_server_keeps_longer_needs_its_configuration(tmp_path: Path) -> None:
    notes = NoteFiles(tmp_path)
    day = 86400.0
    served_retention.check_default(notes, Retention())  # never served
    for served, mine, wrong in (
        (Retention(), Retention(), ""),
        (Retention(untagged=30 * day), Retention(), ""),
        (Retention(), Retention(untagged=30 * day), "untagged = 90 days"),
        (Retention(untagged=None), Retention(), "untagged = off"),
        (Retention(untagged=None, sighted=None), Retention(untagged=None), "sighted = off"),
        (Retention(sighted=91 * day), Retention(untagged=None), "sighted = 91 days"),
        (Retention(untagged=None, sighted=None), Retention(untagged=None, sighted=None), ""),
    ):
        served_retention.record(notes, served)
        with contextlib.nullcontext() if not wrong else pytest.raises(InvalidConfiguration, match=wrong):
            served_retention.check_default(notes, mine)
    for damage in (b"{", b"\xff", b'{"x":' + b"[" * 100_000, b"[]"):
        (tmp_path / "kept.json").write_bytes(damage)
        with pytest.raises(StorageError, match="damaged"):
            served_retention.check_default(notes, Retention())
    served_retention.record(notes, Retention())
    served_retention.check_default(notes, Retention())


def test_rules_that_cannot_be(tmp_path: Path) -> None:
    file = tmp_path / "registry.toml"
    for text, message in {
        '[[retention]]\ntag = "x*"': "would keep no tag at all",
        '[collection]\nevery = "soon"': '"90d"',
        "[collection]\nlease = 0": "from 1 second to 30 days",
        '[collection]\nuntagged = "4000d"': "from 0 seconds to 3650 days",
        "[collection]\nuntagged = nan": "length of time",
        "[collection]\nsighted = true": "length of time",
        '[[retention]]\nkeep-for = "1y"': '"90d"',
        '[[retention]]\nkeep-newest = 1\ntag = "^v[0-9]$"': "matches no name",
        "[[retention]]\nkeep-newest = 1\ntag = []": "list of strings",
        "[collection]\nleese = 1": "unknown key",
        "[[retention]]\nkeep-newest = -1": "whole number",
        '[retention]\nkeep-for = "1d"': "list of tables",
    }.items():
        file.write_text(text)
        with pytest.raises(InvalidConfiguration) as caught:
            load(file, {"root": tmp_path})
        assert message in f"{caught.value.message} {caught.value.hint}", text


def test_rules_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "registry.toml"
    file.write_text(
        '[collection]\nevery = "12h"\nuntagged = "off"\nlease = 600\nsighted = "2w"\n'
        '[[retention]]\nrepository = ["team/*"]\ntag = "pr-*"\nexclude = []\n'
        'keep-newest = 3\nkeep-for = "1.5d"\n'
    )
    found = load(file, {"root": tmp_path}).collection
    rule = TagRetention(("team/*",), ("pr-*",), (), 3, 129600.0)
    assert found == CollectionConfig(43200.0, 600.0, Retention((rule,), None, 1209600.0))
