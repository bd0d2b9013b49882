"""What S3 servers and networks do: slow down, fail, break off, lose answers, corrupt bytes, list late."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from digestry.blobs.failures import BytesLost
from digestry.blobs.protocols import FullSpeed, StoreMark
from digestry.blobs.s3.config import MIB, S3Config
from digestry.blobs.s3.ingest import S3Ingest
from digestry.blobs.s3.store import S3Blobs
from digestry.errors import DigestryError, StorageBusy, StorageError
from digestry.model.digest import Digest
from tests import seaweed
from tests.blobs.contract import HELLO, HELLO_DIGEST, ranges
from tests.blobs.s3.stores import make_store
from tests.s3_proxy import INTERNAL, S3Proxy, running_proxy
from tests.support import free_port

pytestmark = pytest.mark.long

PART = 5 * MIB
CONTENT = os.urandom(2 * PART + 1000)
DIGEST = Digest.of(CONTENT)


@pytest.fixture
def proxy(s3_config: S3Config) -> Iterator[S3Proxy]:
    with running_proxy(s3_config.endpoint) as running:
        yield running


@pytest.fixture
def store(s3_config: S3Config, proxy: S3Proxy, tmp_path: Path) -> S3Blobs:
    return make_store(tmp_path, s3_config, endpoint=proxy.endpoint, part_size=PART)


def push(store: S3Blobs, content: bytes = CONTENT) -> None:
    with store.ingest("u") as ingest:
        ingest.write_all([content[start : start + MIB] for start in range(0, len(content), MIB)])
        ingest.commit(Digest.of(content))


def write_and_save(ingest: S3Ingest, content: bytes) -> None:
    for start in range(0, len(content), MIB):
        ingest.write(content[start : start + MIB])
    ingest.save()


PASSING: list[dict[str, Any]] = [
    {"times": 2},
    {"answer": INTERNAL, "status": 500},
    {"cut": True},
    {"cut": True, "forward": True},
    {"status": 503, "answer": b"<html>a load balancer</html>"},
]


@pytest.mark.parametrize("fault", PASSING, ids=["slow down", "internal", "cut", "answer lost", "balancer"])
@pytest.mark.parametrize(
    ("method", "text"),
    [("POST", "uploads"), ("PUT", "partNumber=1"), ("PUT", "partNumber=3"), ("POST", "uploadId=")],
    ids=["begin", "part", "last part", "complete"],
)
def test_what_passes_is_tried_again(
    store: S3Blobs, proxy: S3Proxy, fault: dict[str, Any], method: str, text: str
) -> None:
    injected = proxy.fail(method, text, **fault)
    push(store)
    assert injected.times == 0
    assert store.read(DIGEST, limit=len(CONTENT)) == CONTENT
    store.session.removal.remove_due()
    assert [found.size for found in store.session.client.objects(store.config.objects_prefix)] == [
        len(CONTENT)
    ]


def test_a_completion_that_says_200_and_fails_is_not_believed(store: S3Blobs, proxy: S3Proxy) -> None:
    injected = proxy.fail("POST", "uploadId=", status=200, answer=INTERNAL)
    push(store)
    assert injected.times == 0
    assert proxy.count("POST", "uploadId=") == 2
    assert store.read(DIGEST, limit=len(CONTENT)) == CONTENT
    store.delete(DIGEST)
    proxy.fail("POST", "uploadId=", times=1000, status=200, answer=INTERNAL)
    hasty = S3Blobs(dataclasses.replace(store.config, patience=2.0), lambda: store.session.rows)
    with pytest.raises(StorageBusy, match="InternalError"):
        push(hasty)
    assert store.stat(DIGEST) is None


def test_bytes_that_change_on_the_way_are_refused_and_sent_again(store: S3Blobs, proxy: S3Proxy) -> None:
    def flip(body: bytes) -> bytes:
        return body[:-1] + bytes([body[-1] ^ 1])

    injected = [
        proxy.fail("PUT", "partNumber=2", body=flip, pass_on=True),
        proxy.fail("PUT", "partNumber=3", body=flip, pass_on=True),
    ]
    push(store)
    assert [fault.times for fault in injected] == [0, 0]
    assert store.read(DIGEST, limit=len(CONTENT)) == CONTENT
    small = proxy.fail("PUT", "blobs/", body=flip, pass_on=True)
    store.put(HELLO)
    assert small.times == 0
    assert store.read(HELLO_DIGEST) == HELLO


def test_a_part_that_is_lost_is_told_and_the_upload_goes_on_before_it(store: S3Blobs, proxy: S3Proxy) -> None:
    with store.ingest("u") as ingest:
        ingest.write(CONTENT[:MIB])
        ingest.save()
        denied = proxy.fail(
            "PUT", "partNumber=2", times=1000, status=403, answer=b"<Error><Code>AccessDenied</Code></Error>"
        )
        with pytest.raises(StorageError, match="AccessDenied"):
            write_and_save(ingest, CONTENT[MIB:])
        assert ingest.offset == PART
        denied.times = 0
        ingest.write(CONTENT[PART:])
    with store.ingest("u") as ingest:
        assert ingest.offset == len(CONTENT)
        ingest.commit(DIGEST)
    assert store.read(DIGEST, limit=len(CONTENT)) == CONTENT


def test_the_first_part_that_is_lost_takes_nothing_that_was_saved(store: S3Blobs, proxy: S3Proxy) -> None:
    with store.ingest("u") as ingest:
        ingest.write(CONTENT[:MIB])
        ingest.save()
        proxy.fail("PUT", "partNumber=1", status=403, answer=b"<Error><Code>AccessDenied</Code></Error>")
        with pytest.raises(StorageError, match="AccessDenied"):
            write_and_save(ingest, CONTENT[MIB:])
        assert ingest.offset == MIB
        ingest.write(CONTENT[MIB:])
        ingest.commit(DIGEST)
    assert store.read(DIGEST, limit=len(CONTENT)) == CONTENT


def test_a_body_that_breaks_off_is_gone_on_with(store: S3Blobs, proxy: S3Proxy) -> None:
    push(store)
    proxy.fail("GET", "blobs/", status=200, answer=CONTENT[:1000])
    with store.open(DIGEST) as file:
        assert file.read() == CONTENT
    proxy.fail("GET", "blobs/", status=206, answer=CONTENT[:MIB])
    assert ranges(store, DIGEST, (0, 10), (MIB - 10, 20))[1][0] == CONTENT[:10]
    assert store.verify(DIGEST, len(CONTENT), FullSpeed()).problem is None


def test_a_store_that_is_away_is_busy_in_bounded_time(s3_config: S3Config, tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    store = make_store(tmp_path, s3_config, endpoint=endpoint, patience=1.0)
    began = time.monotonic()
    with pytest.raises(StorageBusy, match="cannot be reached"):
        store.put(HELLO)
    with pytest.raises(StorageBusy, match="cannot be reached"):
        store.prepare()
    with store.ingest("u") as ingest:
        ingest.write(HELLO)
        with pytest.raises(StorageBusy):
            ingest.save()
        ingest.resume(0)
    assert time.monotonic() - began < 30


def test_https_where_there_is_none_is_told(s3_config: S3Config, tmp_path: Path) -> None:
    endpoint = s3_config.endpoint.replace("http:", "https:")
    store = make_store(tmp_path, s3_config, endpoint=endpoint, patience=0.5)
    with pytest.raises(StorageBusy, match="no TLS connection to the store can be made") as raised:
        store.put(HELLO)
    assert "http or https" in raised.value.hint


def test_a_store_that_does_not_answer_is_busy_in_bounded_time(store: S3Blobs, proxy: S3Proxy) -> None:
    store.put(HELLO)
    slow = dataclasses.replace(store.config, read_timeout=0.3, patience=1.0)
    other = S3Blobs(slow, lambda: store.session.rows)
    proxy.fail("GET", "", times=1000, delay=2.0)
    began = time.monotonic()
    with pytest.raises(StorageBusy, match="does not answer in time"):
        other.read(HELLO_DIGEST)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("code", "status", "hint"),
    [
        ("AccessDenied", 403, "policy"),
        ("SignatureDoesNotMatch", 403, "AWS_SECRET_ACCESS_KEY"),
        ("NoSuchBucket", 404, "create the bucket"),
        ("RequestTimeTooSkewed", 403, "clock"),
    ],
)
def test_a_refusal_says_what_to_do(store: S3Blobs, proxy: S3Proxy, code: str, status: int, hint: str) -> None:
    store.put(HELLO)
    answer = f"<Error><Code>{code}</Code><Message>AWSAccessKeyId, Signature=abc</Message></Error>".encode()
    for method in ("GET", "PUT"):
        proxy.fail(method, "blobs/", status=status, answer=answer)
    for call in (lambda: store.read(HELLO_DIGEST), lambda: store.put(b"x")):
        with pytest.raises(StorageError, match=code) as caught:
            call()
        assert not isinstance(caught.value, BytesLost)
        assert hint in caught.value.hint
    assert store.read(HELLO_DIGEST) == HELLO


def test_a_bucket_that_is_not_there_is_no_lost_content(s3_config: S3Config, tmp_path: Path) -> None:
    store = make_store(tmp_path, s3_config, patience=1.0)
    store.put(HELLO)
    other = S3Blobs(dataclasses.replace(store.config, bucket="digestry-nowhere"), lambda: store.session.rows)
    for call in (
        other.prepare,
        lambda: other.read(HELLO_DIGEST),
        lambda: other.open(HELLO_DIGEST),
        lambda: other.verify(HELLO_DIGEST, None, FullSpeed()),
        other.mark,
    ):
        with pytest.raises(StorageError) as caught:
            call()
        assert not isinstance(caught.value, BytesLost)


def test_an_object_that_is_gone_is_lost_content(store: S3Blobs) -> None:
    store.put(HELLO)
    found = store.session.rows.find(HELLO_DIGEST)
    assert found is not None
    store.session.client.delete([found.key])
    with pytest.raises(BytesLost, match="gone"):
        store.read(HELLO_DIGEST)
    with pytest.raises(BytesLost, match="gone"):
        store.open(HELLO_DIGEST)
    verified = store.verify(HELLO_DIGEST, None, FullSpeed())
    assert (verified.problem, verified.revision) == ("its object is gone", store.revision(HELLO_DIGEST))
    store.quarantine(HELLO_DIGEST, 7)
    assert store.stat(HELLO_DIGEST) is None


def test_wrong_answers_are_storage_errors(store: S3Blobs, proxy: S3Proxy) -> None:
    store.put(HELLO)
    for status, answer in ((200, b"<nonsense"), (200, b""), (200, b"<A/>"), (400, b"\xff\x00"), (301, b"")):
        proxy.fail("POST", "uploads", status=status, answer=answer)
        with pytest.raises(StorageError):
            store.session.client.begin_upload(store.session.new_key())
    for content in (b"<R><Contents><Key>x</Key><Size>-1</Size></Contents></R>", b"no list"):
        proxy.fail("GET", "list-type", status=200, answer=content)
        with pytest.raises(StorageError):
            list(store.session.client.objects("x"))


@pytest.mark.parametrize("answer", [b"<html>log in to the network</html>", b"", b"<A/>"])
@pytest.mark.parametrize("size", [100, 9_000_000, len(CONTENT)])
def test_an_answer_of_something_else_is_no_success(
    store: S3Blobs, proxy: S3Proxy, answer: bytes, size: int
) -> None:
    """A network's own pages answer 200 to anything; nothing was stored then."""
    for method in ("PUT", "POST"):
        proxy.fail(method, "blobs/", times=100, status=200, answer=answer)
    with pytest.raises(StorageError):
        push(store, CONTENT[:size])
    assert store.stat(Digest.of(CONTENT[:size])) is None


@pytest.mark.parametrize(("method", "text"), [("PUT", "partNumber=1"), ("POST", "uploadId=")])
def test_a_page_in_place_of_an_answer_ends_an_upload(
    store: S3Blobs, proxy: S3Proxy, method: str, text: str
) -> None:
    proxy.fail(method, text, times=100, status=200, answer=b"<html>log in</html>")
    with pytest.raises(StorageError, match="ETag" if method == "PUT" else "no result of the S3 API"):
        push(store)
    assert store.stat(DIGEST) is None


def test_a_put_that_says_200_and_fails_is_tried_again(store: S3Blobs, proxy: S3Proxy) -> None:
    fault = proxy.fail("PUT", "blobs/", times=2, status=200, answer=INTERNAL)
    store.put(HELLO)
    assert fault.times == 0
    assert store.read(HELLO_DIGEST) == HELLO


def test_an_answer_without_a_code_says_what_to_do(store: S3Blobs, proxy: S3Proxy) -> None:
    proxy.fail("HEAD", "", status=403, answer=b"")
    with pytest.raises(StorageError) as raised:
        store.prepare()
    assert "clock" in raised.value.hint


def test_no_message_and_no_log_line_has_a_secret(
    store: S3Blobs, proxy: S3Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store.put(HELLO)
    url = store.redirect(HELLO_DIGEST)
    assert url is not None
    signature = url.partition("X-Amz-Signature=")[2]
    shown = [repr(store.config), repr(store.session.client), repr(seaweed.credentials())]
    for status in (400, 403, 500):
        answer = f"<Error><Code>SignatureDoesNotMatch</Code><Message>{signature}</Message></Error>".encode()
        proxy.fail("GET", "blobs/", status=status, answer=answer)
        with pytest.raises(DigestryError) as caught:
            store.session.client.read(store.session.new_key(), 10) or store.read(HELLO_DIGEST, limit=1)
        shown += [str(caught.value), caught.value.hint]
    for text in (*shown, caplog.text):
        assert seaweed.SECRET_KEY not in text
        assert signature not in text
        assert "Signature=" not in text


# -- removal -----------------------------------------------------------------------------------------


def test_deleted_content_stays_for_its_readers_and_is_removed_in_batches(
    s3_config: S3Config, proxy: S3Proxy, tmp_path: Path
) -> None:
    store = make_store(tmp_path, s3_config, endpoint=proxy.endpoint, linger=0.0)
    digests = [store.put(b"%d" % number) for number in range(20)]
    later = S3Blobs(dataclasses.replace(store.config, linger=3600.0), lambda: store.session.rows)
    assert later.delete(digests[0])
    for digest in digests[1:]:
        assert store.delete(digest)
    proxy.fail("POST", "delete", times=2)
    assert store.session.removal.remove_due() == 19
    assert proxy.count("POST", "delete") == 3
    client = store.session.client
    assert len(list(client.objects(store.config.objects_prefix))) == 1
    assert store.session.removal.remove_due() == 0


def test_what_no_row_names_is_removed_once_it_is_old(s3_config: S3Config, tmp_path: Path) -> None:
    store = make_store(tmp_path, s3_config, part_size=PART)
    client, key = store.session.client, store.session.new_key()
    store.put(HELLO)
    client.put(key, b"of a process that was killed before its row")
    client.begin_upload(store.session.new_key())
    ingest = store.ingest("u")
    ingest.write(CONTENT[: PART + 1])
    ingest.save()
    assert store.session.removal.remove_orphans() == 0
    eager = S3Blobs(dataclasses.replace(store.config, grace=-10.0), lambda: store.session.rows)
    assert eager.session.removal.remove_orphans() == 2
    assert client.size(key) is None
    assert len(list(client.uploads(store.config.objects_prefix))) == 1
    ingest.write(CONTENT[PART + 1 :])
    ingest.commit(DIGEST)
    assert store.read(HELLO_DIGEST) == HELLO
    assert store.read(DIGEST, limit=len(CONTENT)) == CONTENT


def test_a_store_below_another_ones_prefix_loses_nothing(s3_config: S3Config, tmp_path: Path) -> None:
    """The outer one lists the content of the inner one, which none of its rows names."""
    outer = make_store(tmp_path / "outer", s3_config, part_size=PART, grace=-10.0)
    inner_config = dataclasses.replace(s3_config, prefix=outer.config.objects_prefix.rstrip("/"))
    inner = make_store(tmp_path / "inner", inner_config, part_size=PART)
    inner.set_mark(StoreMark("0" * 32, 1))
    inner.put(HELLO)
    ingest = inner.ingest("u")
    ingest.write(CONTENT[: PART + 1])
    ingest.save()
    assert outer.session.removal.remove_orphans() == 0
    assert inner.mark() == StoreMark("0" * 32, 1)
    ingest.write(CONTENT[PART + 1 :])
    ingest.commit(DIGEST)
    assert inner.read(HELLO_DIGEST) == HELLO
    assert inner.read(DIGEST, limit=len(CONTENT)) == CONTENT


def test_an_abandoned_upload_leaves_nothing(s3_config: S3Config, tmp_path: Path) -> None:
    store = make_store(tmp_path, s3_config, part_size=PART)
    with store.ingest("u") as ingest:
        ingest.write(CONTENT)
    assert store.sweep_ingests(older_than=3600) == []
    assert store.sweep_ingests(older_than=-1) == ["u"]
    client = store.session.client
    assert list(client.objects(store.config.objects_prefix)) == []
    assert list(client.uploads(store.config.objects_prefix)) == []


def test_a_second_upload_of_a_key_is_aborted_once_it_is_old(s3_config: S3Config, tmp_path: Path) -> None:
    """An answer was lost, and the upload was begun again: one of both is in a row."""
    store = make_store(tmp_path, s3_config, part_size=PART, grace=0.0)
    client = store.session.client
    ingest = store.ingest("u")
    write_and_save(ingest, CONTENT)
    state = ingest._bytes.saved
    client.begin_upload(state.key)
    assert store.session.removal.remove_orphans() == 1
    assert [one.upload_id for one in client.uploads(s3_config.objects_prefix)] == [state.upload_id]
    ingest.commit(DIGEST)
    client.begin_upload(state.key)
    assert store.session.removal.remove_orphans() == 1
    assert list(client.uploads(s3_config.objects_prefix)) == []
    assert store.read(DIGEST, limit=len(CONTENT)) == CONTENT


def test_a_range_in_the_middle_is_one_request_for_just_that(store: S3Blobs, proxy: S3Proxy) -> None:
    push(store)
    before = proxy.count("GET", "/blobs/")

    async def read() -> bytes:
        content = await store.open_ranges(DIGEST, asyncio.to_thread, 3_000_000, 3_000_999)
        try:
            return await content.read(3_000_000, 1000)
        finally:
            content.close()

    assert asyncio.run(read()) == CONTENT[3_000_000:3_001_000]
    assert proxy.count("GET", "/blobs/") - before == 1
