"""Uploads into an S3 store: parts, fragments, several nodes, bounded memory."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from digestry.blobs.s3.config import MIB, S3Config
from digestry.blobs.s3.documents import UploadedPart
from digestry.blobs.s3.ingest import S3Ingest
from digestry.blobs.s3.rows import IngestState
from digestry.blobs.s3.store import S3Blobs
from digestry.errors import Conflict, DigestMismatch, StorageError, TooLarge
from digestry.model.digest import Digest
from tests.blobs.s3.stores import make_store, open_rows
from tests.catalog.support import Clock
from tests.support import PATIENCE

PART = 5 * MIB
CONTENT = os.urandom(12 * MIB + 123)
DIGEST = Digest.of(CONTENT)


@pytest.fixture
def config(s3_config: S3Config) -> S3Config:
    return s3_config


@pytest.fixture
def store(tmp_path: Path, config: S3Config) -> S3Blobs:
    return make_store(tmp_path, config, part_size=PART)


@pytest.fixture
def other(tmp_path: Path, store: S3Blobs) -> S3Blobs:
    """The same store, on another node."""
    return S3Blobs(store.config, partial(open_rows, tmp_path))


def objects(store: S3Blobs) -> list[int]:
    """The sizes of all objects of the store."""
    return sorted(found.size for found in store.session.client.objects(store.config.objects_prefix))


def uploads(store: S3Blobs) -> int:
    """How many multipart uploads the service has."""
    return sum(1 for _ in store.session.client.uploads(store.config.objects_prefix))


def pieces(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


def test_a_long_stream_is_sent_in_equal_parts(store: S3Blobs) -> None:
    with store.ingest("u") as ingest:
        ingest.write_all(pieces(CONTENT, 300_000))
        assert ingest.offset == len(CONTENT)
        ingest.save()
        state = ingest._bytes.saved
        assert [part.size for part in state.parts] == [PART, PART]
        listed = store.session.client.parts(state.key, state.upload_id)
        assert [part.size for part in listed] == [PART, PART]
        ingest.commit(DIGEST, len(CONTENT))
    assert store.read(DIGEST, limit=len(CONTENT)) == CONTENT
    assert uploads(store) == 0
    store.session.removal.remove_due()
    assert objects(store) == [len(CONTENT)]


@pytest.mark.long
def test_content_without_a_name_is_sent_in_parts_too(store: S3Blobs) -> None:
    with store.begin(DIGEST, len(CONTENT)) as ingest:
        for piece in pieces(CONTENT, MIB):
            ingest.write(piece)
        ingest.commit(DIGEST)
    assert store.read(DIGEST, limit=len(CONTENT)) == CONTENT
    assert list(store.ingests()) == []
    with store.begin() as ingest:
        ingest.write(CONTENT)
        assert len(list(store.ingests())) == 1
    assert list(store.ingests()) == []
    store.session.removal.remove_due()
    assert (uploads(store), objects(store)) == (0, [len(CONTENT)])


@pytest.mark.long
@pytest.mark.parametrize("size", [1 * MIB, 3 * MIB, PART, PART + 1, 7 * MIB])
def test_an_upload_goes_on_at_another_node(store: S3Blobs, other: S3Blobs, size: int) -> None:
    for number, piece in enumerate(pieces(CONTENT, size)):
        with (store, other)[number % 2].ingest("u") as ingest:
            assert ingest.offset == number * size
            ingest.write(piece)
    with other.ingest("u", create=False) as ingest:
        assert ingest.offset == len(CONTENT)
        ingest.commit(DIGEST)
    assert store.read(DIGEST, limit=len(CONTENT)) == CONTENT


def test_what_was_read_back_and_is_wrong_is_no_content(store: S3Blobs) -> None:
    with store.ingest("u") as ingest:
        ingest.write(CONTENT[:PART])
    with store.ingest("u") as ingest:
        ingest.write(CONTENT[PART:-1] + b"x")
        with pytest.raises(DigestMismatch):
            ingest.commit(DIGEST)
    assert (store.stat(DIGEST), list(store.ingests())) == (None, [])
    store.session.removal.remove_due()
    assert (uploads(store), objects(store)) == (0, [])


@pytest.mark.long
@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.long)])
def test_many_small_chunks_leave_few_objects(store: S3Blobs, count: int) -> None:
    content = os.urandom(count * 1000)
    for piece in pieces(content, 1000):
        with store.ingest("u") as ingest:
            ingest.write(piece)
    with store.ingest("u") as ingest:
        state = ingest._bytes.state
        assert state.end == len(content)
        assert len(state.fragments) <= count.bit_length() + 1
        ingest.commit(Digest.of(content))
    assert store.read(Digest.of(content)) == content
    store.session.removal.remove_due()
    assert objects(store) == [len(content)]


@pytest.mark.long
@pytest.mark.parametrize("offset", [0, 1, 2 * MIB, PART, PART + 17, 2 * PART, 11 * MIB])
def test_bytes_after_any_offset_are_dropped(store: S3Blobs, offset: int) -> None:
    with store.ingest("u") as ingest:
        ingest.write(CONTENT[:-100])
    with store.ingest("u") as ingest:
        ingest.resume(offset)
        assert ingest.offset == offset
        ingest.write(CONTENT[offset:])
        ingest.commit(DIGEST)
    assert store.read(DIGEST, limit=len(CONTENT)) == CONTENT
    store.session.removal.remove_due()
    assert (uploads(store), objects(store)) == (0, [len(CONTENT)])


def test_a_digest_in_between_is_of_all_bytes_so_far(store: S3Blobs) -> None:
    with store.ingest("u") as ingest:
        ingest.write(CONTENT[: PART + 5])
        assert ingest.digest() == Digest.of(CONTENT[: PART + 5])
        assert ingest.digest("sha512") == Digest.of(CONTENT[: PART + 5], "sha512")
        ingest.write(CONTENT[PART + 5 :])
        ingest.commit(DIGEST)
    assert store.read(DIGEST, limit=len(CONTENT)) == CONTENT


def test_a_small_upload_is_never_written_twice(store: S3Blobs) -> None:
    with store.ingest("u") as ingest:
        ingest.write(b"hello")
        known = ingest.digest()
    with store.ingest("u") as ingest:
        ingest.resume(5, known)
        ingest.commit(known)
    assert store.read(known) == b"hello"
    assert objects(store) == [5]


def test_content_has_a_largest_size(tmp_path: Path, config: S3Config) -> None:
    store = make_store(tmp_path, config, part_size=PART)
    with store.ingest("u") as ingest:
        ingest._bytes.state = ingest._bytes.saved = _state_at(ingest, store.config.largest)
        with pytest.raises(TooLarge):
            ingest.write(b"x")
        ingest.abort()


def _state_at(ingest: S3Ingest, size: int) -> IngestState:
    return replace(ingest._bytes.state, parts=(UploadedPart(1, size, "", ""),))


def test_a_process_that_died_loses_its_upload_after_a_while(tmp_path: Path, config: S3Config) -> None:
    clock = Clock()
    store = make_store(tmp_path, config, lease=10_000.0)
    rows = open_rows(tmp_path, clock)
    first, second = (S3Blobs(store.config, lambda: rows) for _ in range(2))
    dead = first.ingest("u")
    dead.write(b"hello")
    dead.save()
    with pytest.raises(Conflict):
        second.ingest("u")
    clock.now += 10_001 * 1_000_000
    with second.ingest("u") as ingest:
        assert ingest.offset == 5
        dead.write(b", too late")
        for ended in (dead.save, lambda: dead.commit(Digest.of(b"hello, too late"))):
            with pytest.raises(Conflict):
                ended()
        ingest.commit(Digest.of(b"hello"))
    assert list(first.digests()) == [Digest.of(b"hello")]


@pytest.mark.long
def test_more_streams_than_memory_all_come_in(tmp_path: Path, config: S3Config) -> None:
    """Two parts fit: a stream that keeps one, and does not go on, gives it to those that wait."""
    store = make_store(tmp_path, config, part_size=PART, memory=2 * PART)
    idle = store.ingest("idle")
    idle.write(CONTENT[:MIB])
    failures: list[BaseException] = []

    def upload(number: int) -> None:
        try:
            content = CONTENT + bytes([number])
            with store.ingest(f"u{number}") as ingest:
                for piece in pieces(content, MIB):
                    ingest.write(piece)
                ingest.commit(Digest.of(content))
        except BaseException as error:  # noqa: BLE001 - told below, in the main thread
            failures.append(error)

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert failures == []
    assert len(list(store.digests())) == 4
    idle.write(CONTENT[MIB:])
    idle.commit(DIGEST)
    assert store.read(DIGEST, limit=len(CONTENT)) == CONTENT
    assert store.session.memory.is_whole()


def test_who_waits_for_memory_gets_it_in_turn(tmp_path: Path, s3_config: S3Config) -> None:
    store = make_store(tmp_path, s3_config, part_size=PART, memory=2 * PART)
    first, second, third, fourth = (store.ingest(name) for name in ("a", "b", "c", "d"))
    asked = [one.has_room() for one in (first, second, third, fourth, first)]
    assert asked == [True, True, False, False, True]
    first.write(CONTENT[:MIB])
    second.close()
    assert [one.has_room() for one in (fourth, third)] == [False, True]
    third.abort()
    assert fourth.has_room()
    fourth.abort()
    first.write(CONTENT[MIB:])
    first.commit(DIGEST)
    assert store.session.memory.is_whole()


def test_an_upload_that_ended_says_so(store: S3Blobs) -> None:
    ingest = store.ingest("u")
    before = ingest.waits
    ingest.close()
    assert (before, ingest.waits) == (True, False)
    for used in (lambda: ingest.write(b"x"), ingest.save, ingest.digest, lambda: ingest.resume(0)):
        with pytest.raises(StorageError, match="closed already"):
            used()
