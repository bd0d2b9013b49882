"""Short content that is pushed at the same time: what is shared, and that each push fails for itself."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from digestry import fsio
from digestry.catalog import clock
from digestry.errors import StorageError
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.registry.garbage_collection import collect
from tests.crash.checks import check_files, check_journal, check_served, check_usage
from tests.faults.inside import Inside, prepared
from tests.stores import needs_disk
from tests.support import Response

REPOSITORY = "a"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Inside]:
    with Inside(prepared(tmp_path / "root")) as inside:
        yield inside
        check_served(inside, inside.root)
    check_files(tmp_path / "root")
    check_journal(tmp_path / "root")
    check_usage(tmp_path / "root")


def at_once(registry: Inside, *requests: tuple[Any, ...]) -> list[Response]:
    """The answers to requests that are asked at the same time."""

    async def ask() -> list[Response]:
        return await asyncio.gather(*(registry.ask(*request) for request in requests))

    return registry._runner.run(ask())


def whole(content: bytes, digest: Digest | None = None) -> tuple[str, str, bytes]:
    path = f"/v2/{REPOSITORY}/blobs/uploads/?digest={digest or Digest.of(content)}"
    return "POST", path, content


def upload(registry: Inside) -> str:
    return registry.request("POST", f"/v2/{REPOSITORY}/blobs/uploads/").headers["location"]


def held(registry: Inside, content: bytes) -> bool:
    return registry.get(f"/v2/{REPOSITORY}/blobs/{Digest.of(content)}").status == 200


def first_batch_waits(registry: Inside, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have the first batch of files wait, so that others gather; return the files in each batch."""
    needs_disk(registry.root)
    batches: list[int] = []
    real = fsio.publish_all

    def publish_all(files: Sequence[fsio.NewFile]) -> list[StorageError | None]:
        batches.append(len(files))
        if len(batches) == 1:
            time.sleep(0.3)
        return real(files)

    monkeypatch.setattr("digestry.blobs.small_files.publish_all", publish_all)
    return batches


def test_pushes_that_wait_are_stored_together(registry: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = first_batch_waits(registry, monkeypatch)
    contents = [b"%d" % number for number in range(12)]
    answers = at_once(registry, *map(whole, contents))
    assert {answer.status for answer in answers} == {201}
    assert sum(batches) == 12
    assert len(batches) < 6
    assert all(held(registry, content) for content in contents)


def test_a_wrong_one_among_them_is_refused_alone(registry: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    first_batch_waits(registry, monkeypatch)
    contents = [b"%d" % number for number in range(8)]
    requests = [whole(content) for content in contents]
    requests[4] = whole(contents[4], Digest.of(b"something else"))
    answers = at_once(registry, *requests)
    assert [answer.status for answer in answers] == [201] * 4 + [400] + [201] * 3
    assert answers[4].code == "DIGEST_INVALID"
    assert [held(registry, content) for content in contents] == [True] * 4 + [False] + [True] * 3


def test_one_whose_file_cannot_be_synced_is_refused_alone(
    registry: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_batch_waits(registry, monkeypatch)
    contents = [b"%d" % number for number in range(8)]
    real = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        if os.pread(descriptor, 10, 0) == contents[5]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fdatasync)
        answers = at_once(registry, *map(whole, contents))
    assert [answer.status for answer in answers] == [201] * 5 + [507] + [201] * 2
    assert not held(registry, contents[5])
    assert registry.request(*whole(contents[5])).status == 201


def test_if_the_directory_cannot_be_synced_all_are_refused_and_can_come_again(
    registry: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_disk(registry.root)
    contents = [b"%d" % number for number in range(4)]

    def fails(path: Path) -> None:
        raise fsio.storage_error("sync the directory", path, OSError(errno.EIO, os.strerror(errno.EIO)))

    with monkeypatch.context() as patched:
        patched.setattr(fsio, "sync_directory", fails)
        answers = at_once(registry, *map(whole, contents))
    assert {answer.status for answer in answers} == {500}
    assert not any(held(registry, content) for content in contents)
    assert {answer.status for answer in at_once(registry, *map(whole, contents))} == {201}


def test_one_body_for_several_uploads_at_once(registry: Inside) -> None:
    content = b"the same"
    places = [upload(registry) for _ in range(6)]
    puts = [("PUT", f"{place}?digest={Digest.of(content)}", content) for place in places]
    assert {answer.status for answer in at_once(registry, *puts)} == {201}
    assert {registry.get(place).status for place in places} == {404}


def test_one_upload_is_finished_once(registry: Inside) -> None:
    contents = [b"%d" % number for number in range(5)]
    place = upload(registry)
    puts = [("PUT", f"{place}?digest={Digest.of(content)}", content) for content in contents]
    statuses = sorted(answer.status for answer in at_once(registry, *puts))
    assert statuses[0] == 201
    assert set(statuses[1:]) <= {404, 409}
    assert sum(held(registry, content) for content in contents) == 1


def test_a_short_end_of_an_upload_is_not_taken_for_the_whole(registry: Inside) -> None:
    content = b"0123456789"
    place = upload(registry)
    assert registry.request("PATCH", place, content[:4]).status == 202
    answer = registry.request("PUT", f"{place}?digest={Digest.of(content)}", content[4:])
    assert answer.status == 201
    assert held(registry, content)


def test_wrong_bytes_end_an_upload_that_had_none(registry: Inside) -> None:
    place = upload(registry)
    answer = registry.request("PUT", f"{place}?digest={Digest.of(b'right')}", b"wrong")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert registry.get(place).status == 404


def test_manifests_at_once_move_one_tag_one_after_the_other(registry: Inside) -> None:
    config = b"{}"
    assert registry.request(*whole(config)).status == 201
    described = {"mediaType": media_types.OCI_CONFIG, "digest": str(Digest.of(config)), "size": len(config)}
    raws = [
        json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": media_types.OCI_MANIFEST,
                "config": described if number != 3 else described | {"digest": str(Digest.of(b"missing"))},
                "layers": [],
                "annotations": {"number": str(number)},
            }
        ).encode()
        for number in range(8)
    ]
    kind = {"Content-Type": media_types.OCI_MANIFEST}
    puts = [("PUT", f"/v2/{REPOSITORY}/manifests/t", raw, kind) for raw in raws]
    answers = at_once(registry, *puts)
    assert [answer.status for answer in answers] == [201] * 3 + [400] + [201] * 4
    entries = registry.get(f"/v2/{REPOSITORY}/_digestry/journal?n=100").json()["entries"][::-1]
    assert len(entries) == 7
    assert [entry.get("fromDigest") for entry in entries[1:]] == [entry["toDigest"] for entry in entries[:-1]]


def test_a_collection_meanwhile_takes_none_of_it(registry: Inside) -> None:
    """The guards of a batch are held until its commit, and released then."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def collecting() -> None:
        try:
            while not stop.is_set():
                collect(registry.config, registry.config.backend(clock.now))
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    thread = threading.Thread(target=collecting)
    thread.start()
    try:
        for turn in range(5):
            contents = [b"%d %d" % (turn, number) for number in range(20)]
            assert {answer.status for answer in at_once(registry, *map(whole, contents))} == {201}
            assert all(held(registry, content) for content in contents)
    finally:
        stop.set()
        thread.join()
    assert failures == []
