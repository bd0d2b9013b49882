"""Large blobs over a line on which each connection is slow: their ranges come over several at once."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from digestry.blobs.disk import DiskBlobs
from digestry.client import blob_download, ranged_download
from digestry.client.repository import Repository
from digestry.client.session import Session
from digestry.errors import DigestMismatch, ProtocolViolation, Unreachable
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.client.far_line import FarLine, far_line
from tests.client.liar import Liar, Reply, Request
from tests.support import RegistryServer

_SIZE = 3 << 20
_CONTENT = random.Random(13).randbytes(_SIZE)
_BLOB = Descriptor(media_types.OCI_LAYER, Digest.of(_CONTENT), _SIZE)


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds and megabytes takes less here."""
    monkeypatch.setattr(ranged_download, "WORTH", 512 << 10)
    monkeypatch.setattr(ranged_download, "WORTH_IF_SLOW", 512 << 10)
    monkeypatch.setattr(ranged_download, "_RANGE", 128 << 10)
    monkeypatch.setattr(blob_download, "_WATCHED", 0.05)


@pytest.fixture
def store(tmp_path: Path) -> DiskBlobs:
    blobs = DiskBlobs(tmp_path)
    blobs.prepare()
    return blobs


@pytest.fixture
def line(registry: RegistryServer) -> Iterator[FarLine]:
    """A line of 2 MB a second a connection, to a registry that has the blob."""
    with Session() as session:
        repository = session.repository(Reference(registry.host, "client/ranges"))
        repository.push_blob(_BLOB, lambda: io.BytesIO(_CONTENT))
    with far_line(int(registry.host.rpartition(":")[2]), rate=2e6, delay=0.01) as opened:
        yield opened


def pull(repository: Repository, store: DiskBlobs) -> list[int]:
    """Pull the blob; return what was reported of it."""
    moved: list[int] = []
    with store.begin(_BLOB.digest, _SIZE) as sink:
        repository.pull_blob(_BLOB, sink, moved.append)
    return moved


def test_a_slow_connection_gets_help(line: FarLine, session: Session, store: DiskBlobs) -> None:
    moved = pull(session.repository(Reference(line.host, "client/ranges")), store)
    assert store.read(_BLOB.digest) == _CONTENT
    assert sum(moved) == _SIZE
    assert line.connections >= ranged_download.MOST_CONNECTIONS
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("digestry-range")]


@pytest.mark.parametrize(
    ("megabytes", "rate", "is_worth"),
    [
        pytest.param(16, 20e6, True, id="much"),
        pytest.param(12, 0.3e6, True, id="less, and slow"),
        pytest.param(12, 10e6, False, id="less"),
        pytest.param(3, 0.3e6, False, id="little"),
    ],
)
def test_how_much_is_worth_ranges(
    megabytes: int, rate: float, is_worth: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    assert ranged_download.is_worth(megabytes << 20, rate) is is_worth


@pytest.mark.long
def test_a_fast_connection_is_alone(
    line: FarLine, session: Session, store: DiskBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob_download, "_FAST", 1000)
    pull(session.repository(Reference(line.host, "client/ranges")), store)
    assert line.connections == 1


@pytest.mark.long
def test_ranges_that_are_no_faster_are_given_up(
    line: FarLine, session: Session, store: DiskBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranged_download, "_WATCHED", 0.0)
    monkeypatch.setattr(ranged_download, "_BETTER", 1e6)
    moved = pull(session.repository(Reference(line.host, "client/ranges")), store)
    assert store.read(_BLOB.digest) == _CONTENT
    assert sum(moved) == _SIZE


class _Lie:
    """A registry with the blob, which answers ``change(reply)`` to requests for a range after ``after``."""

    def __init__(self, change: Callable[[Reply], Reply], after: int = 0) -> None:
        self._change = change
        self._after = after

    def __call__(self, request: Request) -> Reply:
        asked = request.headers.get("Range", "")
        if not asked:
            return Reply(200, _CONTENT)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = int(first), int(last) + 1 if last else _SIZE
        whole = Reply(206, _CONTENT[start:end], {"Content-Range": f"bytes {start}-{end - 1}/{_SIZE}"})
        return self._change(whole) if start >= self._after and last else whole


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection is fast enough, after its first bytes."""
    monkeypatch.setattr(blob_download, "_WATCHED", 0.0)
    monkeypatch.setattr(blob_download, "_FAST", 1 << 60)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda reply: reply, id="as asked"),
        pytest.param(lambda _: Reply(200, _CONTENT), id="everything instead"),
        pytest.param(lambda _: Reply(403), id="refused"),
        pytest.param(lambda reply: replace(reply, chunked=True), id="in chunks"),
        pytest.param(
            lambda reply: replace(reply, headers={**reply.headers, "Content-Encoding": "gzip"}), id="encoded"
        ),
    ],
)
def test_a_blob_comes_whole_whatever_ranges_bring(
    change: Callable[[Reply], Reply], liar: Liar, hostile: Repository, store: DiskBlobs
) -> None:
    for after in (0, 2 << 20):
        liar.answer = _Lie(change, after)
        moved = pull(hostile, store)
        assert store.read(_BLOB.digest) == _CONTENT
        assert sum(moved) == _SIZE


@pytest.mark.usefixtures("impatient")
def test_a_range_that_breaks_off_goes_on(liar: Liar, hostile: Repository, store: DiskBlobs) -> None:
    def change(reply: Reply) -> Reply:
        return (
            replace(reply, body=reply.body[:1000], length=len(reply.body)) if chance.random() < 0.3 else reply
        )

    chance = random.Random(1)
    liar.answer = _Lie(change)
    pull(hostile, store)
    assert store.read(_BLOB.digest) == _CONTENT
    asked = [request.headers["Range"] for request in liar.seen if "Range" in request.headers]
    assert len(asked) == len(set(asked))  # no byte was asked for again


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda reply: replace(reply, headers={"Content-Range": "bytes 7-9/10"}), ProtocolViolation),
        (lambda reply: replace(reply, headers={}), ProtocolViolation),
        (lambda reply: replace(reply, body=bytes(len(reply.body))), DigestMismatch),
        (lambda reply: replace(reply, body=b"", length=len(reply.body)), Unreachable),
    ],
    ids=["another part", "no word of the part", "other bytes", "nothing"],
)
def test_a_lie_about_ranges_is_an_error(
    change: Callable[[Reply], Reply],
    error: type[Exception],
    liar: Liar,
    hostile: Repository,
    store: DiskBlobs,
) -> None:
    liar.answer = _Lie(change, 1 << 20)
    with pytest.raises(error):
        pull(hostile, store)
    assert store.stat(_BLOB.digest) is None
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("digestry-range")]


@pytest.mark.usefixtures("impatient")
def test_whoever_watches_may_stop_it(liar: Liar, hostile: Repository, store: DiskBlobs) -> None:
    liar.answer = _Lie(lambda reply: reply)
    seen = 0

    def stop(count: int) -> None:
        nonlocal seen
        seen += count
        if seen > 1 << 20:
            raise KeyError

    with pytest.raises(KeyError), store.begin(_BLOB.digest, _SIZE) as sink:
        hostile.pull_blob(_BLOB, sink, stop)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("digestry-range")]
