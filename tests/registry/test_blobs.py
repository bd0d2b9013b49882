"""Blobs: pushed in every way the distribution-spec has, served whole and in part."""

from __future__ import annotations

import http.client
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.model.digest import Digest
from tests.registry.support import Upload, ingest_files, on_disk, query, raw_exchange, statuses, upload_rows
from tests.stores import blob_file
from tests.support import RegistryServer, wait_until

ALGORITHMS = ("sha256", "sha512")
SIZES = (0, 1, 1000, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, 3 << 20)


def served(registry: RegistryServer, name: str, digest: Digest) -> bytes:
    answer = registry.request("GET", f"/v2/{name}/blobs/{digest}")
    assert answer.status == 200, answer.body
    return answer.body


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("size", SIZES)
def test_post_then_put(registry: RegistryServer, size: int, algorithm: str) -> None:
    content = os.urandom(size)
    digest = Digest.of(content, algorithm)
    answer = Upload.begin(registry, "blobs/monolithic").put(digest, content)
    assert answer.status == 201
    assert answer.headers["location"] == f"/v2/blobs/monolithic/blobs/{digest}"
    assert answer.headers["docker-content-digest"] == str(digest)
    assert served(registry, "blobs/monolithic", digest) == content


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("size", SIZES)
def test_single_post(registry: RegistryServer, size: int, algorithm: str) -> None:
    content = os.urandom(size)
    digest = Digest.of(content, algorithm)
    answer = registry.request("POST", f"/v2/blobs/post/blobs/uploads/?digest={digest}", content)
    assert answer.status == 201
    assert answer.headers["location"] == f"/v2/blobs/post/blobs/{digest}"
    assert served(registry, "blobs/post", digest) == content


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("last_in_put", [False, True])
def test_chunked(registry: RegistryServer, algorithm: str, last_in_put: bool) -> None:
    content = os.urandom(2_500_000)
    digest = Digest.of(content, algorithm)
    upload = Upload.begin(registry, "blobs/chunked", f"?digest-algorithm={algorithm}")
    parts = [content[start : start + 1_000_000] for start in range(0, len(content), 1_000_000)]
    sent = 0
    for part in parts[:2] if last_in_put else parts:
        answer = upload.patch(part, sent)
        sent += len(part)
        assert answer.status == 202
        assert answer.headers["range"] == f"0-{sent - 1}"
        assert answer.headers["location"] == upload.path
    if last_in_put:
        headers = {"Content-Range": f"{sent}-{len(content) - 1}"}
        answer = upload.put(digest, parts[2], **headers)
    else:
        answer = upload.put(digest)
    assert answer.status == 201, answer.body
    assert served(registry, "blobs/chunked", digest) == content


def test_an_upload_begun_for_one_algorithm_may_end_in_the_other(registry: RegistryServer) -> None:
    content = os.urandom(100_000)
    digest = Digest.of(content, "sha512")
    upload = Upload.begin(registry, "blobs/changed")
    assert upload.patch(content).status == 202
    assert upload.put(digest).status == 201
    assert served(registry, "blobs/changed", digest) == content


def parts_of(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), 100_000):
        yield content[start : start + 100_000]


@pytest.mark.parametrize("verb", ["PATCH", "PUT", "POST"])
def test_streamed_without_a_length(registry: RegistryServer, verb: str) -> None:
    content = os.urandom(3_000_000)
    digest = Digest.of(content)
    connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=30)
    if verb == "POST":
        path = f"/v2/blobs/streamed/blobs/uploads/?digest={digest}"
    else:
        upload = Upload.begin(registry, "blobs/streamed")
        path = upload.path + (f"?digest={digest}" if verb == "PUT" else "")
    connection.request(
        verb, path, parts_of(content), encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
    )
    status = connection.getresponse().status
    connection.close()
    assert status == (202 if verb == "PATCH" else 201)
    if verb == "PATCH":
        assert upload.put(digest).status == 201
    assert served(registry, "blobs/streamed", digest) == content


def test_pushed_twice_and_into_two_repositories(registry: RegistryServer) -> None:
    content = os.urandom(1000)
    assert registry.push_blob("blobs/first", content) == registry.push_blob("blobs/first", content)
    digest = registry.push_blob("blobs/second", content)
    assert served(registry, "blobs/first", digest) == served(registry, "blobs/second", digest) == content
    assert len(query(registry, "SELECT 1 FROM links WHERE digest = ?", str(digest))) == 2


def test_a_blob_of_another_repository_is_not_served(registry: RegistryServer) -> None:
    digest = registry.push_blob("blobs/owner", os.urandom(500))
    for method in ("GET", "HEAD", "DELETE"):
        answer = registry.request(method, f"/v2/blobs/stranger/blobs/{digest}")
        assert answer.status == 404
    answer = registry.request("GET", f"/v2/blobs/stranger/blobs/{digest}")
    assert answer.code == "BLOB_UNKNOWN"
    assert answer.json()["errors"][0]["detail"] == {"digest": str(digest)}
    assert registry.request("HEAD", f"/v2/blobs/owner/blobs/{digest}").status == 200


@pytest.mark.parametrize("origin", ["&from=blobs/source", ""])
def test_mount(registry: RegistryServer, origin: str) -> None:
    content = os.urandom(700)
    digest = registry.push_blob("blobs/source", content)
    target = f"blobs/mounted{len(origin)}"
    answer = registry.request("POST", f"/v2/{target}/blobs/uploads/?mount={digest}{origin}")
    assert answer.status == 201
    assert answer.headers["location"] == f"/v2/{target}/blobs/{digest}"
    assert served(registry, target, digest) == content


@pytest.mark.parametrize("origin", ["&from=blobs/nothing-here", ""])
def test_mount_of_what_is_not_there_begins_an_upload(registry: RegistryServer, origin: str) -> None:
    content = os.urandom(700)
    digest = Digest.of(content)
    answer = registry.request("POST", f"/v2/blobs/mount/blobs/uploads/?mount={digest}{origin}")
    assert answer.status == 202
    assert Upload(registry, answer.headers["location"]).put(digest, content).status == 201


@pytest.mark.parametrize(
    "query",
    [
        "mount=",
        "mount=&from=blobs/source",
        "mount=sha256:abc",
        "mount=blake3:" + "0" * 64,
        "mount={}&mount={}",
        "mount={}&from=",
        "mount={}&from=UPPER",
        "mount={}&from=../x",
        "mount={}&from=%00",
        "mount={}&from=blobs/source&from=blobs/source",
        "mount={}&from=" + "x" * 5000,
        "from=blobs/source",
    ],
)
def test_a_mount_that_cannot_be_is_passed_over(registry: RegistryServer, query: str) -> None:
    """It is a hint: an upload begins, as without it, and takes the blob."""
    content = os.urandom(100)
    digest = registry.push_blob("blobs/source", content)
    answer = registry.request("POST", f"/v2/blobs/hints/blobs/uploads/?{query.replace('{}', str(digest))}")
    assert answer.status == 202, answer.body
    assert Upload(registry, answer.headers["location"]).put(digest, content).status == 201
    whole = f"/v2/blobs/hints/blobs/uploads/?mount=&from=&digest={digest}"
    assert registry.request("POST", whole, content).status == 201


def test_mount_from_a_repository_that_lacks_it(registry: RegistryServer) -> None:
    digest = registry.push_blob("blobs/has-it", os.urandom(100))
    registry.push_blob("blobs/lacks-it", b"something else")
    path = f"/v2/blobs/wants-it/blobs/uploads/?mount={digest}&from=blobs/lacks-it"
    assert registry.request("POST", path).status == 202
    assert registry.request("HEAD", f"/v2/blobs/wants-it/blobs/{digest}").status == 404


def test_head(registry: RegistryServer) -> None:
    for size in (0, 10, 200_000):
        digest = registry.push_blob("blobs/head", os.urandom(size))
        head = registry.request("HEAD", f"/v2/blobs/head/blobs/{digest}")
        whole = registry.request("GET", f"/v2/blobs/head/blobs/{digest}")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(size)
        assert head.headers["docker-content-digest"] == str(digest)
        assert head.headers["etag"] == f'"{digest}"'
        assert head.headers["accept-ranges"] == "bytes"
        both = {"content-type", "docker-content-digest", "etag", "accept-ranges", "content-length"}
        assert {key: head.headers[key] for key in both} == {key: whole.headers[key] for key in both}


def test_wrong_digest_in_one_post_leaves_nothing(registry: RegistryServer) -> None:
    content = os.urandom(5000)
    wrong = Digest.of(os.urandom(100))
    answer = registry.request("POST", f"/v2/blobs/wrong/blobs/uploads/?digest={wrong}", content)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert str(Digest.of(content)) in answer.json()["errors"][0]["message"]
    assert registry.request("HEAD", f"/v2/blobs/wrong/blobs/{wrong}").status == 404
    assert upload_rows(registry, "blobs/wrong") == 0
    assert not on_disk(registry, Digest.of(content))
    assert not on_disk(registry, wrong)


def test_a_post_that_breaks_off_leaves_nothing(registry: RegistryServer) -> None:
    digest = Digest.of(bytes(10_000_000))
    before = ingest_files(registry)
    head = f"POST /v2/blobs/cut/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\n"
    head += "Content-Length: 10000000\r\n\r\n"
    raw_exchange(registry, head.encode(), bytes(3_000_000), answered=False, quiet=0.3)
    wait_until(lambda: upload_rows(registry, "blobs/cut") == 0, what="dropping the upload")
    wait_until(lambda: not ingest_files(registry) - before, what="removing its file")
    assert not on_disk(registry, digest)


@pytest.mark.parametrize(
    "digest",
    ["sha256:abc", "md5:" + "0" * 32, "sha256:" + "A" * 64, "nothing", "sha256", "sha256:" + "g" * 64],
)
def test_what_is_no_digest(registry: RegistryServer, digest: str) -> None:
    requests = [
        ("GET", f"/v2/blobs/bad/blobs/{digest}"),
        ("POST", f"/v2/blobs/bad/blobs/uploads/?digest={digest}"),
    ]
    for method, path in requests:
        answer = registry.request(method, path, b"x" if method == "POST" else None)
        assert (answer.status, answer.code) == (400, "DIGEST_INVALID"), path
    assert upload_rows(registry, "blobs/bad") == 0


def test_unknown_algorithm(registry: RegistryServer) -> None:
    answer = registry.request("POST", "/v2/blobs/bad/blobs/uploads/?digest-algorithm=md5")
    assert answer.status == 400
    assert "sha256, sha512" in answer.json()["errors"][0]["message"]


def test_a_damaged_or_lost_file_is_not_served_and_its_push_is_asked_for(registry: RegistryServer) -> None:
    for size in (2000, 300_000):
        for harm, headers in itertools.product(
            ("lost", "cut", "changed", "a directory"), ({}, {"Range": "bytes=0-9"})
        ):
            content = os.urandom(size)
            digest = registry.push_blob("blobs/damaged", content)
            path = blob_file(registry.root, digest)
            if harm == "lost":
                path.unlink()
            elif harm == "cut":
                os.truncate(path, size - 1)
            elif harm == "a directory":
                path.unlink()
                path.mkdir()
            elif size > 64 << 10:
                continue  # a large blob is sent as it is: its reader verifies it
            else:
                path.write_bytes(bytes(size))
            for _ in range(2):  # who finds it is told the same as those after
                answer = registry.request("GET", f"/v2/blobs/damaged/blobs/{digest}", headers=headers)
                assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN"), (size, harm, headers)
                assert b"damaged" in answer.body
                assert b"push an image" in answer.body
                assert str(registry.root).encode() not in answer.body
            # So that a client that is about to push sends it.
            assert registry.request("HEAD", f"/v2/blobs/damaged/blobs/{digest}").status == 404
            mount = f"/v2/blobs/other/blobs/uploads/?mount={digest}&from=blobs/damaged"
            assert registry.request("POST", mount).status == 202
            assert not os.path.lexists(path)
            set_aside = list((registry.root / "quarantine" / "sha256").glob(f"{digest.encoded}.*"))
            assert len(set_aside) == (harm != "lost")
            # Pushed once more, it is whole again.
            assert registry.push_blob("blobs/damaged", content) == digest
            assert served(registry, "blobs/damaged", digest) == content


def test_a_manifest_is_served_as_a_blob_too(registry: RegistryServer) -> None:
    digest = registry.push_image("blobs/manifest", "v1")
    raw = registry.request("GET", f"/v2/blobs/manifest/manifests/{digest}").body
    assert served(registry, "blobs/manifest", digest) == raw


def test_a_reader_that_leaves_in_the_middle_of_a_range(registry: RegistryServer) -> None:
    digest = registry.push_blob("blobs/left", bytes(20_000_000))
    for _ in range(5):
        request = f"GET /v2/blobs/left/blobs/{digest} HTTP/1.1\r\nHost: x\r\nRange: bytes=1-\r\n\r\n"
        received = raw_exchange(registry, request.encode(), until_close=False)
        assert statuses(received) == [206]
    wait_until(
        lambda: not open_by_workers(registry, digest.encoded),
        what="letting go of the blob's file",
    )


def open_by_workers(registry: RegistryServer, name: str) -> list[str]:
    """The descriptors of the server's processes that are open on files with ``name`` in their path."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(process.name)) != registry.process.pid:
                continue
            links = [str(descriptor.readlink()) for descriptor in (process / "fd").iterdir()]
        except OSError:
            continue  # it ended, or closed one, meanwhile
        found += [link for link in links if name in link]
    return found
