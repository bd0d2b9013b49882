"""Downloads that end early: by their clients' leave, by a full disk, by the end of a process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from digestry.blobs.disk_ingest import DiskIngest
from digestry.blobs.protocols import FullSpeed
from digestry.errors import ContentError, RemoteNotFound, StorageError
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from digestry.model.tag_check import TagCheck
from digestry.registry.config import RegistryConfig
from digestry.registry.lifecycle import Lifecycle
from digestry.registry.pull_through.config import MirrorConfig
from digestry.registry.pull_through.mirror import UpstreamRepository
from digestry.registry.resources import upstream_blobs as blobs
from digestry.registry.resources import upstream_download as download
from digestry.registry.resources.upstream_download import Abandoned, Download
from digestry.registry.server import prepare
from digestry.registry.service import open_service
from tests.backends import open_blobs
from tests.client.liar import Reply
from tests.registry.pull_through.support import Upstream, get, get_blob, mirroring, moves
from tests.stores import arrived, needs_disk
from tests.support import start_registry, wait_until

CONTENT = os.urandom(3 << 20)
DIGEST = Digest.of(CONTENT)


class Stream:
    """A blob that comes in slowly."""

    def __init__(self, start: int, pace: threading.Semaphore) -> None:
        self.start = start
        self.size: int | None = len(CONTENT)
        self._position = start
        self._pace = pace

    def read(self, count: int) -> bytes:
        self._pace.acquire()
        part = CONTENT[self._position : self._position + min(count, 256 << 10)]
        self._position += len(part)
        return part


class Slow:
    """An upstream with one blob, which comes a part at a time, as ``pace`` is released."""

    def __init__(self) -> None:
        self.pace = threading.Semaphore(0)
        self.starts: list[int] = []

    @contextlib.contextmanager
    def blob(self, repository: str, digest: Digest, start: int) -> Iterator[Stream]:
        self.starts.append(start)
        yield Stream(start, self.pace)

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        return len(CONTENT)

    def resolve(self, repository: str, target: str, limit: int) -> Descriptor:
        raise RemoteNotFound("no", status=404)

    def manifest(self, repository: str, target: str, limit: int) -> Manifest:
        raise RemoteNotFound("no", status=404)

    def check(self, repository: str, tag: str, etag: str, limit: int) -> TagCheck:
        raise RemoteNotFound("no", status=404)

    def tags(self, repository: str, most: int, pace: Callable[[], None] | None = None) -> Sequence[str]:
        return ()

    def staleness(self, repository: str, target: str) -> str:
        return ""

    def referrers(self, repository: str, digest: Digest) -> Sequence[Descriptor]:
        return ()

    def close(self) -> None:
        self.pace.release(1000)


@contextlib.asynccontextmanager
async def serving(root: Path, upstream: Slow) -> Any:
    """A registry's inside and a repository of its mirror."""
    config = RegistryConfig(root, mirrors=(MirrorConfig("a.test", "http://a.test", "a.test"),))
    prepare(config)
    service = open_service(config, make_upstream=lambda _: upstream)
    life = Lifecycle(service)
    life.start()
    assert service.mirrors is not None
    try:
        yield service, UpstreamRepository(service.mirrors.all[0], "a.test/x", "x", "a.test/x")
    finally:
        upstream.pace.release(1000)
        await life.stop()


async def begun(upstream: Slow, coming: Download) -> None:
    """Until half a megabyte of it is here, and no more comes."""
    upstream.pace.release(2)
    while coming.arrived < 512 << 10:
        await coming.changed()


async def ended(coming: Download) -> None:
    while not coming.ended:
        await coming.changed()


def test_a_large_download_that_nobody_waits_for_stops_and_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "FINISHED_ANYWAY", 1 << 20)

    async def run() -> None:
        upstream = Slow()
        async with serving(tmp_path / "root", upstream) as (service, place):
            async with blobs._joined(service, place, DIGEST) as first:
                await begun(upstream, first)
            upstream.pace.release(1)
            await ended(first)
            assert isinstance(first.error, Abandoned)
            upstream.pace.release(1000)
            async with blobs._joined(service, place, DIGEST) as second:
                assert second is not first
                await ended(second)
                assert second.linked
            assert upstream.starts in ([0, 512 << 10], [0, 768 << 10])
            found = await service.stores.read_cache.blob("a.test/x", str(DIGEST))
            assert found is not None
            assert found.size == len(CONTENT)
            assert service.stores.blobs.verify(DIGEST, len(CONTENT), FullSpeed()).problem is None

    asyncio.run(run())


def test_a_download_with_little_left_is_finished_without_clients(tmp_path: Path) -> None:
    async def run() -> None:
        upstream = Slow()
        async with serving(tmp_path / "root", upstream) as (service, place):
            async with blobs._joined(service, place, DIGEST) as coming:
                upstream.pace.release(1)
                await coming.changed()
            upstream.pace.release(1000)
            await ended(coming)
            assert coming.linked
            assert await service.stores.read_cache.blob("a.test/x", str(DIGEST)) is not None

    asyncio.run(run())


def test_a_download_that_trickles_stops_when_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "FINISHED_WITHIN", 0.0)

    async def run() -> None:
        upstream = Slow()
        async with serving(tmp_path / "root", upstream) as (service, place):
            async with blobs._joined(service, place, DIGEST) as coming:
                await begun(upstream, coming)
            upstream.pace.release(1)
            await ended(coming)
            assert isinstance(coming.error, Abandoned)
            async with blobs._joined(service, place, DIGEST) as coming:
                upstream.pace.release(1000)
                await ended(coming)
                assert coming.linked
            assert len(upstream.starts) == 2
            assert upstream.starts[1] >= 512 << 10  # on from where it was

    asyncio.run(run())


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_disk(tmp_path)
    write = DiskIngest.write

    def full(self: DiskIngest, chunk: Any) -> None:
        if self.offset > 1 << 20:
            raise StorageError(os.strerror(errno.ENOSPC))
        write(self, chunk)

    monkeypatch.setattr(DiskIngest, "write", full)

    async def run() -> None:
        upstream = Slow()
        async with serving(tmp_path / "root", upstream) as (service, place):
            upstream.pace.release(1000)
            async with blobs._joined(service, place, DIGEST) as coming:
                await ended(coming)
            assert isinstance(coming.error, StorageError)
            assert coming.ready < len(CONTENT)
            assert list((tmp_path / "root" / "ingest").iterdir()) == []
            assert await service.stores.read_cache.blob("a.test/x", str(DIGEST)) is None

    asyncio.run(run())


@pytest.mark.long
def test_a_killed_server_goes_on_where_it_was(tmp_path: Path, hub: Upstream, name: str) -> None:
    needs_disk(tmp_path / "server")  # its file is looked at
    content = name.encode() + CONTENT
    digest = hub.blob(name, content)
    gate = threading.Event()
    hub.troubles[name] = lambda request: (
        None if "Range" in request.headers else Reply(200, content, gate=gate)
    )
    configuration = f'[mirror."a.test"]\nurl = "{hub.url}"\n'
    with mirroring(tmp_path / "server", configuration) as server:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as client:
            client.request("GET", f"/v2/a.test/{name}/blobs/{digest}")
            with client.getresponse() as answer:
                answer.read(1 << 20)
                server.kill()
        gate.set()
        (left,) = [name for name in open_blobs(server.root).ingests() if name.startswith("mirror-")]
        came = arrived(server.root, left)
        assert came >= 1 << 20
        again = start_registry(server.root, "--config", str(tmp_path / "server" / "registry.toml"))
        try:
            assert get_blob(again, f"a.test/{name}", digest).body == content
        finally:
            again.stop()
    ranges = [request.headers.get("Range") for request in hub.liar.seen if request.path.endswith(str(digest))]
    assert ranges == [None, f"bytes={came}-"]


@pytest.mark.long
def test_another_worker_takes_over_when_one_is_killed(tmp_path: Path, hub: Upstream, name: str) -> None:
    needs_disk(tmp_path / "server")  # over S3 the other worker has nothing before the end
    content = name.encode() + CONTENT
    digest = hub.blob(name, content)
    gate = threading.Event()
    hub.troubles[name] = lambda request: (
        None if "Range" in request.headers else Reply(200, content, gate=gate)
    )
    configuration = f'workers = 2\n[mirror."a.test"]\nurl = "{hub.url}"\n'
    with mirroring(tmp_path / "server", configuration) as server, contextlib.ExitStack() as leaving:
        answers: list[http.client.HTTPResponse] = []
        # One worker may begin later than the other: a request's ID begins with its worker's name.
        while len({answer.headers["x-request-id"].partition("-")[0] for answer in answers}) < 2:
            assert len(answers) < 1000
            client = leaving.enter_context(
                contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60))
            )
            client.request("GET", f"/v2/a.test/{name}/blobs/{digest}")
            answers.append(leaving.enter_context(client.getresponse()))
        beginnings = [answer.read(1 << 20) for answer in answers]
        (left,) = [path for path in (needs_disk(server.root) / "ingest").iterdir() if "mirror-" in path.name]
        _kill_who_writes(left)
        whole = 0
        for first, answer in zip(beginnings, answers, strict=True):
            with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
                assert first + answer.read() == content
                whole += 1
        gate.set()
        wait_until(lambda: get_blob(server, f"a.test/{name}", digest).body == content, what="a pull")
    assert 0 < whole < len(answers)


def _kill_who_writes(path: Path) -> None:
    """SIGKILL to the process that has ``path`` open for writing."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                for descriptor in (process / "fd").iterdir():
                    flags = int(
                        (process / "fdinfo" / descriptor.name).read_text().split("flags:")[1].split()[0], 8
                    )
                    if descriptor.readlink() == path and flags & (os.O_RDWR | os.O_WRONLY):
                        os.kill(int(process.name), 9)
                        return
    pytest.fail(f"nobody writes {path}")


@pytest.mark.long
def test_metrics_tell_of_it(tmp_path: Path, hub: Upstream, name: str) -> None:
    digest = hub.blob(name, CONTENT)
    with mirroring(tmp_path / "server", f'[mirror."a.test"]\nurl = "{hub.url}"\n') as server:
        for _ in range(3):
            assert get_blob(server, f"a.test/{name}", digest).status == 200
        told = server.request("GET", "/metrics").body.decode()
    lines = [line for line in told.splitlines() if line.startswith("digestry_mirror")]
    assert 'digestry_mirror_fetched_bytes_total{upstream="a.test"} 3.145728e+06' in lines
    assert 'digestry_mirror_answers_total{from="hit",upstream="a.test"} 2.0' in lines


class Wrong(Slow):
    """The same, with wrong bytes."""

    @contextlib.contextmanager
    def blob(self, repository: str, digest: Digest, start: int) -> Iterator[Stream]:
        with super().blob(repository, digest, start) as stream:
            honest = stream.read
            stream.read = lambda count: bytes(len(honest(count)))  # type: ignore[method-assign]
            yield stream


@pytest.mark.long
def test_who_has_the_beginning_of_wrong_bytes_never_gets_the_end_of_right_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_disk(tmp_path / "root")  # over S3 nobody else is sent the beginning

    async def run() -> None:
        wrong, right = Wrong(), Slow()
        async with (
            serving(tmp_path / "root", wrong) as (first, its_place),
            serving(tmp_path / "root", right) as (second, second_place),
            serving(tmp_path / "root", right) as (third, third_place),
            blobs._joined(first, its_place, DIGEST) as bad,
            contextlib.AsyncExitStack() as leaving,
        ):
            wrong.pace.release(4)
            while bad.arrived < 1 << 20:
                await bad.changed()
            # Another process's clients are sent what comes in ...
            follower = await leaving.enter_async_context(blobs._joined(second, second_place, DIGEST))
            while follower.ready == 0:
                await follower.changed()
            # ... it looks away while that is thrown away, and a third one gets the right bytes.
            monkeypatch.setattr(download, "_POLL", 1.0)
            await asyncio.sleep(0.1)
            wrong.pace.release(1000)
            await ended(bad)
            assert isinstance(bad.error, ContentError)
            right.pace.release(1000)
            good = await leaving.enter_async_context(blobs._joined(third, third_place, DIGEST))
            await ended(good)
            assert good.linked
            await ended(follower)
            assert not follower.linked
            assert follower.ready < len(CONTENT)

    asyncio.run(run())


@pytest.mark.long
def test_a_tag_that_was_here_before_the_mirror_is_not_taken_away(
    tmp_path: Path, hub: Upstream, name: str
) -> None:
    server = start_registry(tmp_path / "root")
    try:
        digest = server.push_image(f"a.test/{name}", "own")
    finally:
        server.stop()
    file = tmp_path / "registry.toml"
    file.write_text(f'[mirror."a.test"]\nurl = "{hub.url}"\n')
    server = start_registry(tmp_path / "root", "--config", str(file))
    try:
        assert get(server, f"a.test/{name}", "own").headers["docker-content-digest"] == str(digest)
        assert [event for event, *_ in moves(server, f"a.test/{name}", "own")] == ["created"]
    finally:
        server.stop()
