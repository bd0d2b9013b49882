"""The same content, tag or upload, from several clients at once: two worker processes, real requests."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.crash.checks import Reader, check_files, check_journal, check_served, check_story, check_usage
from tests.registry.support import Upload, ingest_files, put_manifest, query, statuses
from tests.support import PATIENCE, RegistryServer, descriptor, start_registry, wait_until

REPOSITORIES = ("a", "b", "team/c")


@pytest.fixture(scope="module")
def registry() -> Iterator[RegistryServer]:
    with tempfile.TemporaryDirectory(prefix="digestry-at-once-") as directory:
        server = start_registry(Path(directory) / "root", "--workers", "2")
        try:
            yield server
            assert server.stop() == 0
            check_journal(server.root)
            check_usage(server.root)
        finally:
            if server.process.poll() is None:
                server.kill()


@pytest.fixture(autouse=True)
def _whole(registry: RegistryServer) -> Iterator[None]:
    """After each test: all that is shown is right, and nothing is left under way."""
    yield
    reader = Reader(registry)
    check_served(reader, registry.root)
    reader.close()
    check_files(registry.root)
    assert ingest_files(registry) == set()
    assert query(registry, "SELECT id FROM uploads") == []


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Calls all of them in threads of their own, as nearly at once as can be; what each returned."""
    gate = threading.Barrier(len(works))
    results: list[Any] = [None] * len(works)

    def run(number: int) -> None:
        gate.wait()
        results[number] = works[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    return results


def push_whole(server: RegistryServer, name: str, content: bytes) -> int:
    path = f"/v2/{name}/blobs/uploads/?digest={Digest.of(content)}"
    return server.request("POST", path, content).status


def push_and_put(server: RegistryServer, name: str, content: bytes) -> int:
    return Upload.begin(server, name).put(Digest.of(content), content).status


def push_in_one_patch(server: RegistryServer, name: str, content: bytes) -> int:
    upload = Upload.begin(server, name)
    assert upload.patch(content).status == 202
    return upload.put(Digest.of(content)).status


def push_in_pieces(server: RegistryServer, name: str, content: bytes) -> int:
    upload = Upload.begin(server, name)
    step = len(content) // 3 + 1
    for start in range(0, len(content), step):
        assert upload.patch(content[start : start + step], start).status == 202
    return upload.put(Digest.of(content)).status


WAYS = (push_whole, push_and_put, push_in_one_patch, push_in_pieces)


@pytest.mark.parametrize("names", [("a",), REPOSITORIES], ids=["one repository", "several"])
def test_many_pushes_of_one_blob_at_once_all_succeed(
    registry: RegistryServer, names: tuple[str, ...]
) -> None:
    for size in (100, 400_000):
        content = os.urandom(size)
        works = [
            partial(way, registry, names[number % len(names)], content) for number, way in enumerate(WAYS * 3)
        ]
        assert set(at_once(*works)) == {201}
        for name in names:
            assert registry.request("GET", f"/v2/{name}/blobs/{Digest.of(content)}").body == content


def image(registry: RegistryServer, name: str, note: str) -> bytes:
    return json.dumps({**registry.image(name), "annotations": {"note": note}}).encode()


def test_one_manifest_to_one_tag_at_once_is_one_move(registry: RegistryServer) -> None:
    raw = image(registry, "same", "1")
    works = [partial(put_manifest, registry, "same", "t", raw)] * 8
    assert {answer.status for answer in at_once(*works)} == {201}
    reader = Reader(registry)
    assert len(check_story(reader, "same")["t"]) == 1
    reader.close()


def test_two_manifests_to_one_tag_at_once_are_two_moves_in_an_order(registry: RegistryServer) -> None:
    for turn in range(5):
        raws = [image(registry, "race", f"{turn} {number}") for number in range(2)]
        answers = at_once(*(partial(put_manifest, registry, "race", f"t{turn}", raw) for raw in raws))
        assert [answer.status for answer in answers] == [201, 201]
        reader = Reader(registry)
        moves = check_story(reader, "race")[f"t{turn}"]  # each left what the other came to
        reader.close()
        assert {move["toDigest"] for move in moves} == {str(Digest.of(raw)) for raw in raws}
        assert [move["event"] for move in moves] == ["created", "moved"]


def test_of_two_moves_that_expect_the_same_one_wins(registry: RegistryServer) -> None:
    assert put_manifest(registry, "cas", "t", image(registry, "cas", "first")).status == 201
    before = registry.request("HEAD", "/v2/cas/manifests/t").headers["etag"]
    raws = [image(registry, "cas", f"next {number}") for number in range(4)]
    headers = {"Content-Type": media_types.OCI_MANIFEST, "If-Match": before}
    answers = at_once(
        *(lambda raw=raw: registry.request("PUT", "/v2/cas/manifests/t", raw, headers).status for raw in raws)
    )
    assert sorted(answers) == [201, 412, 412, 412]


def test_a_cancel_while_the_last_bytes_come_is_refused_and_the_upload_is_whole(
    registry: RegistryServer,
) -> None:
    content = os.urandom(300_000)
    digest = Digest.of(content)
    upload = Upload.begin(registry, "a")
    head = f"PUT {upload.path}?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", registry.port), timeout=PATIENCE) as connection:
        connection.sendall(head.encode() + content[:150_000])
        # Once the server has the file, it is this request's alone.
        wait_until(lambda: upload.id in ingest_files(registry), what="the upload's file")
        wait_until(lambda: registry.request("DELETE", upload.path).status == 409, what="a refusal")
        connection.sendall(content[150_000:])
        assert statuses(connection.recv(1 << 16)) == [201]
    assert registry.request("GET", f"/v2/a/blobs/{digest}").body == content


def test_cancel_and_finish_at_once_one_of_them_wins(registry: RegistryServer) -> None:
    for _ in range(10):
        content = os.urandom(20_000)
        digest = Digest.of(content)
        upload = Upload.begin(registry, "a")
        assert upload.patch(content).status == 202
        both = at_once(partial(registry.request, "DELETE", upload.path), partial(upload.put, digest))
        cancelled, finished = (answer.status for answer in both)
        assert (cancelled, finished) in {(204, 404), (204, 409), (404, 201), (409, 201), (409, 409)}
        if (cancelled, finished) == (409, 409):  # each met the other's lock
            assert registry.request("DELETE", upload.path).status == 204
        there = registry.request("GET", f"/v2/a/blobs/{digest}").status
        assert there == (200 if finished == 201 else 404)


@pytest.mark.long
def test_deletes_while_the_same_is_pushed_leave_nothing_half_there(registry: RegistryServer) -> None:
    layer = os.urandom(5_000)
    digest = Digest.of(layer)
    config = b"{}"
    registry.push_blob("d", config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": descriptor(media_types.OCI_CONFIG, Digest.of(config), len(config)),
        "layers": [descriptor(media_types.OCI_LAYER, digest, len(layer))],
    }
    raw = json.dumps(manifest).encode()
    end = time.monotonic() + 1.5
    pushed: list[int] = []

    def push() -> None:
        while time.monotonic() < end:
            assert push_whole(registry, "d", layer) == 201
            pushed.append(put_manifest(registry, "d", "t", raw).status)

    def delete(path: str) -> Callable[[], None]:
        def run() -> None:
            while time.monotonic() < end:
                assert registry.request("DELETE", path).status in {202, 404, 409}

        return run

    at_once(
        push,
        push,
        delete(f"/v2/d/blobs/{digest}"),
        delete(f"/v2/d/manifests/{Digest.of(raw)}"),
        delete("/v2/d/manifests/t"),
    )
    # 400: its layer was deleted between the two pushes, and the manifest was refused for that.
    assert set(pushed) <= {201, 400}
    assert 201 in pushed
    reader = Reader(registry)
    check_story(reader, "d")
    reader.close()
    assert push_whole(registry, "d", layer) == 201
    assert put_manifest(registry, "d", "t", raw).status == 201
