"""The server as a process: its start, its end, its workers, and what it says when it cannot run."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.model.digest import Digest
from digestry.registry.workers import STOP_SECONDS, Interrupt
from tests.backends import open_blobs
from tests.registry.support import Upload, events, ingest_files, statuses
from tests.stores import needs_disk
from tests.support import (
    PATIENCE,
    RegistryServer,
    run_digestry,
    running_registry,
    start_digestry,
    start_registry,
    wait_until,
)


def failing_start(root: Path, listen: str = "127.0.0.1:0") -> tuple[int, str]:
    """The exit code and standard error of a server that must not start."""
    ended = run_digestry("serve", "--root", root, "--listen", listen, timeout=30)
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr


@pytest.fixture(scope="module")
def pair() -> Iterator[RegistryServer]:
    """A server with two workers."""
    with running_registry("--workers", "2") as server:
        yield server


@pytest.mark.long
def test_one_root_one_server(registry: RegistryServer) -> None:
    code, told = failing_start(registry.root)
    assert code == 2
    assert f"{registry.root} is served by another digestry already" in told


def test_port_in_use(registry: RegistryServer, tmp_path: Path) -> None:
    code, told = failing_start(tmp_path / "root", registry.host)
    assert code == 2
    assert "Address already in use" in told
    assert "--listen" in told


@pytest.mark.parametrize(
    "listen", ["nowhere.invalid:0", "192.0.2.1:0", "no-port", "127.0.0.1:99999", ":5000"]
)
def test_no_address_to_listen_on(tmp_path: Path, listen: str) -> None:
    code, told = failing_start(tmp_path / "root", listen)
    assert code == 2
    assert "listen" in told


def test_a_host_by_name(tmp_path: Path) -> None:
    with start_digestry(
        "serve", "--root", tmp_path / "root", "--listen", "localhost:0", stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        process.terminate()
        assert process.wait(timeout=PATIENCE) == 0
    assert url.startswith("http://localhost:")


def test_garbage_for_a_catalog(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_bytes(os.urandom(8192))
    code, told = failing_start(tmp_path)
    assert code == 6
    assert "not a database" in told
    assert "restore the catalog from a backup" in told


@pytest.mark.parametrize("size", [None, 0])
def test_content_without_its_catalog(tmp_path: Path, size: int | None) -> None:
    """With a new catalog the next collection would remove all of it."""
    root = needs_disk(tmp_path / "root")  # what is in other stores, the catalog says itself
    blobs = open_blobs(root)
    blobs.prepare()
    digest = blobs.put(b"somebody's")
    if size is not None:
        (root / "catalog.db").touch()
    status, said = failing_start(root)
    assert status == 2
    assert "has content, and no catalog" in said
    assert (root / "catalog.db").exists() == (size is not None)
    assert blobs.read(digest) == b"somebody's"
    blobs.delete(digest)
    assert start_registry(root).stop() == 0


@pytest.mark.long
def test_a_catalog_of_a_later_version(tmp_path: Path) -> None:
    start_registry(tmp_path / "root").stop()
    with sqlite3.connect(tmp_path / "root" / "catalog.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("UPDATE schema_support SET oldest = '9998'")
    connection.close()
    code, told = failing_start(tmp_path / "root")
    assert code == 6
    assert "a newer digestry" in told


def test_a_root_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, told = failing_start(tmp_path / "file" / "root")
    assert code == 6
    assert "cannot create the directory" in told


def test_a_root_with_an_odd_name(tmp_path: Path) -> None:
    root = tmp_path / "odd ?mode=rw#%41 \u00e4"
    server = start_registry(root)
    try:
        server.push_image("odd", "t")
        assert server.request("GET", "/v2/odd/manifests/t").status == 200
    finally:
        assert server.stop() == 0
    assert (root / "catalog.db").exists()


@pytest.mark.long
def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    server = start_registry(tmp_path / "root")
    digest = server.push_image("restart/x", "t")
    upload = Upload.begin(server, "restart/x")
    upload.patch(b"x" * 100)
    before = events(server, "restart/x")
    assert server.stop() == 0
    server = start_registry(tmp_path / "root")
    try:
        assert server.request("HEAD", "/v2/restart/x/manifests/t").headers["docker-content-digest"] == str(
            digest
        )
        assert events(server, "restart/x") == before
        again = Upload(server, upload.path)
        assert again.status().headers["range"] == "0-99"
        assert again.put(Digest.of(b"x" * 100)).status == 201
    finally:
        server.stop()


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_while_an_upload_runs(tmp_path: Path, number: signal.Signals) -> None:
    """The request under way is finished; then the server ends, with exit code 0."""
    server = start_registry(tmp_path / "root")
    content = os.urandom(300_000)
    upload = Upload.begin(server, "stopped/x")
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
        head = f"PUT {upload.path}?digest={Digest.of(content)} HTTP/1.1\r\nHost: x\r\n"
        head += f"Content-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content[:100_000])
        wait_until(lambda: upload.id in ingest_files(server), what="the upload's begin")
        server.process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(timeout=0.5)
        connection.sendall(content[100_000:])
        assert statuses(connection.recv(4096)) == [201]
    assert server.process.wait(timeout=PATIENCE) == 0
    server = start_registry(tmp_path / "root")
    try:
        assert server.request("GET", f"/v2/stopped/x/blobs/{Digest.of(content)}").body == content
    finally:
        server.stop()


@pytest.mark.long
@pytest.mark.parametrize("more", ["", "http2 = true\n"])
def test_a_server_that_stops_answers_until_its_drain_ends(tmp_path: Path, more: str) -> None:
    """Both servers: that of HTTP/1 alone, and the one that has HTTP/2."""
    config = tmp_path / "registry.toml"
    config.write_text(f"{more}drain-seconds = 600\nworkers = 2\n", encoding="utf-8")
    server = start_registry(tmp_path / "root", "--config", str(config))
    digest = server.push_image("drain/x", "t")
    kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    kept.request("GET", "/v2/")
    assert kept.getresponse().read() == b"{}"
    kept_socket = kept.sock
    server.process.send_signal(signal.SIGTERM)
    for _ in range(2):  # workers
        wait_until(lambda: server.request("GET", "/readyz").status == 503, what="the drain's begin")
    assert b"stopping" in server.request("GET", "/readyz").body
    assert server.request("GET", "/livez").status == 200
    for _ in range(6):
        answer = server.request("HEAD", "/v2/drain/x/manifests/t")
        assert answer.headers["docker-content-digest"] == str(digest)
    wait_until(lambda: _says_close(server.port), what="the workers' notice of it")

    def is_last() -> bool:
        kept.request("GET", "/v2/")
        assert kept.sock is kept_socket  # it was not closed while it was idle
        answer = kept.getresponse()
        assert answer.read() == b"{}"
        return answer.headers["connection"] == "close"

    wait_until(is_last, what="the notice of it of the worker that has the connection")
    server.push_image("drain/x", "more")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=PATIENCE) == 0
    server.stop()


def _says_close(port: int) -> bool:
    """Whether several answers, of whichever worker, are the last of connections that their clients would
    keep."""
    for _ in range(6):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", "/v2/")
            response = connection.getresponse()
            response.read()
            if response.headers["connection"] != "close":
                return False
    return True


@pytest.mark.long
def test_a_drain_ends_by_itself_and_an_interrupt_needs_none(tmp_path: Path) -> None:
    for number, seconds in ((signal.SIGTERM, 1), (signal.SIGINT, 600)):
        config = tmp_path / "registry.toml"
        config.write_text(f"drain-seconds = {seconds}\n", encoding="utf-8")
        server = start_registry(tmp_path / "root", "--config", str(config))
        server.process.send_signal(number)
        assert server.process.wait(timeout=PATIENCE) == 0
        server.stop()


@pytest.mark.long
def test_a_push_through_one_worker_is_seen_through_the_other_at_once(pair: RegistryServer) -> None:
    # Each request is a new connection, and the kernel gives it to either worker.
    for number in range(30):
        name = f"workers/x{number % 3}"
        digest = pair.push_image(name, "t", os.urandom(10))
        for _ in range(6):
            head = pair.request("HEAD", f"/v2/{name}/manifests/t")
            assert head.headers["docker-content-digest"] == str(digest)
    for _ in range(10):
        assert pair.request("DELETE", "/v2/workers/x0/manifests/t").status in {202, 404}
        for _ in range(4):
            assert pair.request("HEAD", "/v2/workers/x0/manifests/t").status == 404


def test_an_upload_goes_on_in_the_other_worker(pair: RegistryServer) -> None:
    for size in (0, 1, 3, 10):
        content = os.urandom(size * 100_000)
        upload = Upload.begin(pair, "workers/uploads")
        for start in range(0, len(content), 100_000):
            assert upload.patch(content[start : start + 100_000], start).status == 202
        assert upload.put(Digest.of(content)).status == 201


def test_both_workers_serve(pair: RegistryServer) -> None:
    assert len(pair.processes()) >= 3


@pytest.mark.long
def test_workers_end_with_their_server(tmp_path: Path) -> None:
    server = start_registry(tmp_path / "root", "--workers", "2")
    try:
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        wait_until(lambda: server.processes() == [], what="the end of the workers")
        start_registry(tmp_path / "root").stop()  # the root's lock is free again
    finally:
        if server.processes():
            server.kill()


def serves(server: RegistryServer, digest: Digest) -> bool:
    """Whether a worker answers, and with this image."""
    try:
        found = server.request("GET", "/v2/respawn/manifests/1").headers["docker-content-digest"]
    except OSError:
        return False
    return found == str(digest)


@pytest.mark.long
def test_a_worker_that_dies_is_started_anew(tmp_path: Path) -> None:
    server = start_registry(tmp_path / "root")
    try:
        digest = server.push_image("respawn", "1")
        worker = next(process for process in server.processes() if process != server.process.pid)
        os.kill(worker, signal.SIGKILL)

        wait_until(lambda: serves(server, digest), what="a new worker")
        assert server.process.poll() is None
        assert worker not in server.processes()
    finally:
        assert server.stop() == 0


def test_a_worker_that_dies_twice_within_seconds_does_not_end_the_server(tmp_path: Path) -> None:
    server = start_registry(tmp_path / "root")
    try:
        digest = server.push_image("respawn", "1")
        killed = {server.process.pid}
        for _ in range(3):
            wait_until(lambda: set(server.processes()) - killed, what="a worker")
            for worker in set(server.processes()) - killed:
                os.kill(worker, signal.SIGKILL)
                killed.add(worker)

        wait_until(lambda: serves(server, digest), what="a new worker")
        assert server.process.poll() is None
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize("seconds", [0.0, 0.05, pytest.param(0.3, marks=pytest.mark.long)])
def test_a_server_that_replaces_a_worker_stops_at_once(tmp_path: Path, seconds: float) -> None:
    """The new worker has no handlers of its own yet, and the server is in the middle of its main loop."""
    server = start_registry(tmp_path / "root", "--workers", "2")
    worker = next(one for one in server.processes() if one != server.process.pid)
    os.kill(worker, signal.SIGKILL)
    time.sleep(seconds)
    server.process.terminate()
    try:
        server.process.wait(timeout=STOP_SECONDS - 1)
    finally:
        if server.process.poll() is None:
            server.kill()


def test_a_signal_is_not_lost_to_a_main_loop_that_clears_it() -> None:
    interrupt = Interrupt()
    with contextlib.closing(interrupt):
        interrupt.set()
        assert interrupt.is_set()
        interrupt.clear()
        assert not interrupt.wait(0)
        interrupt.set(for_the_end=True)
        interrupt.clear()
        assert interrupt.wait(0)


def test_users_that_cannot_be_read_are_told_before_a_worker_starts(tmp_path: Path) -> None:
    config = tmp_path / "registry.toml"
    config.write_text('[auth]\nhtpasswd = "users"\n')
    words = ("serve", "--config", config, "--root", tmp_path / "root", "--listen", "127.0.0.1:0")
    missing = run_digestry(*words)
    assert missing.returncode == 2
    assert "cannot read the users of" in missing.stderr
    assert "No such file" in missing.stderr
    (tmp_path / "users").write_text("ann:{SHA}abc\n")
    weak = run_digestry(*words)
    assert weak.returncode == 2
    assert "line 1" in weak.stderr
    assert "bcrypt" in weak.stderr
    assert "_granian" not in weak.stderr


@pytest.mark.long
def test_a_second_server_is_kept_out_though_the_lock_file_was_removed(tmp_path: Path) -> None:
    server = start_registry(tmp_path / "root")
    try:
        (server.root / "serve.lock").unlink()
        second = run_digestry("serve", "--root", server.root, "--listen", "127.0.0.1:0")
        assert second.returncode == 2
        assert "is served by another digestry already" in second.stderr
    finally:
        server.stop()
