"""SIGKILL at random moments under a push load, then a restart on the same root.

A killed process keeps what the kernel already has: this tests the order of the steps and what a
restart makes of a half-done one, not the fsyncs (``tests/test_fsio.py`` has those).

``DIGESTRY_CRASH_SECONDS`` is how long the rounds of kills go on, with collection and without (2 by
default, and 8 in the tests that are marked ``long``). An hour of each::

    DIGESTRY_CRASH_SECONDS=3600 .venv/bin/pytest -s tests/crash -k nothing_acknowledged

``DIGESTRY_CRASH_SEED`` repeats a run's choices; a failure prints its seed. The moment of a kill
depends on the machine as well, so that a seed does not repeat a failure for sure.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.model.digest import ALGORITHMS, Digest
from tests.crash.checks import (
    check_all,
    check_files,
    check_journal,
    check_nothing_under_way,
    check_nothing_unheld,
    check_usage,
)
from tests.crash.load import Ledger, push_for
from tests.faults.inside import Inside
from tests.support import PATIENCE, RegistryServer, digestry, start_registry, wait_until

_SECONDS = os.environ.get("DIGESTRY_CRASH_SECONDS")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> str:
    """What this test's choices come from; in the report of a failure."""
    value = os.environ.get("DIGESTRY_CRASH_SEED") or secrets.token_hex(4)
    print(f"DIGESTRY_CRASH_SEED={value}")
    return value


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="digestry-crash-") as directory:
        yield Path(directory) / "root"


def _finish_uploads(server: RegistryServer, ledger: Ledger, *, most: int) -> None:
    """Goes on with uploads that the kill broke, as a client would; what it gets in is acknowledged."""
    for upload in list(ledger.uploads.values())[:most]:
        del ledger.uploads[upload.location]
        digest = Digest.of(upload.content)
        status = server.request("GET", upload.location)
        if status.status == 404:
            # Its end was reached, and only the answer was lost; nothing else forgets an upload.
            assert server.request("HEAD", f"/v2/{upload.repository}/blobs/{digest}").status in {200, 404}
            continue
        assert status.status == 204
        first, last = map(int, status.headers["range"].split("-"))
        arrived = last + 1 if last > first else upload.acknowledged
        assert arrived >= upload.acknowledged
        done = server.request("PUT", f"{upload.location}?digest={digest}", upload.content[arrived:])
        if done.status == 404:
            # Killed between the rename and the commit: the bytes have left the upload already.
            names = [Digest.of(upload.content, algorithm) for algorithm in ALGORITHMS]
            assert any((server.root / "blobs" / name.algorithm / name.encoded).exists() for name in names)
            assert server.push_blob(upload.repository, upload.content) == digest
        else:
            assert done.status == 201, (done.status, done.body)
        ledger.blobs[upload.repository, digest] = upload.content


_COLLECTING = """
[collection]
every = "0s"
lease = "4s"
untagged = "1s"
"""


@pytest.mark.long
@pytest.mark.parametrize("seconds", [2.0, pytest.param(8.0, marks=pytest.mark.long)])
@pytest.mark.parametrize("collecting", [False, True], ids=["", "while collecting without a pause"])
def test_nothing_acknowledged_is_lost(root: Path, seed: str, collecting: bool, seconds: float) -> None:
    config = root.with_name("registry.toml")
    config.write_text(_COLLECTING if collecting else "")
    lease = 4.0 if collecting else None
    options = ("--config", str(config))
    choices = random.Random(seed)
    ledger = Ledger(lease=lease)
    kills = pushes = 0
    end = time.monotonic() + float(_SECONDS or seconds)
    server = start_registry(root, *options)
    try:
        while True:
            # Each round's own acknowledgements are checked at once, and all of them at the end.
            fresh = Ledger(tags=ledger.tags, attempted=ledger.attempted, lease=lease)
            clients, _ = push_for(server.port, choices.uniform(0.02, 1.2), f"{seed}-{kills}", fresh)
            server.kill()
            for client in clients:
                client.join(timeout=PATIENCE)
                assert not client.is_alive()
            kills += 1
            pushes += len(fresh.manifests)
            server = start_registry(root, "--workers", choices.choice("112"), *options)
            _finish_uploads(server, fresh, most=4)
            check_all(server, fresh)
            ledger.blobs.update(fresh.blobs)
            ledger.manifests.update(fresh.manifests)
            late = time.monotonic() - end
            if late > 60 or (late > 0 and pushes > 0):  # a busy machine may need some more rounds
                break
        check_all(server, ledger)
        assert server.stop() == 0
        check_files(root)
        check_journal(root)
        check_usage(root)
    finally:
        if server.process.poll() is None:
            server.kill()
    with Inside(root, upload_timeout=-1.0) as inside:
        inside.service.upload_sweep.run()
    check_nothing_under_way(root)
    check_nothing_unheld(root)
    print(f"{kills} kills; {pushes} manifests and {len(ledger.blobs)} blobs were acknowledged")
    assert pushes > 0


@pytest.mark.long
def test_a_kill_while_starting(root: Path, seed: str) -> None:
    """The first start makes files and tables: a kill in the middle leaves nothing that stops the next."""
    choices = random.Random(seed)
    for _ in range(5):
        process = subprocess.Popen(
            digestry("serve", "--root", root, "--listen", "127.0.0.1:0"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(choices.uniform(0.1, 0.9))
        RegistryServer("", process, root).kill()
    server = start_registry(root)
    try:
        digest = server.push_image("a", "1")
        assert server.request("GET", f"/v2/a/manifests/{digest}").status == 200
    finally:
        server.stop()
    check_files(root)
    check_journal(root)
    check_usage(root)


@pytest.mark.long
def test_a_kill_between_the_rename_and_the_commit(root: Path) -> None:
    """The blob has its name, its row is missing: it is not shown, and the client's next try works."""
    content = os.urandom(200_000)
    digest = Digest.of(content)
    server = start_registry(root)
    location = server.request("POST", "/v2/a/blobs/uploads/").headers["location"]
    assert server.request("PATCH", location, content).status == 202
    server.kill()
    upload_id = location.rpartition("/")[2]
    (root / "ingest" / upload_id).rename(root / "blobs/sha256" / digest.encoded)

    server = start_registry(root)
    try:
        assert server.request("GET", f"/v2/a/blobs/{digest}").status == 404
        # The lost PUT once more: there is nothing under this upload now, which the client must hear
        # in a way that makes it begin again.
        again = server.request("PUT", f"{location}?digest={digest}")
        assert again.status in {201, 404, 416}, (again.status, again.body)
        assert server.push_blob("a", content) == digest
        assert server.request("GET", f"/v2/a/blobs/{digest}").body == content
    finally:
        server.stop()
    check_files(root)


@pytest.mark.long
def test_leftovers_in_ingest(root: Path) -> None:
    """What killed servers left is never served; the old of it is swept, the new and the owned stay."""
    content = os.urandom(100_000)
    server = start_registry(root)
    location = server.request("POST", "/v2/a/blobs/uploads/").headers["location"]
    assert server.request("PATCH", location, content[:60_000]).status == 202
    server.kill()
    ingest = root / "ingest"
    owned = ingest / location.rpartition("/")[2]
    with owned.open("ab") as file:  # bytes of a PATCH that was never acknowledged
        file.write(b"half-written")
    old, new = ingest / "new-0123456789abcdef01234567", ingest / "new-76543210fedcba9876543210"
    for path in (old, new):
        path.write_bytes(content)
    os.utime(old, (0, 0))
    os.utime(owned, (0, 0))

    server = start_registry(root)
    try:
        wait_until(lambda: not old.exists(), what="the old one's end")
        assert new.exists()
        status = server.request("GET", location)
        assert (status.status, status.headers["range"]) == (204, "0-59999")
        digest = Digest.of(content)
        assert server.request("GET", f"/v2/a/blobs/{digest}").status == 404
        rest = {"Content-Range": "60000-99999"}
        assert server.request("PATCH", location, content[60_000:], rest).status == 202
        assert server.request("PUT", f"{location}?digest={digest}").status == 201
        assert server.request("GET", f"/v2/a/blobs/{digest}").body == content
    finally:
        server.stop()
    check_files(root)


@pytest.mark.long
def test_one_worker_is_killed(root: Path, seed: str) -> None:
    """Whatever the parent does about it, nothing wrong is served and nothing acknowledged is lost."""
    ledger = Ledger()
    server = start_registry(root, "--workers", "2")
    try:
        clients, stop = push_for(server.port, 0.3, seed, ledger)
        wait_until(lambda: ledger.tags, what="a push")
        workers = _children(server.process.pid)
        assert len(workers) >= 2
        os.kill(random.Random(seed).choice(workers), signal.SIGKILL)
        time.sleep(0.5)
        stop.set()
        for client in clients:
            client.join(timeout=PATIENCE)
        server.kill()
        server = start_registry(root)
        check_all(server, ledger)
    finally:
        if server.process.poll() is None:
            server.kill()


@pytest.mark.long
def test_only_the_parent_is_killed(root: Path, seed: str) -> None:
    """Its workers may outlive it, but then the root stays theirs: there are never two servers on it."""
    ledger = Ledger()
    server = start_registry(root)
    try:
        clients, stop = push_for(server.port, 0.3, seed, ledger)
        server.process.kill()
        server.process.wait()
        second = subprocess.Popen(
            digestry("serve", "--root", root, "--listen", "127.0.0.1:0"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert second.stdout is not None
        served = False
        try:
            served = second.stdout.readline() != b""
            if served:  # only after the first one's workers have gone
                with pytest.raises(OSError, match="refused"):
                    server.request("GET", "/v2/")
        finally:
            if second.poll() is None and served:
                RegistryServer("", second, root).kill()
            _, said = second.communicate(timeout=PATIENCE)
        assert served or b"is served by another" in said
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
    stop.set()
    for client in clients:
        client.join(timeout=PATIENCE)
    server = start_registry(root)
    try:
        check_all(server, ledger)
    finally:
        server.kill()


def _children(pid: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=True
    ).stdout
    return [int(line) for line in listed.split()]


@pytest.mark.long
def test_sigterm_during_pushes(root: Path, seed: str) -> None:
    """An operator's stop: exit code 0, and each push is either done or broken, never half."""
    ledger = Ledger()
    server = start_registry(root)
    try:
        clients, _ = push_for(server.port, 0.4, seed, ledger)
        wait_until(lambda: ledger.tags, what="a push")
        assert server.stop() == 0
        for client in clients:
            client.join(timeout=PATIENCE)
        server = start_registry(root)
        check_all(server, ledger)
        _finish_uploads(server, ledger, most=4)
        check_all(server, ledger)
        assert server.stop() == 0
    finally:
        if server.process.poll() is None:
            server.kill()
