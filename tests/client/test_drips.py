"""No registry keeps a command waiting for ever, however it drips: measured, each way by itself."""

from __future__ import annotations

import gzip
import io
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from digestry.blobs.disk import DiskBlobs
from digestry.client.bounded_http import LARGEST_HEAD
from digestry.client.options import ClientOptions
from digestry.client.paging import MOST_EMPTY
from digestry.client.repository import Repository
from digestry.client.session import Session
from digestry.errors import DigestryError, RemoteError, Unreachable
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.client.dripping import (
    FAST,
    SLOW,
    Drip,
    bytewise,
    dripping,
    empty_pages,
    forever,
    silent,
    slow_pages,
)
from tests.client.liar import Liar, Reply, Request
from tests.client.test_hostile import DIGEST, IMAGE, manifest_reply

WAITING = 0.6
ENOUGH = 15.0
"""Seconds in which all must have ended, on a busy machine too: without a bound none ever does."""


def repository(host: str, **more: float) -> Repository:
    options = {"waiting": WAITING, "patience": WAITING, "timeout": 20.0, **more}
    return Session(ClientOptions(**options)).repository(Reference(host, "team/app"))  # type: ignore[arg-type]


@pytest.mark.long
@pytest.mark.parametrize("way", SLOW)
def test_every_way_to_be_slow_ends(way: str) -> None:
    with dripping(SLOW[way]) as server:
        begun = time.monotonic()
        with pytest.raises(RemoteError):
            repository(server.host).pull_manifest("1")
        assert time.monotonic() - begun < ENOUGH


@pytest.mark.long
@pytest.mark.parametrize("way", FAST)
def test_every_way_to_send_without_end_is_cut(way: str) -> None:
    with dripping(FAST[way]) as server:
        begun = time.monotonic()
        with pytest.raises(RemoteError):
            repository(server.host, waiting=60.0, patience=60.0).pull_manifest("1")
        assert time.monotonic() - begun < ENOUGH
        assert len(server.seen) <= 6


@pytest.mark.parametrize("way", ["trailers", "one trailer", "a body a byte at a time"])
def test_a_blob_that_drips(way: str) -> None:
    blob = Descriptor(media_types.OCI_LAYER, Digest.of(b"{}"), 2)
    with dripping(SLOW[way]) as server:
        begun = time.monotonic()
        with pytest.raises(DigestryError):
            repository(server.host).read_blob(blob)
        assert time.monotonic() - begun < ENOUGH


def test_a_server_that_takes_connections_and_says_nothing() -> None:
    with silent() as host:
        begun = time.monotonic()
        with pytest.raises(Unreachable):
            repository(host).pull_manifest("1")
        assert time.monotonic() - begun < ENOUGH


@pytest.mark.long
def test_a_handshake_that_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("digestry.client.options.is_loopback", lambda _: False)
    with silent() as host:
        begun = time.monotonic()
        with pytest.raises(Unreachable):
            repository(host).pull_manifest("1")
        assert time.monotonic() - begun < ENOUGH


@pytest.mark.long
def test_a_registry_that_does_not_read() -> None:
    """Its buffers take some megabytes; the rest is never taken."""
    content = bytes(64 << 20)
    blob = Descriptor(media_types.OCI_LAYER, Digest.of(content), len(content))
    began = threading.Event()

    def upload(request: bytes) -> list[bytes]:
        if request.startswith(b"HEAD"):
            return [b"HTTP/1.1 404 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"]
        if request.startswith(b"POST"):
            return [b"HTTP/1.1 202 X\r\nLocation: /v2/u/1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"]
        began.set()
        time.sleep(ENOUGH)
        return []

    with dripping(Drip(lambda request: iter(upload(request)), 0)) as server:
        begun = time.monotonic()
        with pytest.raises(Unreachable):
            repository(server.host, retries=0).push_blob(blob, lambda: io.BytesIO(content))
        assert time.monotonic() - begun < ENOUGH
        assert began.is_set()


@pytest.mark.parametrize("drip", [empty_pages(), slow_pages()], ids=["empty", "slow"])
def test_page_after_page(drip: Drip) -> None:
    with dripping(drip) as server:
        begun = time.monotonic()
        with pytest.raises(RemoteError, match="list"):
            list(repository(server.host, waiting=60.0).tags())
        assert time.monotonic() - begun < ENOUGH
        assert len(server.seen) <= MOST_EMPTY


def test_a_registry_that_asks_for_small_pages_is_read_to_its_end(liar: Liar) -> None:
    def answer(request: Request) -> Reply:
        number = int(request.query.get("last", ["0"])[0])
        link = {} if number == 40 else {"Link": f'<{request.path}?last={number + 1}>; rel="next"'}
        body = b'{"tags":[%s]}' % (b'"t%d"' % number if number % 2 else b"")
        return Reply(200, body, headers=link)

    liar.answer = answer
    assert len(list(repository(liar.host, waiting=60.0, patience=60.0).tags())) == 20


@pytest.mark.long
def test_nothing_takes_longer_than_a_command_may() -> None:
    """Everything is fast enough, and never ends."""
    quick = Drip(forever(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b" " * 4096))
    blob = Descriptor(media_types.OCI_LAYER, Digest.of(b""), 99_999_999_999)
    with dripping(quick) as server:
        begun = time.monotonic()
        with pytest.raises(Unreachable, match=r"has taken 1 s") as caught:
            repository(server.host, longest_command=1.0, waiting=60.0).read_blob(blob, limit=1 << 60)
        assert "--time-limit" in caught.value.hint
        assert time.monotonic() - begun < ENOUGH


def test_a_few_interim_answers_are_no_answer() -> None:
    body = IMAGE
    answer = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nX: y\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n"
        b"Content-Type: application/vnd.oci.image.manifest.v1+json\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
    )
    with dripping(Drip(lambda _: iter([answer]), 0)) as server:
        assert repository(server.host).pull_manifest("1").digest == DIGEST


@pytest.mark.long
def test_a_large_head_and_chunks_of_a_byte_are_read(liar: Liar) -> None:
    head = b"HTTP/1.1 200 OK\r\nX: %s\r\n" % (b"y" * (LARGEST_HEAD // 8))
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in IMAGE)
    answer = (
        head
        + b"Content-Type: application/vnd.oci.image.manifest.v1+json\r\nTransfer-Encoding: chunked\r\n"
        + b"Connection: close\r\n\r\n%s0\r\nX: y\r\n\r\n" % chunks
    )
    with dripping(Drip(lambda _: iter([answer]), 0)) as server:
        assert repository(server.host).pull_manifest("1").digest == DIGEST
    with dripping(Drip(bytewise(answer[-2000:]), 0)) as server, pytest.raises(RemoteError):
        repository(server.host).pull_manifest("1")


@pytest.mark.long
def test_a_slow_line_that_goes_on_is_waited_for(liar: Liar) -> None:
    """2 KiB in a second, for longer than is waited for silence."""
    body = bytes(1024 * 4)
    blob = Descriptor(media_types.OCI_LAYER, Digest.of(body), len(body))
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    pieces = [head, *(body[at : at + 512] for at in range(0, len(body), 512))]
    with dripping(Drip(lambda _: iter(pieces), 0.2)) as server:
        begun = time.monotonic()
        assert repository(server.host, patience=10.0).read_blob(blob) == body
        assert time.monotonic() - begun > WAITING


@pytest.mark.long
def test_an_answer_after_a_large_upload_may_take_longer(liar: Liar) -> None:
    """A registry looks through what it was sent before it answers."""
    content = bytes(70 << 20)
    blob = Descriptor(media_types.OCI_LAYER, Digest.of(content), len(content))

    def answer(request: Request) -> Reply:
        if request.method == "HEAD":
            return Reply(404)
        if request.method == "POST":
            return Reply(202, headers={"Location": "/v2/u/1"})
        time.sleep(1.5)
        return Reply(201)

    liar.answer = answer
    assert repository(liar.host).push_blob(blob, lambda: io.BytesIO(content)) == "sent"
    assert manifest_reply().status == 200


def test_a_connection_that_breaks_after_every_byte(liar: Liar, tmp_path: Path) -> None:
    """Each attempt gets on, and there is no end of them."""
    content = bytes(1 << 20)
    blob = Descriptor(media_types.OCI_LAYER, Digest.of(content), len(content))

    def answer(request: Request) -> Reply:
        start = int(request.headers.get("Range", "bytes=0-").partition("=")[2].rstrip("-"))
        if not start:
            return Reply(200, b"\0", length=len(content))
        part = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        return Reply(206, b"\0", part, length=len(content) - start)

    liar.answer = answer
    store = DiskBlobs(tmp_path)
    store.prepare()
    with pytest.raises(Unreachable), store.begin(blob.digest, blob.size) as sink:
        repository(liar.host, waiting=60.0).pull_blob(blob, sink)
    assert len(liar.seen) < 50


@pytest.mark.parametrize(
    "encoding", ["gzip", *(pytest.param(name, marks=pytest.mark.long) for name in ("deflate", "x-gzip"))]
)
def test_an_answer_that_inflates_without_end(liar: Liar, encoding: str) -> None:
    """64 MiB of spaces in some kilobytes, for each kind of document: no more of it is held than is read."""
    bomb = b'{"tags":[' + b" " * (64 << 20) + b"]}"
    body = zlib.compress(bomb) if encoding == "deflate" else gzip.compress(bomb)
    liar.answer = lambda _: Reply(200, body, {"Content-Encoding": encoding})
    remote = repository(liar.host, waiting=60.0, patience=60.0)
    asking: list[Callable[[], object]] = [
        lambda: list(remote.tags()),
        lambda: remote.pull_manifest("1"),
        lambda: remote.referrers(Digest.of(b"")),
        lambda: remote.read_blob(Descriptor(media_types.OCI_CONFIG, Digest.of(b""), 100)),
    ]
    for ask in asking:
        tracemalloc.start()
        try:
            with pytest.raises(DigestryError):
                ask()
            assert tracemalloc.get_traced_memory()[1] < 48 << 20
        finally:
            tracemalloc.stop()
