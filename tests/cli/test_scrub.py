"""``digestry scrub``, as an operator calls it, beside a registry that is served."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from digestry.coordination.files import lock_file
from digestry.coordination.protocol import Job
from digestry.file_locks import locked
from digestry.model.digest import Digest
from tests.registry.support import query
from tests.stores import blob_file
from tests.support import RegistryServer, digestry, run_digestry, running_registry, wait_until

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def served() -> Iterator[RegistryServer]:
    """A registry of this test's own, for it is damaged."""
    with running_registry() as server:
        yield server


@pytest.fixture
def run(served: RegistryServer) -> Run:
    def run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = run_digestry("scrub", "--root", served.root, *arguments)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.mark.long
def test_found_listed_healed(served: RegistryServer, run: Run) -> None:
    assert "; 0 damaged now" in run("--list").stdout
    layer = os.urandom(200_000)
    first = served.push_image("team/app", "1", layer)
    served.push_image("team/app", "2", layer, annotations={"which": "2"})
    whole = run("--from-start", "--rate", "500 MiB")
    assert "4 blobs, 2" in whole.stdout
    assert "; 0 damaged now" in whole.stdout
    assert json.loads(run("--format", "json").stdout)["damaged"] == []

    digest = Digest.of(layer)
    path = blob_file(served.root, digest)
    path.write_bytes(layer[:-1] + bytes([layer[-1] ^ 1]))
    blob_file(served.root, first).unlink()
    found = run("--from-start", status=1)
    lines = {line.split()[0]: line for line in found.stdout.splitlines()}
    assert "its bytes hash to sha256:" in lines[str(digest)]
    assert lines[str(digest)].endswith("team/app:1,2")
    assert "its file is gone" in lines[str(first)]
    assert lines[str(first)].endswith("team/app:1")
    assert "2 damaged now" in found.stdout
    assert "push an image that holds it once more" in found.stderr
    assert served.request("HEAD", f"/v2/team/app/blobs/{digest}").status == 404

    listed = json.loads(run("--list", "--format", "json", status=1).stdout)
    assert listed["pass"]["damaged"] == 2
    assert listed["pass"]["finished_at"] is not None
    by_digest = {one["digest"]: one for one in listed["damaged"]}
    one = by_digest[str(digest)]
    assert one["repositories"] == [{"name": "team/app", "tags": ["1", "2"], "more_tags": 0}]
    (file,) = one["files"]
    assert (served.root / file).read_bytes()[:-1] == layer[:-1]
    assert by_digest[str(first)]["files"] == []

    served.push_image("team/app", "1", layer)
    assert "; 0 damaged now" in run("--list").stdout
    assert run("--from-start").stderr == ""
    assert served.request("GET", f"/v2/team/app/blobs/{digest}").body == layer


@pytest.mark.long
def test_interrupted_it_goes_on_where_it_was(served: RegistryServer, run: Run) -> None:
    for _ in range(100):
        served.push_blob("x", os.urandom(10))
    run()  # so that the server does not begin a pass of its own
    command = digestry("scrub", "--root", served.root, "--from-start", "--rate", "256 KiB")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def begun() -> bool:
        return query(served, "SELECT name FROM jobs WHERE name = 'scrub' AND finished_at IS NULL") != []

    wait_until(begun, what="the beginning of the scrub")
    refused = run(status=2)
    assert "is under way in another process" in refused.stderr
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stdout + stderr
    assert "call it again to go on there" in stderr
    partly = json.loads(run("--list", "--format", "json").stdout)["pass"]
    assert partly["finished_at"] is None
    assert partly["blobs"] < 100
    whole = json.loads(run("--format", "json").stdout)["pass"]
    assert whole["started_at"] == partly["started_at"]
    assert whole["blobs"] == 100


@pytest.mark.long
def test_some_content_alone_whatever_else_is_under_way(served: RegistryServer, run: Run) -> None:
    run()  # so that the server does not begin a pass of its own
    layer, other = os.urandom(200_000), os.urandom(200_000)
    digests = [served.push_blob("x", content) for content in (layer, other, b"small")]
    for digest in digests[:2]:
        blob_file(served.root, digest).write_bytes(bytes(200_000))
    assert served.request("HEAD", f"/v2/x/blobs/{digests[0]}").status == 200  # nobody knows
    with locked(served.root / lock_file(Job.SCRUB)):  # as a pass that is under way has it
        found = run(str(digests[0]), str(digests[2]), str(digests[0]), status=1)
    (line,) = (line for line in found.stdout.splitlines() if line.startswith("sha256:"))
    assert line.startswith(str(digests[0]))
    assert "2 blobs, 200kB; 1 damaged now" in found.stdout
    assert served.request("HEAD", f"/v2/x/blobs/{digests[0]}").status == 404
    assert served.request("HEAD", f"/v2/x/blobs/{digests[1]}").status == 200
    run(str(digests[2]))  # only what was asked for counts
    assert json.loads(run("--list", "--format", "json", str(digests[2])).stdout)["damaged"] == []
    assert query(served, "SELECT count(*) FROM damaged") == [(1,)]
    served.push_blob("x", layer)
    assert "; 0 damaged now" in run(str(digests[0])).stdout
    nobodys = Digest.of(b"nobody's")
    assert f"has {nobodys}" in run(str(nobodys), status=4).stderr
    assert "--from-start is for all" in run("--from-start", str(digests[0]), status=2).stderr


@pytest.mark.long
def test_how_far_it_is_on_a_terminal(served: RegistryServer) -> None:
    served.push_blob("x", b"content")
    main, terminal = pty.openpty()
    command = digestry("scrub", "--root", served.root, "--from-start")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, text=True, check=False)
    os.close(terminal)
    shown = os.read(main, 1 << 16).decode()
    os.close(main)
    assert done.returncode == 0
    assert "1 blobs, 7B, 0 damaged" in shown
    assert "1 blob, 7B; 0 damaged now" in done.stdout


@pytest.mark.long
def test_what_cannot_be_asked(run: Run, tmp_path: Path) -> None:
    assert "KiB a second or more" in run("--rate", "1", status=2).stderr
    assert "a number of bytes is required" in run("--rate", "fast", status=2).stderr
    done = run_digestry("scrub", "--root", tmp_path / "none")
    assert done.returncode == 4
    assert "there is no registry under" in done.stderr
    assert "hint: name the directory that digestry serve has as its root" in done.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
def test_not_as_another_user(served: RegistryServer, run: Run) -> None:
    os.chown(served.root / "catalog.db", 12345, -1)
    assert "belongs to another user" in run(status=2).stderr
    run("--list")
