"""Uploads: their states, the requests that do not fit, and clients that break off."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading

import pytest

from digestry.model.digest import Digest
from tests.registry.support import (
    Upload,
    ingest_files,
    on_disk,
    query,
    raw_exchange,
    statuses,
    still_answers,
    upload_rows,
)
from tests.stores import arrived, ingest_file
from tests.support import PATIENCE, RegistryServer, wait_until

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def test_status(registry: RegistryServer) -> None:
    upload = Upload.begin(registry, "uploads/status")
    assert upload.status().status == 204
    assert upload.status().headers["range"] == "0-0"
    upload.patch(b"x" * 100, 0)
    for method in ("GET", "HEAD"):
        answer = registry.request(method, upload.path)
        assert answer.status == 204
        assert answer.headers["range"] == "0-99"
        assert answer.headers["location"] == upload.path
        assert answer.headers["docker-upload-uuid"] == upload.id


@pytest.mark.parametrize("start", [0, 99, 101, 10**17])
def test_out_of_order(registry: RegistryServer, start: int) -> None:
    upload = Upload.begin(registry, "uploads/order")
    content = os.urandom(200)
    assert upload.patch(content[:100], 0).status == 202
    answer = upload.patch(b"y" * 50, start)
    assert (answer.status, answer.code) == (416, "BLOB_UPLOAD_INVALID")
    assert answer.headers["range"] == "0-99"
    assert answer.headers["location"] == upload.path
    answer = upload.put(Digest.of(content), b"y" * 50, **{"Content-Range": f"{start}-{start + 49}"})
    assert answer.status == 416
    # Nothing of it counted: the upload goes on where it was.
    assert upload.patch(content[100:], 100).status == 202
    assert upload.put(Digest.of(content)).status == 201


@pytest.mark.parametrize(
    "value",
    ["abc", "5", "-5", "0-", "bytes 0", "0-9, 10-19", "0-99999999999999999999999", "9-0", "", "0 - 9"],
)
def test_content_range_that_is_none(registry: RegistryServer, value: str) -> None:
    upload = Upload.begin(registry, "uploads/ranges")
    assert upload.patch(b"0123456789", content_range=value).status == 400
    assert upload.offset() == 0


@pytest.mark.parametrize("value", ["bytes 0-9/10", "bytes 0-9/*", "0-9", "bytes 0-9"])
def test_content_range_as_http_itself_has_it(registry: RegistryServer, value: str) -> None:
    upload = Upload.begin(registry, "uploads/http-ranges")
    assert upload.patch(b"0123456789", content_range=value).status == 202
    assert upload.offset() == 10


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("value", ["0-8", "0-10"])
def test_content_range_of_another_length(registry: RegistryServer, method: str, value: str) -> None:
    content = os.urandom(10)
    upload = Upload.begin(registry, "uploads/lengths")
    path = upload.path if method == "PATCH" else f"{upload.path}?digest={Digest.of(content)}"
    answer = registry.request(method, path, content, {"Content-Range": value})
    assert (answer.status, answer.code) == (400, "SIZE_INVALID")
    assert upload.offset() == 0
    assert upload.put(Digest.of(content), content).status == 201


@pytest.mark.parametrize("value", ["0-8", "0-10"])
def test_content_range_of_another_length_when_streamed(registry: RegistryServer, value: str) -> None:
    upload = Upload.begin(registry, "uploads/streamed-lengths")
    request = (
        f"PATCH {upload.path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Range: {value}\r\n"
        "Connection: close\r\n\r\na\r\n0123456789\r\n0\r\n\r\n"
    )
    assert statuses(raw_exchange(registry, request.encode())) == [400]
    assert upload.offset() == 0


def test_cancel(registry: RegistryServer) -> None:
    upload = Upload.begin(registry, "uploads/cancel")
    upload.patch(b"x" * 100)
    assert upload.id in ingest_files(registry)
    assert registry.request("DELETE", upload.path).status == 204
    assert upload.id not in ingest_files(registry)
    assert upload_rows(registry, "uploads/cancel") == 0
    for answer in (upload.status(), upload.patch(b"y"), upload.put(Digest.of(b"x"), b"x")):
        assert answer.status == 404
    assert upload.patch(b"y").code == "BLOB_UPLOAD_UNKNOWN"
    assert registry.request("DELETE", upload.path).status == 404
    assert upload.id not in ingest_files(registry)


@pytest.mark.parametrize(
    "identity", [UNKNOWN, "x", "..", "%2e%2e%2fcatalog.db", "a" * 500, UNKNOWN.upper() + "%00", "new-0"]
)
def test_unknown_upload(registry: RegistryServer, identity: str) -> None:
    path = f"/v2/uploads/unknown/blobs/uploads/{identity}"
    before = ingest_files(registry)
    for method, query_string in (
        ("GET", ""),
        ("PATCH", ""),
        ("PUT", f"?digest={Digest.of(b'x')}"),
        ("DELETE", ""),
    ):
        answer = registry.request(method, path + query_string, b"x" if method in {"PATCH", "PUT"} else None)
        assert answer.status in {400, 404}, (method, answer.body)
    assert ingest_files(registry) == before


def test_another_repositorys_upload(registry: RegistryServer) -> None:
    upload = Upload.begin(registry, "uploads/mine")
    upload.patch(b"x" * 10)
    theirs = Upload(registry, upload.path.replace("uploads/mine", "uploads/theirs"))
    digest = Digest.of(b"x" * 10)
    for answer in (
        theirs.status(),
        theirs.patch(b"y"),
        theirs.put(digest),
        registry.request("DELETE", theirs.path),
    ):
        assert answer.status == 404
    assert upload.put(digest).status == 201


def test_a_finished_upload_is_gone(registry: RegistryServer) -> None:
    content = os.urandom(100)
    upload = Upload.begin(registry, "uploads/finished")
    assert upload.put(Digest.of(content), content).status == 201
    assert upload.status().status == 404
    assert upload.put(Digest.of(content), content).status == 404
    assert upload.id not in ingest_files(registry)


@pytest.mark.parametrize("chunks", [0, 1, 2])
def test_wrong_digest_leaves_nothing(registry: RegistryServer, chunks: int) -> None:
    content, wrong = os.urandom(3000), Digest.of(os.urandom(100))
    name = f"uploads/wrong{chunks}"
    upload = Upload.begin(registry, name)
    for number in range(chunks):
        assert upload.patch(content[number * 1000 : number * 1000 + 1000]).status == 202
    answer = upload.put(wrong, content[chunks * 1000 :])
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert upload_rows(registry, name) == 0
    assert upload.id not in ingest_files(registry)
    assert not on_disk(registry, wrong)
    assert not on_disk(registry, Digest.of(content))
    assert query(registry, "SELECT 1 FROM repositories WHERE name = ?", name) == []


def test_put_without_a_digest(registry: RegistryServer) -> None:
    upload = Upload.begin(registry, "uploads/no-digest")
    answer = registry.request("PUT", upload.path, b"x")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert upload.put(Digest.of(b"x"), b"x").status == 201


def sending(registry: RegistryServer, head: str, body: bytes) -> socket.socket:
    """A connection on which a request began that is not at its end."""
    connection = socket.create_connection(("127.0.0.1", registry.port), timeout=PATIENCE)
    connection.sendall(head.encode() + b"\r\n" + body)
    return connection


def patch_head(upload: Upload, length: int, content_range: str = "") -> str:
    extra = f"Content-Range: {content_range}\r\n" if content_range else ""
    return f"PATCH {upload.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{extra}"


def released(registry: RegistryServer, upload: Upload) -> bool:
    """Whether nobody writes to the upload: an empty PATCH would be refused while somebody does."""
    return upload.patch(b"").status != 409


def test_two_writers_at_once(registry: RegistryServer) -> None:
    content = os.urandom(2_000_000)
    upload = Upload.begin(registry, "uploads/two")
    first = sending(registry, patch_head(upload, len(content)), content[:1_500_000])
    wait_until(lambda: upload.id in ingest_files(registry), what="the first write")
    for answer in (
        upload.patch(b"intruder"),
        upload.put(Digest.of(content), content),
        registry.request("DELETE", upload.path),
    ):
        assert answer.status == 409
        assert str(registry.root).encode() not in answer.body
    first.sendall(content[1_500_000:])
    assert statuses(first.recv(1000)) == [202]
    first.close()
    assert upload.put(Digest.of(content)).status == 201


def test_many_writers_at_once_one_wins(registry: RegistryServer) -> None:
    content = os.urandom(1_000_000)
    upload = Upload.begin(registry, "uploads/many")
    found: list[int] = []
    barrier = threading.Barrier(8)

    def write() -> None:
        barrier.wait()
        found.append(upload.patch(content, 0).status)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.count(202) == 1
    assert set(found) <= {202, 409, 416}
    assert upload.put(Digest.of(content)).status == 201


def test_broken_off_with_ranges_goes_on_where_it_came_to(registry: RegistryServer) -> None:
    content = os.urandom(4_000_000)
    upload = Upload.begin(registry, "uploads/broken-ranges")
    cut = sending(registry, patch_head(upload, len(content), f"0-{len(content) - 1}"), content[:2_500_000])
    wait_until(lambda: upload.id in ingest_files(registry), what="the first write")
    cut.close()
    wait_until(lambda: upload.offset() > 0, what="noting how far it came")
    offset = upload.offset()
    assert 0 < offset <= 2_500_000
    assert upload.status().headers["range"] == f"0-{offset - 1}"
    assert upload.patch(content[offset:], offset).status == 202
    assert upload.put(Digest.of(content)).status == 201


def test_broken_off_in_the_second_chunk(registry: RegistryServer) -> None:
    content = os.urandom(4_000_000)
    upload = Upload.begin(registry, "uploads/broken-second")
    assert upload.patch(content[:1_000_000], 0).status == 202
    cut = sending(registry, patch_head(upload, 3_000_000, "1000000-3999999"), content[1_000_000:3_500_000])
    with contextlib.closing(cut):
        wait_until(lambda: arrived(registry.root, upload.id) > 1_000_000, what="the first write")
    wait_until(lambda: upload.offset() > 1_000_000, what="noting how far it came")
    offset = upload.offset()
    assert upload.patch(content[offset:], offset).status == 202
    assert upload.put(Digest.of(content)).status == 201


def test_broken_off_without_ranges_does_not_count(registry: RegistryServer) -> None:
    content = os.urandom(4_000_000)
    upload = Upload.begin(registry, "uploads/broken-stream")
    cut = sending(registry, patch_head(upload, len(content)), content[:2_500_000])
    wait_until(lambda: upload.id in ingest_files(registry), what="the first write")
    cut.close()
    wait_until(lambda: released(registry, upload), what="letting go of the upload")
    assert upload.offset() == 0
    assert upload.patch(content).status == 202  # from the beginning, as such clients do
    assert upload.put(Digest.of(content)).status == 201


def test_broken_off_in_chunked_encoding_does_not_count(registry: RegistryServer) -> None:
    content = os.urandom(1_000_000)
    upload = Upload.begin(registry, "uploads/broken-chunked")
    head = f"PATCH {upload.path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    cut = sending(registry, head, b"%x\r\n" % len(content) + content + b"\r\n")
    wait_until(lambda: upload.id in ingest_files(registry), what="the first write")
    cut.close()
    wait_until(lambda: released(registry, upload), what="letting go of the upload")
    assert upload.offset() == 0


def test_garbage_in_chunked_encoding_does_not_count(registry: RegistryServer) -> None:
    upload = Upload.begin(registry, "uploads/garbage-chunked")
    head = f"PATCH {upload.path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    received = raw_exchange(
        registry, head.encode() + b"5\r\nhello\r\nzzzz\r\n0\r\n\r\n", answered=False, quiet=2
    )
    assert 202 not in statuses(received)
    wait_until(lambda: released(registry, upload), what="letting go of the upload")
    assert upload.offset() == 0


def test_put_that_breaks_off_may_be_repeated(registry: RegistryServer) -> None:
    content = os.urandom(3_000_000)
    digest = Digest.of(content)
    upload = Upload.begin(registry, "uploads/broken-put")
    assert upload.patch(content[:1_000_000]).status == 202
    head = f"PUT {upload.path}?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n"
    cut = sending(registry, head, content[1_000_000:2_500_000])
    with contextlib.closing(cut):
        wait_until(lambda: arrived(registry.root, upload.id) > 1_000_000, what="the first write")
    wait_until(lambda: upload.put(digest, content[1_000_000:]).status == 201, what="the second PUT")
    answer = registry.request("GET", f"/v2/uploads/broken-put/blobs/{digest}")
    assert answer.body == content


def test_an_upload_whose_file_is_lost_begins_anew(registry: RegistryServer) -> None:
    # As after a power loss: the row came to the disk, the bytes did not.
    for kept in (None, 10):
        upload = Upload.begin(registry, "uploads/lost")
        assert upload.patch(b"x" * 1000).status == 202
        path = ingest_file(registry.root, upload.id)
        if kept is None:
            path.unlink()
        else:
            os.truncate(path, kept)
        answer = upload.patch(b"y" * 10, 1000)
        assert (answer.status, answer.code) == (404, "BLOB_UPLOAD_UNKNOWN")
        assert upload_rows(registry, "uploads/lost") == 0
        assert upload.id not in ingest_files(registry)


def test_bytes_changed_under_a_known_digest_are_not_the_hashed_ones(registry: RegistryServer) -> None:
    content = os.urandom(1000)
    upload = Upload.begin(registry, "uploads/rehash")
    for start in range(0, 1000, 500):
        assert upload.patch(content[start : start + 500], start).status == 202
    ingest_file(registry.root, upload.id).write_bytes(bytes(1000))
    assert upload.put(Digest.of(content)).status == 400  # several PATCHes: read again at the end


@pytest.mark.parametrize("framing", ["Content-Length: 10000000", "Transfer-Encoding: chunked"])
def test_a_chunk_that_does_not_fit_is_answered_before_it_has_come(
    registry: RegistryServer, framing: str
) -> None:
    """And who sends it all the same sees the answer, and no broken connection."""
    upload = Upload.begin(registry, "uploads/late")
    part = b"400\r\n" + bytes(1024) + b"\r\n" if "chunked" in framing else bytes(1024)
    head = f"PATCH {upload.path} HTTP/1.1\r\nHost: x\r\nContent-Range: 5-10000004\r\n{framing}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", registry.port), timeout=PATIENCE) as connection:
        connection.sendall(head.encode())
        sent = 0
        while not select.select([connection], [], [], 0.1)[0]:
            assert sent < 30, "it waits for the body"
            connection.sendall(part)
            sent += 1
        for _ in range(9000):
            connection.sendall(part)
        received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert statuses(received) == [416]
    lines = received.lower().partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert b"connection: close" in lines
    assert b"range: 0-0" in lines
    assert upload.patch(b"whole").status == 202


@pytest.mark.parametrize("size", [10, 10_000_000])
def test_a_chunk_that_does_not_fit_is_not_asked_for(registry: RegistryServer, size: int) -> None:
    """A client that waits for ``100 Continue`` is told at once, and sends nothing."""
    upload = Upload.begin(registry, "uploads/expected")
    head = (
        f"PATCH {upload.path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {size}\r\n"
        f"Content-Range: 5-{size + 4}\r\n\r\n"
    )
    received = raw_exchange(registry, head.encode())
    assert statuses(received) == [416]
    assert b"connection: close\r\n" in received.lower()


def test_long_bodies_for_uploads_that_cannot_take_them(registry: RegistryServer) -> None:
    """The answer arrives although the client is still sending: the body is read away, if it is short."""
    for size in (100, 1_000_000, 10_000_000, 15_000_000):
        answer = registry.request("PATCH", f"/v2/uploads/unread/blobs/uploads/{UNKNOWN}", bytes(size))
        assert (answer.status, answer.code) == (404, "BLOB_UPLOAD_UNKNOWN")
    still_answers(registry)
