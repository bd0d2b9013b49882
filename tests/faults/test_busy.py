"""A catalog that somebody else keeps: writers wait, and then say so; readers are not in their way."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.catalog import clock
from digestry.catalog.sqlite import database
from digestry.model.digest import Digest
from tests.crash.checks import check_journal, check_nothing_under_way, check_served, check_usage
from tests.faults.inside import Inside
from tests.stores import needs_disk
from tests.support import Response, wait_until

INDEX = "application/vnd.oci.image.index.v1+json"

_HOLDER = """
import sqlite3
import time, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


@contextlib.contextmanager
def held(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process has the catalog's write lock, until it is written a line or the block ends."""
    command = [sys.executable, "-c", _HOLDER, str(root / "catalog.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.stdin.close()
            process.wait()


@pytest.fixture
def registry(empty_root: Path, tmp_path: Path) -> Iterator[Inside]:
    root = tmp_path / "root"
    shutil.copytree(empty_root, root)
    with Inside(root) as inside:
        yield inside
    with Inside(root, upload_timeout=-1.0) as inside:
        inside.service.upload_sweep.run()
    check_nothing_under_way(root)
    check_journal(root)
    check_usage(root)


def put(registry: Inside, tag: str, note: str) -> Response:
    raw = b'{"schemaVersion":2,"mediaType":"%s","manifests":[],"annotations":{"n":"%s"}}'
    body = raw % (INDEX.encode(), note.encode())
    return registry.request("PUT", f"/v2/a/manifests/{tag}", body, {"Content-Type": INDEX})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers wait for a fifth of a second, and not for half a minute."""
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)


@pytest.mark.long
def test_a_push_waits_for_who_has_the_catalog(registry: Inside) -> None:
    with held(registry.root) as holder:
        assert holder.stdin is not None
        release = threading.Timer(0.5, holder.stdin.close)
        began = time.monotonic()
        release.start()
        assert put(registry, "t", "1").status == 201
        assert time.monotonic() - began > 0.3
        release.join()


@pytest.mark.long
@pytest.mark.usefixtures("impatient")
def test_a_catalog_that_stays_busy_is_told_as_503_and_nothing_is_lost(registry: Inside) -> None:
    assert put(registry, "t", "1").status == 201
    before = registry.get("/v2/a/manifests/t").body
    location = registry.request("POST", "/v2/a/blobs/uploads/").headers["location"]
    assert registry.request("PATCH", location, b"12345", {"Content-Range": "0-4"}).status == 202
    rest = {"Content-Range": "5-9"}
    with held(registry.root):
        for answer in (
            put(registry, "t", "2"),
            registry.request("PATCH", location, b"67890", rest),
            registry.request("POST", "/v2/a/blobs/uploads/"),
            registry.request("DELETE", "/v2/a/manifests/t"),
            registry.request("POST", f"/v2/a/blobs/uploads/?digest={Digest.of(b'x')}", b"x"),
        ):
            assert (answer.status, answer.code) == (503, "UNAVAILABLE"), answer.body
            assert int(answer.headers["retry-after"]) > 0
        assert registry.get("/v2/a/manifests/t").body == before  # readers have no part in it
        assert registry.get(location).headers["range"] == "0-4"
    assert put(registry, "t", "2").status == 201
    assert registry.request("PATCH", location, b"67890", rest).status == 202
    assert len(registry.get("/v2/a/_digestry/journal").json()["entries"]) == 2
    digest = Digest.of(b"1234567890")
    assert registry.request("PUT", f"{location}?digest={digest}").status == 201
    assert registry.get(f"/v2/a/blobs/{digest}").body == b"1234567890"
    check_served(registry, registry.root)


@pytest.mark.usefixtures("impatient")
def test_a_head_whose_lease_cannot_be_renewed_is_answered(registry: Inside) -> None:
    """Pulls begin with it: what cannot be written must not stop them."""
    content = b"old"
    path = f"/v2/a/blobs/{Digest.of(content)}"
    push = f"/v2/a/blobs/uploads/?digest={Digest.of(content)}"
    assert registry.request("POST", push, content).status == 201
    assert put(registry, "t", "1").status == 201
    later = lambda: clock.now() + 20 * 3600 * clock.SECOND  # noqa: E731
    object.__setattr__(registry.service, "now", later)
    registry.service.stores.catalog._now = later
    with held(registry.root):
        assert registry.request("HEAD", path).status == 200
        assert registry.request("HEAD", "/v2/a/manifests/t").status == 200
        assert registry.get(path).body == content


@pytest.mark.usefixtures("impatient")
def test_a_put_on_a_busy_catalog_leaves_an_upload_that_ends(registry: Inside) -> None:
    """Its bytes have their name by then: the client is told to begin again, and not to go on."""
    needs_disk(registry.root)  # elsewhere bytes have no name, and the upload goes on
    content = b"z" * 100_000
    digest = Digest.of(content)
    location = registry.request("POST", "/v2/a/blobs/uploads/").headers["location"]
    assert registry.request("PATCH", location, content).status == 202
    with held(registry.root):
        assert registry.request("PUT", f"{location}?digest={digest}").status == 503
        assert registry.get(f"/v2/a/blobs/{digest}").status == 404
    again = registry.request("PUT", f"{location}?digest={digest}")
    assert (again.status, again.code) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert registry.request("POST", f"/v2/a/blobs/uploads/?digest={digest}", content).status == 201
    assert registry.get(f"/v2/a/blobs/{digest}").body == content


@pytest.mark.long
def test_a_reader_that_takes_its_time_stops_no_writer_and_the_log_shrinks_again(registry: Inside) -> None:
    assert put(registry, "t", "0").status == 201
    log = registry.root / "catalog.db-wal"
    reader = sqlite3.connect(registry.root / "catalog.db", isolation_level=None)
    reader.execute("BEGIN")
    seen = reader.execute("SELECT count(*) FROM journal").fetchone()
    number = 0
    while log.stat().st_size < 20 << 20:
        number += 1
        assert put(registry, "t", f"{number} " + "x" * 400_000).status == 201
        assert number < 200
    assert reader.execute("SELECT count(*) FROM journal").fetchone() == seen
    reader.execute("ROLLBACK")
    reader.close()

    def has_shrunk() -> bool:
        assert put(registry, "t", f"last {time.time()}").status == 201
        return log.stat().st_size <= 17 << 20

    wait_until(has_shrunk, what="the log has shrunk")
    check_served(registry, registry.root)
