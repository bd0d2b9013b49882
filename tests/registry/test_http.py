"""HTTP that is wrong on purpose: paths, methods, headers, bytes. The server answers, and stores nothing."""

from __future__ import annotations

import select
import socket

import pytest

from tests.registry.support import Upload, query, raw_exchange, statuses, still_answers
from tests.support import PATIENCE, RegistryServer

DIGEST = "sha256:" + "0" * 64
READ_ONLY = [
    "/v2/",
    "/v2",
    "/v2/_catalog",
    "/v2/http/x/tags/list",
    f"/v2/http/x/referrers/{DIGEST}",
    "/v2/_oci/ext/discover",
    "/v2/http/x/_oci/tag-history/t",
    "/v2/http/x/_digestry/journal",
    f"/v2/http/x/_digestry/holders/{DIGEST}",
    f"/v2/http/x/_digestry/layers/{DIGEST}",
    "/v2/http/x/_digestry/advisories",
]


def nothing_was_stored(registry: RegistryServer) -> None:
    names = "SELECT name FROM repositories WHERE name NOT GLOB '[a-z0-9]*' OR name GLOB '*[^a-z0-9/._-]*'"
    assert query(registry, names) == []
    assert (
        query(registry, "SELECT name FROM repositories WHERE name LIKE 'http/x%' OR name LIKE '%..%'") == []
    )
    names_in_root = {path.name for path in registry.root.iterdir()}
    # The note of what was signed last is written again and again.
    assert {name for name in names_in_root if not name.startswith(".log-head.json.")} <= {
        "blobs",
        "ingest",
        "oci-layout",
        "assessment.lock",
        "serve.lock",
        "catalog.db",
        "catalog.db-wal",
        "catalog.db-shm",
        "audit-refused.log",
        "audit.log",
        "fleet.lock",
        "collection.lock",
        "guards",
        "kept.json",
        "log-head.json",
        "log.lock",
        "metrics",
        "mirror",
        "quarantine",  # of other tests'
        "reserve",
        "scrub.lock",
    }
    still_answers(registry)


def test_base(registry: RegistryServer) -> None:
    for path in ("/v2/", "/v2"):
        answer = registry.request("GET", path)
        assert (answer.status, answer.body) == (200, b"{}")
        assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
        assert registry.request("HEAD", path).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_methods(registry: RegistryServer, method: str) -> None:
    allowed = dict.fromkeys(READ_ONLY, "GET, HEAD")
    allowed[f"/v2/http/x/blobs/{DIGEST}"] = "GET, HEAD, DELETE"
    allowed["/v2/http/x/manifests/t"] = "GET, HEAD, PUT, DELETE"
    allowed["/v2/http/x/blobs/uploads/"] = "POST"
    allowed["/v2/http/x/blobs/uploads"] = "POST"
    allowed["/v2/http/x/blobs/uploads/00000000-0000-4000-8000-000000000000"] = "GET, PATCH, PUT, DELETE"
    for path, methods in allowed.items():
        if method in methods.split(", "):
            continue
        answer = registry.request(method, path)
        assert answer.status == 405, path
        assert answer.headers["allow"] == methods
        assert answer.code == "UNSUPPORTED"
    assert registry.request("GET", "/v2/http/x/blobs/uploads/").status == 405


TRICKS = [
    "/etc/passwd",
    "/v1/",
    "/v2x/",
    "//v2/",
    "/v2//",
    "/v2/../v2/",
    "/v2/http/x",
    "/v2/http/x/",
    "/v2/http/x/manifests",
    "/v2/http/x/manifests/",
    "/v2/manifests/t",
    "/v2//manifests/t",
    "/v2/http/x//manifests/t",
    "/v2/http/../x/manifests/t",
    "/v2/http/x/../../../catalog.db/manifests/t",
    "/v2/%2e%2e/manifests/t",
    "/v2/http%2f%2e%2e%2fx/manifests/t",
    "/v2/http/x/manifests/..",
    "/v2/http/x/manifests/%2e%2e",
    "/v2/http/x/manifests/%2e%2e%2fcatalog.db",
    "/v2/http/x/blobs/..",
    "/v2/http/x/blobs/sha256:..%2f..%2f..%2fcatalog.db",
    "/v2/http/x/blobs/sha256:%2e%2e/%2e%2e/catalog.db",
    "/v2/http/x/blobs/uploads/..%2f..%2fcatalog.db",
    "/v2/http%00/x/manifests/t",
    "/v2/http/x/manifests/t%00",
    "/v2/http/x%0d%0aSet-Cookie:%20a/manifests/t",
    "/v2/HTTP/X/manifests/t",
    "/v2/http/\u00e4/manifests/t",
    "/v2/http/%c3%a4/manifests/t",
    "/v2/http/%ff%fe/manifests/t",
    "/v2/http/%ed%a0%80/manifests/t",
    "/v2/http/x/manifests/%ed%a0%80",
    "/v2/_http/x/manifests/t",
    "/v2/http/_x/manifests/t",
    "/v2/http/x-/manifests/t",
    "/v2/http/x___y/manifests/t",
    "/v2/http/-x/manifests/t",
    "/v2/" + "a" * 256 + "/manifests/t",
    "/v2/" + "a/" * 300 + "manifests/t",
    "/v2/http/x/manifests/" + "%41" * 10_000,
    "/v2/http/x/unknown/t",
    "/v2/http/x/tags/other",
    "/v2/http/x/tags/list/",
    "/v2/uploads/x",
    "/v2/http/x/referrers/",
    "http://elsewhere/v2/../../etc/passwd",
]


@pytest.mark.parametrize("path", TRICKS, ids=range(len(TRICKS)))
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
def test_paths(registry: RegistryServer, method: str, path: str) -> None:
    request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
    received = raw_exchange(registry, request.encode())
    assert len(statuses(received)) == 1
    assert statuses(received)[0] in {400, 404, 405, 414}, received
    assert b"\r\nset-cookie" not in received.lower()
    assert str(registry.root).encode() not in received
    assert b"Traceback" not in received
    nothing_was_stored(registry)


def test_a_slash_may_be_written_as_percent(registry: RegistryServer) -> None:
    digest = registry.push_image("http-slash/x", "t")
    answer = registry.request("HEAD", "/v2/http-slash%2Fx/manifests/t")
    assert answer.headers["docker-content-digest"] == str(digest)


@pytest.mark.parametrize("word", ["blobs", "manifests", "tags", "uploads", "referrers", "list", "v2"])
def test_repositories_named_as_the_api_is(registry: RegistryServer, word: str) -> None:
    for name in (word, f"http-words/{word}", f"{word}/{word}", f"http-words/blobs/uploads/{word}"):
        digest = registry.push_image(name, word)
        assert registry.request("GET", f"/v2/{name}/manifests/{word}").status == 200
        assert registry.request("GET", f"/v2/{name}/tags/list").json()["tags"] == [word]
        assert registry.request("GET", f"/v2/{name}/referrers/{digest}").status == 200
        upload = Upload.begin(registry, name)
        assert upload.status().status == 204
        assert registry.request("DELETE", upload.path).status == 204


GARBAGE = [
    b"\r\n\r\n",
    b"\x00\x01\x02\x03\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS hello
    b"GET\r\n\r\n",
    b"GET /v2/\r\n\r\n",
    b"GET /v2/ HTTP/9.9\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nNo colon\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 1_000_000 + b"\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\n" + b"".join(b"A%d: b\r\n" % n for n in range(1000)) + b"\r\n",
    b"GET /v2/" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PUT /v2/http/x/manifests/t HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
    b"PUT /v2/http/x/manifests/t HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"PUT /v2/http/x/manifests/t HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 100 + b"\r\n\r\n",
    b"PUT /v2/http/x/manifests/t HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    b"PUT /v2/http/x/manifests/t HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n{}",
    b"PUT /v2/http/x/manifests/t HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    b"PUT /v2/http/x/manifests/t HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"f" * 17
    + b"\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage that is no frame at all",
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage(registry: RegistryServer, garbage: bytes) -> None:
    received = raw_exchange(registry, garbage, answered=False, quiet=0.3)
    assert all(400 <= status < 506 for status in statuses(received)), received
    nothing_was_stored(registry)


@pytest.mark.parametrize("name", ["Authorization", "Content-Type", "Content-Range"])
def test_a_header_that_decides_alone_comes_once(registry: RegistryServer, name: str) -> None:
    head = b"PUT /v2/http/x/manifests/t HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n"
    head += b"Connection: close\r\n"
    line = b"%s: Basic YTpi\r\n" % name.encode()
    received = raw_exchange(registry, head + line + b"Accept: a\r\n" + line.lower() + b"\r\n{}")
    assert statuses(received) == [400]
    assert f"more than one {name} header".encode() in received
    nothing_was_stored(registry)


def test_both_lengths_are_no_second_request(registry: RegistryServer) -> None:
    request = (
        b"PUT /v2/http/x/manifests/t HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    assert statuses(raw_exchange(registry, request, quiet=0.5)) == [400]
    nothing_was_stored(registry)


def test_pipelined_requests_are_answered_in_order(registry: RegistryServer) -> None:
    requests = b"".join(
        b"GET /v2/http-pipe/x/manifests/t%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(20)
    )
    last = b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert statuses(raw_exchange(registry, requests + last)) == [404] * 20 + [200]


def test_many_idle_connections_do_not_stop_others(registry: RegistryServer) -> None:
    idle = [socket.create_connection(("127.0.0.1", registry.port), timeout=PATIENCE) for _ in range(200)]
    try:
        for number, connection in enumerate(idle):
            connection.sendall(
                b"GET /v2/ HT" if number % 2 else b"PUT /v2/http/x/manifests/t HTTP/1.1\r\nContent-"
            )
        still_answers(registry)
        # And not because one of them was given up, which takes half a minute.
        assert select.select(idle, [], [], 0) == ([], [], [])
    finally:
        for connection in idle:
            connection.close()
    nothing_was_stored(registry)


def test_expect_continue(registry: RegistryServer) -> None:
    """Who waits for ``100 Continue`` gets it if the body is required, and the error at once if not."""
    upload = Upload.begin(registry, "http-expect/x")
    head = f"PATCH {upload.path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    received = raw_exchange(registry, head.encode(), until_close=False)
    assert statuses(received) == [100]
    for path in ("/v2/http/x/manifests/-bad", "/v2/HTTP/manifests/t", "/v2/http/x/manifests/t"):
        head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"
        assert statuses(raw_exchange(registry, head.encode(), until_close=False)) in ([400], [413])
