"""The audit log: a line for each write, whatever came of it, and never a request that fails for it."""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
from logging.handlers import QueueHandler
from pathlib import Path
from typing import Any

import pytest

from digestry.errors import InvalidConfiguration
from digestry.model.digest import Digest
from digestry.registry.observability import audit_log
from digestry.registry.observability.audit_log import (
    PLACE_FILE,
    AuditLog,
    RotationJob,
    record_path,
    recorded_path,
)
from digestry.registry.observability_config import LogConfig
from tests.registry.access.support import RULES, basic, guarded, of
from tests.registry.observability.support import Metrics, audited, configured, lines, logged
from tests.registry.support import Upload, raw_exchange
from tests.support import RegistryServer, running_registry, wait_until


def told(server: RegistryServer, *names: str) -> list[tuple[Any, ...]]:
    """These fields of every line."""
    return [tuple(entry.get(name) for name in names) for entry in audited(server)]


@pytest.mark.long
def test_every_write_of_an_image() -> None:
    with guarded(RULES) as server:
        alice = of(server, "alice")
        answer = alice.push_image("team/app", "1", b"one")
        manifest = answer.headers["docker-content-digest"]
        # The line is there before the answer is.
        entries = audited(server)
        assert [entry["action"] for entry in entries] == [
            "push-blob",
            "push-blob",
            "push-manifest",
            "create-tag",
        ]
        blob, pushed, tag = entries[1], entries[2], entries[3]
        assert {
            name: blob[name] for name in ("user", "address", "repository", "digest", "size", "status")
        } == {
            "user": "alice",
            "address": "127.0.0.1",
            "repository": "team/app",
            "digest": str(Digest.of(b"one")),
            "size": 3,
            "status": 201,
        }
        assert (pushed["digest"], pushed["tags"]) == (manifest, ["1"])
        assert pushed["request_id"] == tag["request_id"] == answer.headers["x-request-id"]
        assert (tag["tag"], tag["from"], tag["to"], tag["sequence"]) == ("1", None, manifest, 1)
        second = alice.push_image("team/app", "1", b"two").headers["docker-content-digest"]
        moved = audited(server)[-1]
        assert (moved["action"], moved["from"], moved["to"]) == ("move-tag", manifest, second)

        restored = alice.request("POST", f"/v2/team/app/_digestry/restore/1?to={manifest}")
        assert restored.status == 200
        assert told(server, "action", "tag", "from", "to")[-2:] == [
            ("restore-tag", "1", None, None),
            ("move-tag", "1", second, manifest),
        ]
        assert alice.request("DELETE", "/v2/team/app/manifests/1").status == 202
        assert told(server, "action", "tag", "from", "to")[-1] == ("delete-tag", "1", manifest, None)
        assert alice.request("DELETE", f"/v2/team/app/manifests/{manifest}").status == 202
        assert told(server, "action", "digest", "status")[-1] == ("delete-manifest", manifest, 202)
        layer = Digest.of(b"one")
        assert alice.request("DELETE", f"/v2/team/app/blobs/{layer}").status == 202
        assert told(server, "action", "digest", "status")[-1] == ("delete-blob", str(layer), 202)


def test_uploads_and_mounts(registry: RegistryServer) -> None:
    start = len(audited(registry))
    upload = Upload.begin(registry, "audit/up")
    upload.patch(b"abc")
    assert upload.put(Digest.of(b"abc")).status == 201
    cancelled = Upload.begin(registry, "audit/up")
    assert registry.request("DELETE", cancelled.path).status == 204
    digest = Digest.of(b"abc")
    mounted = registry.request("POST", f"/v2/audit/to/blobs/uploads/?mount={digest}&from=audit/up")
    assert mounted.status == 201
    assert told(registry, "action", "repository", "upload", "digest", "source")[start:] == [
        ("begin-upload", "audit/up", upload.id, None, None),
        ("push-blob", "audit/up", upload.id, str(digest), None),
        ("begin-upload", "audit/up", cancelled.id, None, None),
        ("cancel-upload", "audit/up", cancelled.id, None, None),
        ("mount-blob", "audit/to", None, str(digest), "audit/up"),
    ]


@pytest.mark.long
def test_what_was_refused_is_told_too() -> None:
    with guarded(RULES) as server:
        assert of(server, "carol").push_image("team/app", "1").status == 201
        start = len(audited(server))
        for headers, status in ((basic("bob"), 403), (basic("bob", "wrong"), 401), ({}, 401)):
            answer = server.request("PUT", "/v2/team/app/manifests/1", b"{}", headers)
            assert answer.status == status
        bad = server.request("PUT", "/v2/team/app/manifests/1", b"{}", basic("alice"))
        assert bad.status == 400
        found = audited(server)[start:]
        assert [(entry["user"], entry["status"], entry["action"]) for entry in found] == [
            ("bob", 403, "push-manifest"),
            ("anonymous", 401, "push-manifest"),
            ("anonymous", 401, "push-manifest"),
            ("alice", 400, "push-manifest"),
        ]
        assert all(entry["error"] and entry["path"] == "/v2/team/app/manifests/1" for entry in found)
        assert "no rule" in found[0]["error"]


def test_reads_have_no_line(registry: RegistryServer) -> None:
    digest = registry.push_image("audit/reads", "1")
    start = len(audited(registry))
    for path in ("manifests/1", f"manifests/{digest}", "tags/list", f"referrers/{digest}"):
        assert registry.request("GET", f"/v2/audit/reads/{path}").status == 200
    registry.request("HEAD", "/v2/audit/reads/manifests/1")
    registry.request("POST", "/v2/_digestry/resolve", json.dumps({"queries": []}))
    registry.request("POST", "/nowhere")
    assert audited(registry)[start:] == []


@pytest.mark.long
def test_a_client_that_leaves_has_a_line() -> None:
    with running_registry() as server:
        raw_exchange(
            server,
            b"PUT /v2/audit/gone/manifests/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
            answered=False,
            quiet=0.5,
        )
        wait_until(lambda: audited(server), what="the line")
        assert told(server, "action", "status", "tags") == [("push-manifest", 499, ["1"])]


@pytest.mark.long
def test_lines_of_two_workers_never_mix() -> None:
    with running_registry("--workers", "2") as server:

        def push(number: int) -> None:
            for turn in range(15):
                server.push_blob(f"audit/{number}", f"{number} {turn}".encode())

        threads = [threading.Thread(target=push, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        entries = audited(server)
        assert len(entries) == 120
        assert len({entry["request_id"] for entry in entries}) == 120


def test_a_full_disk_breaks_no_request() -> None:
    with configured('[log]\nformat = "json"\naudit = "/dev/full"\n') as server:
        for number in range(3):
            server.push_blob("audit/full", str(number).encode())
        assert Metrics(server).sum("digestry_audit_lost_lines_total") == 3
        wait_until(lambda: logged(server), what="the warning")
        complaints = [entry for entry in logged(server) if "audit log cannot be written" in entry["message"]]
        assert len(complaints) == 1
        assert "No space left" in complaints[0]["message"]


@pytest.mark.long
def test_off_and_standard_error() -> None:
    with configured('[log]\naudit = "off"\n') as server:
        server.push_image("audit/off", "1")
        assert audited(server) == []
        assert not (server.root / "audit.log").exists()
    with configured('[log]\nformat = "json"\naudit = "stderr"\n') as server:
        server.push_image("audit/err", "1")
        assert [entry["action"] for entry in logged(server)][-1] == "create-tag"


def test_a_file_of_its_own_beside_the_configuration() -> None:
    with configured('[log]\naudit = "writes.log"\n') as server:
        server.push_blob("audit/file", b"x")
        file = server.root.with_name("writes.log")
        assert [entry["action"] for entry in lines(file)] == ["push-blob"]
        # As logrotate does it: the next line goes to a new file.
        file.rename(file.with_name("writes.log.1"))
        server.push_blob("audit/file", b"y")
        assert [entry["digest"] for entry in lines(file)] == [str(Digest.of(b"y"))]
        assert file.stat().st_mode & 0o077 == 0o040


# -- the parts ----------------------------------------------------------------------------------


def test_a_large_file_is_put_aside(tmp_path: Path) -> None:
    config = LogConfig(audit_size=100, audit_files=2)
    audit, rotation = AuditLog(config, tmp_path), RotationJob(config, tmp_path)
    rotation.run(threading.Event())  # there is none yet
    for number in range(5):
        audit.write([{"number": number, "filler": "x" * 120}])
        assert rotation.run(threading.Event()) > 0
    audit.write([{"number": 5}])
    rotation.run(threading.Event())
    audit.close()
    found = {path.name: [entry["number"] for entry in lines(path)] for path in tmp_path.iterdir()}
    assert found == {"audit.log": [5], "audit.log.1": [4], "audit.log.2": [3]}


def test_a_line_after_one_that_was_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = AuditLog(LogConfig(), tmp_path)
    audit.write([{"n": 1}])
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:4]))
    audit.write([{"n": 2}])
    monkeypatch.undo()
    # Whoever writes next: another process, or this one when it was started again.
    other = AuditLog(LogConfig(), tmp_path)
    other.write([{"n": 3}])
    other.close()
    audit.write([{"n": 4}])
    audit.close()
    assert (tmp_path / "audit.log").read_text().splitlines() == ['{"n":1}', '{"n"', '{"n":3}', '{"n":4}']
    assert (audit.lost, other.lost) == (1, 0)


def test_no_folder_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A logger of its own: what other tests configured, or still log, makes no difference.
    log, records = logging.Logger("alone"), queue.SimpleQueue[logging.LogRecord]()
    log.addHandler(QueueHandler(records))
    monkeypatch.setattr(audit_log, "log", log)
    audit = AuditLog(LogConfig(audit=tmp_path / "none" / "audit.log"), tmp_path)
    audit.write([{"n": 1}, {"n": 2}])
    audit.write([{"n": 3}])
    assert audit.lost == 3
    assert records.get_nowait().levelno == logging.ERROR
    assert records.empty()


def test_a_place_where_it_cannot_be(tmp_path: Path) -> None:
    for place in (tmp_path / "none" / "audit.log", tmp_path):
        with pytest.raises(InvalidConfiguration, match=r"cannot write the audit log .*audit|: Is a dir"):
            AuditLog(LogConfig(audit=place), tmp_path).check()
    AuditLog(LogConfig(), tmp_path).check()
    AuditLog(LogConfig(audit="off"), tmp_path).check()


def test_no_line_is_lost_while_the_file_is_put_aside(tmp_path: Path) -> None:
    config = LogConfig(audit_size=1, audit_files=1000)
    rotation = RotationJob(config, tmp_path)
    logs = [AuditLog(config, tmp_path) for _ in range(4)]
    stop = threading.Event()
    written = [0] * len(logs)

    def write(writer: int) -> None:
        while not stop.is_set():
            logs[writer].write([{"writer": writer, "number": written[writer]}])
            written[writer] += 1

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(len(logs))]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, 8):
            aside = tmp_path / f"audit.log.{number}"

            def rotated(aside: Path = aside) -> bool:
                rotation.run(threading.Event())
                return aside.exists()

            wait_until(rotated, what="a file that is put aside")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for audit in logs:
        audit.close()
    found = sorted((entry["writer"], entry["number"]) for file in tmp_path.iterdir() for entry in lines(file))
    assert found == [(writer, number) for writer, count in enumerate(written) for number in range(count)]


def test_commands_find_it(tmp_path: Path) -> None:
    for place in (tmp_path / "elsewhere.log", "off", "stderr", None):
        record_path(LogConfig(audit=place), tmp_path)
        assert recorded_path(tmp_path).audit == place
    (tmp_path / PLACE_FILE).write_text("{")  # no registry wrote this
    assert recorded_path(tmp_path).audit is None
