"""A disk that fills up: what cannot be stored is refused in clear words, and nothing else changes.

``test_every_step.py`` has a full disk at each single step; here it is a real file system, and a real
server on it.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine.default import DefaultDialect

from digestry.catalog import clock
from digestry.catalog.sqlite import failures
from digestry.errors import StorageFull
from digestry.fsio import lacks_room
from digestry.registry.config import RegistryConfig
from tests.backends import collect, open_reserve, sqlite_database
from tests.crash.checks import check_files, check_journal, check_nothing_under_way, check_served, check_usage
from tests.faults.conftest import SmallDisk
from tests.faults.inside import Inside
from tests.registry.support import Upload, ingest_files, put_manifest, upload_rows
from tests.stores import arrived
from tests.support import RegistryServer, Response, start_registry, wait_until

KEPT = os.urandom(200_000)
LARGE = os.urandom(3 << 20)


@pytest.fixture
def registry(small_disk: SmallDisk) -> Iterator[RegistryServer]:
    """A registry on the small disk, with an image in it."""
    server = start_registry(small_disk.path / "root")
    try:
        server.push_image("a", "kept", KEPT)
        yield server
        assert server.stop() == 0
        check_files(server.root)
        check_journal(server.root)
        check_usage(server.root)
    finally:
        if server.process.poll() is None:
            server.kill()


def refused(answer: Response) -> None:
    assert (answer.status, answer.code) == (507, "UNAVAILABLE"), answer.body
    assert b"disk is full" in answer.body


def still_serves(server: RegistryServer) -> None:
    manifest = server.request("GET", "/v2/a/manifests/kept")
    assert manifest.status == 200
    layer = manifest.json()["layers"][0]["digest"]
    assert server.request("GET", f"/v2/a/blobs/{layer}").body == KEPT


@pytest.mark.long
def test_a_patch_on_a_full_disk_does_not_count_and_the_upload_goes_on_when_there_is_room(
    registry: RegistryServer, small_disk: SmallDisk
) -> None:
    upload = Upload.begin(registry, "a")
    assert upload.patch(LARGE[:100_000], 0).status == 202
    small_disk.fill(leave=1 << 20)
    refused(upload.patch(LARGE[100_000:], 100_000))
    assert upload.status().headers["range"] == "0-99999"
    assert upload.offset() == 100_000
    assert arrived(registry.root, upload.id) == 100_000  # the room is given back
    still_serves(registry)
    small_disk.make_room()
    assert upload.patch(LARGE[100_000:], 100_000).status == 202
    digest = registry.push_blob("b", LARGE)
    assert upload.put(digest).status == 201
    assert registry.request("GET", f"/v2/a/blobs/{digest}").body == LARGE
    assert ingest_files(registry) == set()


@pytest.mark.long
def test_a_push_in_one_request_on_a_full_disk_leaves_nothing_behind(
    registry: RegistryServer, small_disk: SmallDisk
) -> None:
    small_disk.fill(leave=1 << 20)
    free = small_disk.free
    for _ in range(3):
        refused(registry.request("POST", "/v2/a/blobs/uploads/?digest=sha256:" + 64 * "0", LARGE))
    assert ingest_files(registry) == set()
    assert upload_rows(registry, "a") == 0
    assert small_disk.free > free - 200_000  # the catalog's own log may have grown
    still_serves(registry)
    small_disk.make_room()
    digest = registry.push_blob("a", LARGE)
    assert registry.request("GET", f"/v2/a/blobs/{digest}").body == LARGE


@pytest.mark.long
def test_the_last_bytes_of_an_upload_on_a_full_disk_can_be_sent_again(
    registry: RegistryServer, small_disk: SmallDisk
) -> None:
    digest = registry.push_blob("b", LARGE)
    upload = Upload.begin(registry, "a")
    assert upload.patch(LARGE[:1000], 0).status == 202
    small_disk.fill(leave=1 << 20)
    refused(upload.put(digest, LARGE[1000:]))
    small_disk.make_room()
    assert upload.put(digest, LARGE[1000:]).status == 201
    assert registry.request("GET", f"/v2/a/blobs/{digest}").body == LARGE


@pytest.mark.long
def test_a_manifest_on_a_full_disk_is_not_half_there(registry: RegistryServer, small_disk: SmallDisk) -> None:
    raw = registry.request("GET", "/v2/a/manifests/kept").body.replace(b'"layers"', b' "layers"')
    small_disk.fill(leave=0)
    refused(put_manifest(registry, "a", "kept", raw))
    refused(put_manifest(registry, "a", "new", raw))
    assert registry.request("GET", "/v2/a/manifests/new").status == 404
    assert registry.request("GET", "/v2/a/manifests/kept").body != raw
    assert ingest_files(registry) == set()
    still_serves(registry)
    small_disk.make_room()
    assert put_manifest(registry, "a", "kept", raw).status == 201
    assert registry.request("GET", "/v2/a/manifests/kept").body == raw


@pytest.mark.long
def test_a_collection_on_a_full_disk_loses_nothing_and_ends_when_there_is_room(
    registry: RegistryServer, small_disk: SmallDisk
) -> None:
    registry.push_blob("a", LARGE)  # nothing will hold it
    config = RegistryConfig(root=registry.root)
    later = clock.now() + 40 * 24 * 3600 * clock.SECOND
    small_disk.fill(leave=0)
    try:
        collect(config, now=lambda: later)
    except StorageFull:
        still_serves(registry)
    small_disk.make_room()
    collect(config, now=lambda: later)
    still_serves(registry)
    assert small_disk.free > 12 << 20


# -- what is kept for that -------------------------------------------------------------------------


def make_its_reserve(server: RegistryServer) -> None:
    """Else its maintenance process does, as soon as it has started."""
    assert open_reserve(server.root).fill()


@pytest.mark.long
def test_a_full_disk_is_freed_by_collection_alone(registry: RegistryServer, small_disk: SmallDisk) -> None:
    make_its_reserve(registry)
    digest = registry.push_blob("a", LARGE)  # nothing will hold it
    small_disk.fill(leave=0)
    refused(registry.request("POST", "/v2/a/blobs/uploads/?digest=sha256:" + 64 * "0", LARGE))
    later = clock.now() + 40 * 24 * 3600 * clock.SECOND
    tally = collect(RegistryConfig(root=registry.root), now=lambda: later)
    assert tally.blobs == 1
    assert registry.request("GET", f"/v2/a/blobs/{digest}").status == 404
    assert not open_reserve(registry.root).spent()
    registry.push_blob("a", LARGE[: 1 << 20])
    still_serves(registry)


@pytest.mark.long
def test_on_a_full_disk_images_can_be_deleted_and_nothing_is_taken_in_until_there_is_room(
    registry: RegistryServer, small_disk: SmallDisk
) -> None:
    make_its_reserve(registry)
    manifest = registry.request("GET", "/v2/a/manifests/kept").body
    assert put_manifest(registry, "a", "old", manifest).status == 201
    small_disk.fill(leave=0)
    assert registry.request("DELETE", "/v2/a/manifests/old").status == 202
    assert registry.request("GET", "/v2/a/manifests/old").status == 404
    # What deletions leave of their room is not for uploads.
    assert small_disk.free > 100_000
    refused(registry.request("POST", "/v2/a/blobs/uploads/"))
    refused(put_manifest(registry, "a", "new", manifest))
    assert registry.request("GET", "/readyz").json()["checks"]["space"] == "there is room for deletions only"
    still_serves(registry)
    small_disk.make_room()
    wait_until(lambda: not open_reserve(registry.root).spent(), what="the reserve's being whole again")
    assert put_manifest(registry, "a", "new", manifest).status == 201


@pytest.mark.long
def test_a_registry_starts_on_a_full_disk_and_serves_what_it_has(
    registry: RegistryServer, small_disk: SmallDisk
) -> None:
    make_its_reserve(registry)
    assert registry.stop() == 0
    small_disk.fill(leave=0)
    again = start_registry(registry.root)
    try:
        still_serves(again)
        refused(again.request("POST", "/v2/a/blobs/uploads/?digest=sha256:" + 64 * "0", LARGE))
        assert again.request("DELETE", "/v2/a/manifests/kept").status == 202
    finally:
        assert again.stop() == 0


# -- a mirror --------------------------------------------------------------------------------------


@pytest.mark.long
def test_what_a_mirror_has_is_served_from_a_full_disk(small_disk: SmallDisk, tmp_path: Path) -> None:
    upstream = start_registry(tmp_path / "upstream")
    config = tmp_path / "registry.toml"
    config.write_text(f'[mirror."up.test"]\nurl = "http://{upstream.host}"\ntag-ttl = 0\n')
    mirror = start_registry(small_disk.path / "root", "--config", str(config))
    try:
        upstream.push_image("a", "1", KEPT)
        upstream.push_image("a", "2", LARGE)
        upstream.push_image("a", "3", LARGE[:1000])
        digest = mirror.request("GET", "/v2/up.test/a/manifests/2").json()["layers"][0]["digest"]
        first = mirror.request("GET", "/v2/up.test/a/manifests/1")
        layer = first.json()["layers"][0]["digest"]
        assert mirror.request("GET", f"/v2/up.test/a/blobs/{layer}").body == KEPT
        assert first.headers["digestry-upstream"].startswith("current;")
        small_disk.fill(leave=0)
        moved = upstream.push_image("a", "1", LARGE)
        again = mirror.request("GET", "/v2/up.test/a/manifests/1")
        assert (again.status, again.body) == (200, first.body)
        assert again.headers["digestry-upstream"].startswith("full;")
        assert mirror.request("GET", f"/v2/up.test/a/blobs/{layer}").body == KEPT
        refused(mirror.request("GET", "/v2/up.test/a/manifests/3"))
        refused(mirror.request("GET", f"/v2/up.test/a/blobs/{digest}"))
        assert ingest_files(mirror) == set()
        assert list((mirror.root / "mirror").glob("*.new")) == []
        small_disk.make_room()
        assert mirror.request("GET", f"/v2/up.test/a/blobs/{digest}").body == LARGE
        answer = mirror.request("GET", "/v2/up.test/a/manifests/1")
        assert answer.headers["docker-content-digest"] == str(moved)
        assert answer.headers["digestry-upstream"].startswith("current;")
    finally:
        assert mirror.stop() == 0
        upstream.stop()


# -- quotas ----------------------------------------------------------------------------------------


def test_whether_there_is_room_is_found_by_trying(
    small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not lacks_room(small_disk.path)
    small_disk.fill(leave=0)
    assert lacks_room(small_disk.path)
    small_disk.make_room()
    assert not lacks_room(small_disk.path)
    assert list(small_disk.path.iterdir()) == []

    def over(*_: object) -> int:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "write", over)
    assert lacks_room(small_disk.path)
    assert not lacks_room(small_disk.path / "absent")


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE])
@pytest.mark.parametrize("full", [True, False])
def test_what_the_catalog_cannot_write_for_a_quota_is_told_as_a_full_disk(
    empty_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, full: bool
) -> None:
    root = tmp_path / "root"
    shutil.copytree(empty_root, root)
    monkeypatch.setattr(failures, "lacks_room", lambda _: full)
    failure = sqlite3.OperationalError("disk I/O error")
    failure.sqlite_errorcode = code

    def fails(*_: object) -> None:
        raise failure

    with Inside(root) as registry:
        with monkeypatch.context() as patched:
            patched.setattr(DefaultDialect, "do_commit", fails)
            answer = registry.request("POST", "/v2/a/blobs/uploads/")
        if full:
            refused(answer)
        else:
            assert answer.status == 500
        assert registry.request("POST", "/v2/a/blobs/uploads/").status == 202


# -- the catalog alone -----------------------------------------------------------------------------


def test_a_full_catalog_takes_no_half_of_a_commit(empty_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(empty_root, root)
    with Inside(root) as registry:
        manifest = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]'
        kind = {"Content-Type": "application/vnd.oci.image.index.v1+json"}

        def push(number: int) -> Response:
            raw = manifest + b',"annotations":{"n":"%d","long":"%s"}}' % (number, b"x" * 20_000)
            return registry.request("PUT", "/v2/a/manifests/t", raw, kind)

        assert push(0).status == 201
        pages = sqlite_database(registry.service.stores.catalog)._writer._opened().bare
        used = pages.execute("PRAGMA page_count").fetchone()[0]
        pages.execute(f"PRAGMA max_page_count={used + 40}")

        accepted = 0
        while (answer := push(accepted + 1)).status == 201:
            accepted += 1
            assert accepted < 100
        refused(answer)
        begun = 0
        while (answer := registry.request("POST", "/v2/a/blobs/uploads/")).status == 202:
            begun += 1
            assert begun < 2000
        refused(answer)
        rows = len(registry.service.stores.catalog.upload_ids())
        assert rows == begun
        journal = registry.get("/v2/a/_digestry/journal?n=1000").json()["entries"]
        assert len(journal) == accepted + 1
        current = registry.get("/v2/a/manifests/t")
        assert current.headers["docker-content-digest"] == journal[0]["toDigest"]
        check_served(registry, root)

        pages = sqlite_database(registry.service.stores.catalog)._writer._opened().bare
        pages.execute("PRAGMA max_page_count=1000000")
        assert push(accepted + 1).status == 201
        assert registry.request("POST", "/v2/a/blobs/uploads/").status == 202
        check_served(registry, root)
    with Inside(root, upload_timeout=-1.0) as registry:
        registry.service.upload_sweep.run()
    check_nothing_under_way(root)
    check_journal(root)
    check_usage(root)
