"""The application without its server: clients that fall silent, servers that cannot send files, defects."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from digestry.catalog.reads import CachedManifest
from digestry.errors import StorageError
from digestry.model.digest import Digest
from digestry.registry import error_responses
from digestry.registry.app import RegistryApp
from digestry.registry.bytes_cache import BytesCache
from digestry.registry.config import RegistryConfig
from digestry.registry.connections.config import ConnectionLimits
from digestry.registry.lifecycle import Lifecycle
from digestry.registry.proxies import parse_network
from digestry.registry.service import Service, open_service
from digestry.registry.storage_config import RedirectRule, StorageConfig
from tests.backends import file_of, open_blobs, open_catalog
from tests.catalog.support import pushed
from tests.stores import ingest_file

T = TypeVar("T")

SILENCE = b"silence"
"""In a list of a body's parts: the client sends nothing more, and does not go away."""


class Direct:
    """Calls the application as an ASGI server would."""

    def __init__(self, root: Path, **settings: Any) -> None:
        open_blobs(root).prepare()
        catalog = open_catalog(root)
        catalog.migrate()
        catalog.close()
        limits = ConnectionLimits(body_seconds=0.1)
        self.service = open_service(RegistryConfig(root, connections=limits, **settings))
        self._app = RegistryApp(lambda: self.service)
        self._app._service = self.service
        self._loop = asyncio.new_event_loop()

    def close(self) -> None:
        self._loop.run_until_complete(Lifecycle(self.service).stop())
        self._loop.close()

    def request(
        self, method: str, path: str, parts: Sequence[bytes | None] = (b"",), **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One request; a part that is None is the end of the connection."""
        return self.run(self.requested(method, path, parts, **headers))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs something on the loop of the requests."""
        return self._loop.run_until_complete(coroutine)

    async def requested(
        self, method: str, path: str, parts: Sequence[bytes | None] = (b"",), **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """As :meth:`request`, among others."""
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()],
            "client": ("127.0.0.1", 1),
        }
        waiting = list(parts)
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            part = waiting.pop(0) if waiting else SILENCE
            if part is SILENCE:
                await asyncio.sleep(3600)
            if part is None:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": part, "more_body": bool(waiting)}

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        if not sent:
            return 0, {}, b""
        told = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
        return int(sent[0]["status"]), told, b"".join(message.get("body", b"") for message in sent[1:])


@pytest.fixture
def direct(tmp_path: Path) -> Iterator[Direct]:
    caller = Direct(tmp_path / "root")
    yield caller
    caller.close()


def begin(direct: Direct) -> str:
    status, headers, _ = direct.request("POST", "/v2/x/blobs/uploads/")
    assert status == 202
    return headers["location"]


def test_a_silent_client_is_given_up_and_its_upload_is_free(direct: Direct) -> None:
    upload = begin(direct)
    status, _, body = direct.request("PATCH", upload, [b"x" * 10, SILENCE])
    assert status == 408  # and not an hour later
    assert json.loads(body)["errors"][0]["code"] == "SIZE_INVALID"
    assert direct.request("PATCH", upload, [b"y" * 5])[0] == 202
    assert direct.request("GET", upload)[1]["range"] == "0-4"


def test_a_silent_client_that_sends_ranges_goes_on_where_it_came_to(direct: Direct) -> None:
    upload = begin(direct)
    assert direct.request("PATCH", upload, [b"x" * 10, SILENCE], content_range="0-99")[0] == 408
    assert direct.request("GET", upload)[1]["range"] == "0-9"
    assert direct.request("PATCH", upload, [b"x" * 90], content_range="10-99")[0] == 202
    assert direct.request("PUT", f"{upload}?digest={Digest.of(b'x' * 100)}")[0] == 201


def test_a_silent_client_in_one_post_leaves_nothing(direct: Direct) -> None:
    status, _, _ = direct.request("POST", f"/v2/x/blobs/uploads/?digest={Digest.of(b'x')}", [b"x", SILENCE])
    assert status == 408
    assert direct.service.stores.catalog.upload_ids() == set()
    assert list(direct.service.stores.blobs.ingests()) == []


def test_a_silent_client_with_a_manifest(direct: Direct) -> None:
    assert direct.request("PUT", "/v2/x/manifests/t", [b"{", SILENCE])[0] == 408


def test_who_left_gets_no_answer(direct: Direct) -> None:
    assert direct.request("PUT", "/v2/x/manifests/t", [b"{", None]) == (0, {}, b"")
    assert direct.request("PATCH", begin(direct), [b"x", None]) == (0, {}, b"")


@pytest.mark.parametrize("size", [70_000, 3_000_000])
@pytest.mark.parametrize("wanted", [None, "bytes=5-", "nonsense", "bytes=10-69999"])
def test_a_server_that_cannot_send_files(direct: Direct, size: int, wanted: str | None) -> None:
    content = os.urandom(size)
    digest = Digest.of(content)
    assert direct.request("POST", f"/v2/x/blobs/uploads/?digest={digest}", [content])[0] == 201
    headers = {} if wanted is None else {"range": wanted}
    status, told, body = direct.request("GET", f"/v2/x/blobs/{digest}", [b""], **headers)
    if wanted is None or wanted == "nonsense":
        assert (status, body == content) == (200, True)
        assert "content-range" not in told
    else:
        part = content[5:] if wanted == "bytes=5-" else content[10:70_000]
        assert (status, body == part) == (206, True)
    assert told["content-length"] == str(len(body))


def test_a_reader_that_left_is_not_read_for(direct: Direct) -> None:
    content = bytes(20 << 20)
    digest = Digest.of(content)
    assert direct.request("POST", f"/v2/x/blobs/uploads/?digest={digest}", [content])[0] == 201
    status, _, body = direct.request("GET", f"/v2/x/blobs/{digest}", [b"", None])
    assert status == 200
    assert len(body) < len(content)


@pytest.mark.long
def test_memory_for_uploads_is_bounded(direct: Direct) -> None:
    """A batch is written before the one after the next is collected, however fast the client is."""
    held: list[int] = []
    upload = begin(direct)
    service = direct.service
    original = service.executors.run

    async def slow(function: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(function, "__name__", "") == "write_all":
            held.append(sum(len(part) for part in args[0]))
            await asyncio.sleep(0.01)
        return await original(function, *args, **kwargs)

    service.executors.run = slow  # type: ignore[assignment]
    assert direct.request("PATCH", upload, [bytes(100_000)] * 200)[0] == 202
    assert sum(held) == 20_000_000
    assert max(held) <= (1 << 20) + 100_000


def test_a_read_of_the_catalog_that_waits_holds_up_nobody(
    direct: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = direct.service.stores.read_cache
    catalog = open_catalog(direct.service.config.scratch)
    manifest = pushed(catalog, "x")
    catalog.close()
    original, database = reads.manifest, asyncio.Event()

    async def waiting(repository: str, target: str) -> CachedManifest | None:
        await database.wait()
        return await original(repository, target)

    monkeypatch.setattr(reads, "manifest", waiting)

    async def run() -> None:
        head = [asyncio.create_task(direct.requested("HEAD", "/v2/x/manifests/t")) for _ in range(3)]
        status, *_ = await direct.requested("GET", "/v2/")
        assert status == 200
        assert not any(task.done() for task in head)
        head[0].cancel()  # its client has left
        await asyncio.sleep(0)
        database.set()
        for task in head[1:]:
            status, headers, _ = await task
            assert (status, headers["docker-content-digest"]) == (200, str(manifest.digest))
        with pytest.raises(asyncio.CancelledError):
            await head[0]

    direct.run(run())


def test_a_defect_is_a_500_without_its_text(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("the secret /path of SELECT * FROM tags")

    monkeypatch.setattr(direct.service.stores.read_cache, "manifest", broken)
    status, _, body = direct.request("GET", "/v2/x/manifests/t")
    assert status == 500
    assert b"secret" not in body
    assert b"SELECT" not in body


@pytest.mark.long
def test_a_database_that_fails_is_a_500_without_its_text(direct: Direct) -> None:
    path = file_of(direct.service.stores.catalog)
    direct.service.stores.catalog.close()
    for name in (path, path.with_name(path.name + "-wal")):
        name.write_bytes(os.urandom(8192))
    for method, target in [
        ("GET", "/v2/x/tags/list"),
        ("POST", "/v2/x/blobs/uploads/"),
        ("DELETE", "/v2/x/manifests/t"),
    ]:
        status, _, body = direct.request(method, target)
        assert (status, json.loads(body)["errors"][0]["code"]) == (500, "UNKNOWN")
        assert b"catalog.db" not in body
        assert b"database" not in body


def test_every_storage_error_is_told_alike() -> None:
    problem = error_responses.from_error(StorageError("cannot write /srv/secret", hint="look at /srv"))
    assert problem.status == 500
    assert "/srv" not in json.dumps(problem.body())


@pytest.mark.parametrize(
    ("redirect", "status"),
    [
        (RedirectRule(all=True), 307),
        (RedirectRule(networks=(parse_network("127.0.0.0/8"),)), 307),
        (RedirectRule(networks=(parse_network("10.0.0.0/8"),)), 200),
        (RedirectRule(), 200),
    ],
)
def test_clients_that_reach_the_store_are_sent_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redirect: RedirectRule, status: int
) -> None:
    """Only for what is large: the answer would take longer than a small blob."""
    direct = Direct(tmp_path / "root", storage=StorageConfig(redirect=redirect))
    try:
        large, small = (Digest.of(content) for content in (b"x" * 100_000, b"y" * 100))
        for content, digest in ((b"x" * 100_000, large), (b"y" * 100, small)):
            assert direct.request("POST", f"/v2/x/blobs/uploads/?digest={digest}", [content])[0] == 201
        monkeypatch.setattr(
            direct.service.stores.blobs, "redirect", lambda digest: f"https://store.test/{digest}?signed"
        )
        found, headers, body = direct.request("GET", f"/v2/x/blobs/{large}")
        assert found == status
        if status == 307:
            assert (headers["location"], body) == (f"https://store.test/{large}?signed", b"")
        else:
            assert body == b"x" * 100_000
        assert direct.request("HEAD", f"/v2/x/blobs/{large}")[0] == 200
        assert direct.request("GET", f"/v2/x/blobs/{small}")[0::2] == (200, b"y" * 100)
    finally:
        direct.close()


@pytest.mark.long
def test_stale_uploads_are_swept(tmp_path: Path) -> None:
    direct = Direct(tmp_path / "root")
    try:
        old, new = begin(direct), begin(direct)
        for upload in (old, new):
            assert direct.request("PATCH", upload, [b"x" * 10])[0] == 202
        orphan = ingest_file(tmp_path / "root", "orphan")
        orphan.write_bytes(b"left by a killed process")
        os.utime(orphan, (1, 1))
        assert direct.service.upload_sweep.run() == 1  # the orphan
        direct.service.upload_sweep._now = lambda: time.time_ns() // 1000 + 25 * 3600 * 1_000_000
        assert direct.service.upload_sweep.run() == 2
        assert list(direct.service.stores.blobs.ingests()) == []
        assert direct.request("GET", old)[0] == 404
    finally:
        direct.close()


def test_a_sweep_keeps_an_upload_that_goes_on_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = Direct(tmp_path / "root")
    try:
        upload = begin(direct)
        catalog = direct.service.stores.catalog
        stale = catalog.stale_uploads(time.time_ns())
        assert direct.request("PATCH", upload, [b"x" * 10])[0] == 202
        monkeypatch.setattr(catalog, "stale_uploads", lambda _: stale)
        assert direct.service.upload_sweep.run() == 0
        assert direct.request("GET", upload)[0] == 204
    finally:
        direct.close()


def test_cache_is_capped_in_bytes() -> None:
    cache = BytesCache(1000)
    for number in range(20):
        cache.put(str(number), bytes(100))
    cache.put("large", bytes(300))
    assert cache.get("large") is None
    assert [number for number in range(20) if cache.get(str(number)) is not None] == list(range(10, 20))
    cache.get("10")
    cache.put("x", bytes(100))
    assert cache.get("10") is not None
    assert cache.get("11") is None


def test_a_worker_that_cannot_start_says_so() -> None:
    """An error that came through would be taken for an application that has no start."""

    def broken() -> Service:
        raise ValueError("a defect")

    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        said.append(message)

    app = RegistryApp(broken)
    asyncio.run(app({"type": "lifespan"}, receive, send))
    assert said == [{"type": "lifespan.startup.failed", "message": "ValueError('a defect')"}]
