"""The log: a line for each record, with the request that it is about, whatever a client writes."""

from __future__ import annotations

import logging
import logging.config
import re
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from digestry.model.digest import Digest
from digestry.registry.observability import logs
from digestry.registry.observability.logs import FIELDS, JsonLines, TextLines, encode
from digestry.registry.observability.request_id import RequestIds
from tests.registry.access.support import basic, guarded
from tests.registry.observability.support import audited, configured, logged
from tests.registry.support import raw_exchange
from tests.support import RegistryServer, wait_for_line, wait_until

OWN = re.compile(r"[0-9a-f]{12}-[0-9a-f]+")
JSON_ALL = '[log]\nformat = "json"\nrequests = "all"\n'


def line_of(server: RegistryServer, request_id: str) -> dict[str, Any]:
    """The one line about a request, which is written after its answer."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = [entry for entry in logged(server) if entry.get("request_id") == request_id]
        return bool(found)

    wait_until(there, what=f"a line about {request_id}")
    assert len(found) == 1, found
    return found[0]


@pytest.mark.long
def test_requests_as_json() -> None:
    with guarded(JSON_ALL) as server:
        headers = {**basic("alice"), "X-Request-Id": "build-17", "User-Agent": "docker/24.0"}
        blob = b"content"
        pushed = server.request("POST", f"/v2/logs/x/blobs/uploads/?digest={Digest.of(blob)}", blob, headers)
        assert (pushed.status, pushed.headers["x-request-id"]) == (201, "build-17")
        line = line_of(server, "build-17")
        assert {
            name: line[name] for name in ("user", "route", "method", "status", "repository", "client")
        } == {
            "user": "alice",
            "route": "upload",
            "method": "POST",
            "status": 201,
            "repository": "logs/x",
            "client": "docker/24.0",
        }
        assert line["digest"] == str(Digest.of(blob))
        assert line["received"] == len(blob)
        assert line["address"] == "127.0.0.1"
        assert line["level"] == "info"
        assert 0 < line["seconds"] < 30
        pulled = server.request("GET", f"/v2/logs/x/blobs/{Digest.of(blob)}", headers=basic("alice"))
        line = line_of(server, pulled.headers["x-request-id"])
        assert (line["digest"], line["sent"]) == (str(Digest.of(blob)), len(blob))
        refused = server.request("GET", "/v2/logs/x/manifests/1", headers=basic("alice", "wrong"))
        line = line_of(server, refused.headers["x-request-id"])
        assert (line["status"], line["user"], line["level"]) == (401, "anonymous", "warning")
        assert "password" in line["error"]


@pytest.mark.long
def test_no_secret_is_in_any_log() -> None:
    with guarded(JSON_ALL) as server:
        told = [
            {"Authorization": "s3cret-without-a-scheme"},
            {"Authorization": "Token s3cret"},
            {"Authorization": "Bearer s3cret"},
            {"Authorization": "Bearer dgr_s3cret"},
            {"Authorization": "Bearer a.s3cret.c"},
            {"Authorization": "Basic s3cret"},
            basic("alice", "s3cret"),
        ]
        for number, headers in enumerate(told):
            named = {**headers, "X-Request-Id": f"secret-{number}"}
            answer = server.request("PUT", "/v2/logs/x/manifests/1?token=s3cret", b"{}", named)
            assert answer.status == 401
            assert b"s3cret" not in answer.body
            line_of(server, f"secret-{number}")
        assert len(audited(server)) == len(told)
        assert "s3cret" not in server.log.read_text() + (server.root / "audit.log").read_text()


def test_every_answer_has_a_request_id(registry: RegistryServer) -> None:
    seen = set()
    for path in ("/v2/", "/v2/x/manifests/1", "/nowhere", "/livez", "/metrics"):
        found = registry.request("GET", path).headers["x-request-id"]
        assert OWN.fullmatch(found), found
        seen.add(found)
    assert len(seen) == 5
    kept = registry.request("GET", "/v2/", headers={"X-Request-Id": "a/b:c=1+2@x~y_z-0.9"})
    assert kept.headers["x-request-id"] == "a/b:c=1+2@x~y_z-0.9"


@pytest.mark.parametrize("hostile", ["x" * 129, 'a"b', "a b", "a,b", "<x>", "\x9b2J", "{}", "%0a", "a\tb"])
def test_hostile_request_ids(registry: RegistryServer, hostile: str) -> None:
    answer = registry.request("GET", "/v2/", headers={"X-Request-Id": hostile})
    assert OWN.fullmatch(answer.headers["x-request-id"])


def test_hostile_clients_and_paths_stay_in_their_line() -> None:
    with configured(JSON_ALL) as server:
        raw_exchange(
            server,
            b'GET /v2/%0a%1b[31m{"level":"forged"}/%e2%80%ae%c2%9b2J/tags/list HTTP/1.1\r\n'
            b'Host: x\r\nUser-Agent: evil\x9b2J \xff\x85 "}\xe2\x80\xa8\r\nX-Request-Id: h1\r\n'
            b"Connection: close\r\n\r\n",
        )
        wait_until(lambda: len(requests(server)) >= 2, what="the line")
        (line,) = [entry for entry in requests(server) if entry.get("request_id") == "h1"]
        assert line["path"].startswith('/v2/\n\x1b[31m{"level":"forged"}/')
        assert line["level"] == "warning"
        text = server.log.read_text(encoding="utf-8")
        assert not [one for one in text if one != "\n" and not one.isprintable()]
        assert "\u202e" not in text


def requests(server: RegistryServer) -> list[dict[str, Any]]:
    return [entry for entry in logged(server) if entry["logger"] == "digestry.requests"]


@pytest.mark.long
def test_only_errors_unless_all_are_wanted() -> None:
    with configured("") as server:
        server.push_image("logs/errors", "1")
        server.request("GET", "/v2/logs/errors/manifests/none")
        server.request("PUT", "/v2/logs/errors/manifests/UP!", b"{}")
        server.request("GET", "/v2/logs/errors/tags/list")
        wait_for_line(server.log, "UP!")
        told = server.log.read_text().splitlines()
        assert len(told) == 1, told
        assert re.fullmatch(
            r"[-0-9]+ [:0-9]+,\d+ WARNING digestry\.requests: 127\.0\.0\.1 anonymous PUT"
            r" /v2/logs/errors/manifests/UP! 400, \d+ bytes in, \d+ out, [.0-9]+ ms: .*"
            r" \[[0-9a-f]{12}-[0-9a-f]+\]",
            told[0],
        ), told[0]
    with configured('[log]\nrequests = "none"\n', "--log-format", "json") as server:
        assert server.request("PUT", "/v2/logs/none/manifests/UP!", b"{}").status == 400
        assert server.stop() == 0
        assert logged(server) == []


@pytest.mark.long
def test_a_defect_is_one_line_with_its_traceback_and_its_request() -> None:
    with configured("", "--log-format", "json") as server:
        server.push_image("logs/broken", "1")
        # A row that no code would write: what reads it fails in a way that nobody thought of.
        connection = sqlite3.connect(server.root / "catalog.db", timeout=20)
        connection.execute("UPDATE manifests SET media_type = x'00'")
        connection.commit()
        connection.close()
        answer = server.request("GET", "/v2/logs/broken/manifests/1", headers={"X-Request-Id": "defect-1"})
        assert answer.status == 500
        wait_until(
            lambda: len([line for line in logged(server) if line.get("request_id") == "defect-1"]) == 2,
            what="the lines",
        )
        failed, request = [line for line in logged(server) if line.get("request_id") == "defect-1"]
        assert failed["level"] == "error"
        assert "Traceback" in failed["exception"]
        assert failed["repository"] == "logs/broken"
        assert (request["status"], request["logger"]) == (500, "digestry.requests")


def test_granian_and_the_maintenance_process_go_through_the_same(tmp_path: Path) -> None:
    for form, formatter in (("json", JsonLines), ("text", TextLines)):
        configuration = logs.configuration(form)
        logging.config.dictConfig(configuration)
        try:
            for name in ("_granian", "digestry"):
                (handler,) = logging.getLogger(name).handlers
                assert type(handler.formatter) is formatter
        finally:
            for name in ("_granian", "digestry", "granian.access"):
                logging.getLogger(name).handlers.clear()
                logging.getLogger(name).propagate = True


# -- the parts ----------------------------------------------------------------------------------


def record(message: str, *arguments: Any, **extra: Any) -> logging.LogRecord:
    return logging.getLogger("digestry.x").makeRecord(
        "digestry.x", logging.INFO, __file__, 1, message, arguments, None, extra=extra
    )


def test_text_escapes_what_would_begin_a_line() -> None:
    line = TextLines().format(record("%s is odd", "a\nb\x1b[0m\u202e"))
    assert line.endswith("INFO digestry.x: a\\nb\\x1b[0m\\u202e is odd")


def test_json_takes_anything() -> None:
    fields = {"path": "a\ud800", "size": 1, "odd": object, "list": ["\x9b"]}
    line = JsonLines().format(record("x\ny", **{FIELDS: fields}))
    assert "\n" not in line
    entry = msgspec.json.decode(line)
    assert (entry["message"], entry["size"], entry["path"]) == ("x\ny", 1, "a\\ud800")
    assert msgspec.json.decode(encode({"a": "\x7f\u2028"})) == {"a": "\x7f\u2028"}
    assert encode({"a": "\x7f\u2028"}).isascii()


def test_request_ids_are_taken_only_if_sane() -> None:
    ids = RequestIds()
    assert ids.of([(b"x-request-id", b"ok-1")]) == b"ok-1"
    made = [ids.of([(b"x-request-id", bad)]) for bad in (b"", b"\r\nSet-Cookie: x", b"\xff", b"x" * 200)]
    assert len(set(made)) == 4
    assert all(OWN.fullmatch(one.decode()) for one in made)
    assert RequestIds().of([]) != RequestIds().of([])
