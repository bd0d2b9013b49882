"""ContentDamaged content that a read comes upon, while others read and push the same."""

from __future__ import annotations

import asyncio
import errno
import http.client
import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from digestry.errors import StorageError
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.registry.config import RegistryConfig
from digestry.registry.server import prepare
from digestry.registry.service import open_service
from digestry.registry.stores import ContentDamaged
from tests.registry.support import query
from tests.stores import blob_file, needs_disk
from tests.support import PATIENCE, RegistryServer, descriptor, wait_until


def blob(server: RegistryServer, digest: Digest) -> Path:
    return blob_file(server.root, digest)


def status(server: RegistryServer, method: str, name: str, digest: Digest) -> int:
    return server.request(method, f"/v2/{name}/blobs/{digest}").status


@pytest.mark.parametrize("size", [500, 200_000])
def test_many_who_read_what_is_damaged_while_it_is_pushed(registry: RegistryServer, size: int) -> None:
    """Each is told one of two truths, and the registry goes on."""
    name = "quarantine/crowd"
    content = os.urandom(size)
    digest = registry.push_blob(name, content)
    seen: Counter[int] = Counter()
    with ThreadPoolExecutor(24) as crowd:
        for _ in range(5):
            os.truncate(blob(registry, digest), 100)
            started = threading.Barrier(25)

            def read(started: threading.Barrier = started) -> int:
                started.wait(PATIENCE)
                answer = registry.request("GET", f"/v2/{name}/blobs/{digest}")
                assert answer.status == 404 or answer.body == content
                return answer.status

            readers = [crowd.submit(read) for _ in range(24)]
            started.wait(PATIENCE)
            assert registry.push_blob(name, content) == digest
            seen.update(reader.result(60) for reader in readers)
            assert registry.request("GET", f"/v2/{name}/blobs/{digest}").body == content
    assert set(seen) <= {200, 404}
    assert seen[404] > 0


def test_what_is_cut_while_it_is_sent_is_found_then(registry: RegistryServer) -> None:
    name = "quarantine/cut"
    content = os.urandom(1 << 20) * 48
    digest = registry.push_blob(name, content)
    file = blob(registry, digest)
    connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=30)
    connection.request("GET", f"/v2/{name}/blobs/{digest}")
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.read(1 << 20) == content[: 1 << 20]
    os.truncate(file, 40 << 20)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer.read()
    connection.close()
    wait_until(lambda: status(registry, "HEAD", name, digest) == 404, what="quarantine of a cut blob")
    assert registry.push_blob(name, content) == digest
    assert status(registry, "HEAD", name, digest) == 200


def test_many_questions_at_once_find_damage_too(registry: RegistryServer) -> None:
    name = "quarantine/resolve"
    image = registry.push_image(name, "1")
    index = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [descriptor(media_types.OCI_MANIFEST, image, 1)],
    }
    digest = registry.push_manifest(name, "index", index)
    body = f'{{"queries": [{{"repository": "{name}", "digests": ["{digest}"]}}], "contents": true}}'
    assert str(digest) in registry.request("POST", "/v2/_digestry/resolve", body).json()["contents"]
    blob(registry, digest).write_bytes(b"{}")
    answer = registry.request("POST", "/v2/_digestry/resolve", body)
    assert answer.status == 200
    assert str(digest) not in answer.json().get("contents", {})
    wait_until(
        lambda: query(registry, "SELECT 1 FROM damaged WHERE digest = ?", str(digest)) != [],
        what="quarantine of a manifest",
    )
    registry.push_manifest(name, "index", index)
    assert query(registry, "SELECT 1 FROM damaged WHERE digest = ?", str(digest)) == []


def test_a_manifest_larger_than_small_is_verified_as_a_blob_too(registry: RegistryServer) -> None:
    name = "quarantine/large"
    manifest = registry.image(name, annotations={"long": "x" * 100_000})
    digest = registry.push_manifest(name, "1", manifest)
    path = blob(registry, digest)
    raw = path.read_bytes()
    part = registry.request("GET", f"/v2/{name}/blobs/{digest}", headers={"Range": "bytes=10-99"})
    assert (part.status, part.body) == (206, raw[10:100])
    assert part.headers["content-range"] == f"bytes 10-99/{len(raw)}"
    path.write_bytes(raw.replace(b"xxx", b"xyx", 1))
    for headers in ({"Range": "bytes=0-9"}, {}):
        answer = registry.request("GET", f"/v2/{name}/blobs/{digest}", headers=headers)
        assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")


def test_whose_damage_is_not_seen_by_who_has_no_such_content(registry: RegistryServer) -> None:
    digest = registry.push_blob("quarantine/one", b"only here")
    blob(registry, digest).unlink()
    assert b"damaged" in registry.request("GET", f"/v2/quarantine/one/blobs/{digest}").body
    registry.push_blob("quarantine/two", b"something")
    elsewhere = registry.request("GET", f"/v2/quarantine/two/blobs/{digest}")
    assert (elsewhere.status, elsewhere.code) == (404, "BLOB_UNKNOWN")
    assert b"damaged" not in elsewhere.body


@pytest.mark.parametrize(
    ("number", "damage"),
    [(errno.EIO, True), (errno.EUCLEAN, True), (errno.EACCES, False), (errno.EMFILE, False)],
)
def test_which_trouble_is_the_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, damage: bool
) -> None:
    config = RegistryConfig(tmp_path / "root")
    prepare(config)
    service = open_service(config)
    digest = service.stores.blobs.put(b"content")

    needs_disk(config.scratch)

    def fail(*_: object) -> int:
        raise OSError(number, "x")

    async def open_ranges() -> object:
        return await service.stores.open_ranges(digest, 7, service.executors.run)

    monkeypatch.setattr(os, "open", fail)
    reads: list[Callable[[], object]] = [
        lambda: service.stores.read(digest, 7),
        lambda: asyncio.run(open_ranges()),
    ]
    for read in reads:
        with pytest.raises(StorageError) as caught:
            read()
        assert isinstance(caught.value, ContentDamaged) == damage
    monkeypatch.undo()
    asyncio.run(service.stores.close())
    asyncio.run(service.gate.close())
