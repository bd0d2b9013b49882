"""Blobs of another registry: one download for all, sent on while it is stored, never whole and wrong."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from digestry.model.digest import Digest
from tests.backends import open_blobs
from tests.client.liar import Reply, Request
from tests.registry.pull_through.support import Upstream, get, get_blob
from tests.registry.support import query
from tests.stores import needs_disk
from tests.support import RegistryServer, wait_until

LARGE = bytes(range(256)) * 6000  # 1.5 MB: most of it is sent before it was verified
HELD_BACK = 64 << 10


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds an upstream's answer back in its middle."""
    event = threading.Event()
    yield event
    event.set()


def gated(hub: Upstream, name: str, gate: threading.Event) -> Digest:
    """A blob whose second half waits."""
    content = name.encode() + LARGE
    digest = hub.blob(name, content)
    hub.troubles[name] = lambda request: Reply(200, content, gate=gate) if request.method == "GET" else None
    return digest


@contextlib.contextmanager
def begun(server: RegistryServer, name: str, digest: Digest) -> Iterator[http.client.HTTPResponse]:
    """The answer to a GET, its body not read; the client leaves at the end of the block."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("GET", f"/v2/{name}/blobs/{digest}")
        with connection.getresponse() as answer:
            yield answer


def linked(server: RegistryServer, digest: Digest) -> bool:
    return bool(query(server, "SELECT 1 FROM links WHERE digest = ?", str(digest)))


def left_behind(server: RegistryServer) -> list[str]:
    """What is on its way in, or said to be."""
    notes = (path.name for path in (server.root / "mirror").glob("*.size"))
    return [*open_blobs(server.root).ingests(), *notes]


@pytest.mark.long
def test_a_client_has_the_beginning_before_upstream_has_sent_the_end(
    mirror: RegistryServer, hub: Upstream, name: str, gate: threading.Event
) -> None:
    digest = gated(hub, name, gate)
    with begun(mirror, f"fresh.test/{name}", digest) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Length"] == str(len(hub.blobs[name, str(digest)]))
        assert answer.headers["Docker-Content-Digest"] == str(digest)
        first = answer.read(len(LARGE) // 3)
        assert not linked(mirror, digest)
        gate.set()
        assert first + answer.read() == hub.blobs[name, str(digest)]
    assert linked(mirror, digest)
    assert left_behind(mirror) == []
    assert get_blob(mirror, f"fresh.test/{name}", digest).body == hub.blobs[name, str(digest)]
    assert hub.asked(name) == [f"GET blobs/{digest}"]


def test_many_clients_of_both_workers_cost_one_download(
    mirror: RegistryServer, hub: Upstream, name: str, gate: threading.Event
) -> None:
    needs_disk(mirror.root)  # over S3 only the worker that fetches has what has come so far
    digest = gated(hub, name, gate)
    with contextlib.ExitStack() as leaving, ThreadPoolExecutor(16) as pool:
        answers = [leaving.enter_context(begun(mirror, f"fresh.test/{name}", digest)) for _ in range(16)]
        beginnings = list(pool.map(lambda answer: answer.read(len(LARGE) // 3), answers))
        gate.set()
        rest = list(pool.map(lambda answer: answer.read(), answers))
    got = {first + second for first, second in zip(beginnings, rest, strict=True)}
    assert got == {hub.blobs[name, str(digest)]}
    assert hub.asked(name) == [f"GET blobs/{digest}"]


@pytest.mark.parametrize("size", [10, HELD_BACK, len(LARGE)])
def test_wrong_bytes_are_never_whole(mirror: RegistryServer, hub: Upstream, name: str, size: int) -> None:
    good = (name.encode() + LARGE)[:size]
    digest = hub.blob(name, good)
    hub.blobs[name, str(digest)] = good[:-1] + b"!"
    here = f"fresh.test/{name}"
    if size <= HELD_BACK:
        answer = get_blob(mirror, here, digest)
        assert (answer.status, answer.code) == (502, "UNKNOWN")
    else:
        with begun(mirror, here, digest) as broken, pytest.raises(http.client.IncompleteRead) as failure:
            broken.read()
        assert len(failure.value.partial) <= size - HELD_BACK
        line = f"mirror fresh.test: content that should be {digest} hashes to"
        wait_until(lambda: line in mirror.log.read_text(), what="the reason in the log")
    assert not linked(mirror, digest)
    assert left_behind(mirror) == []
    hub.blobs[name, str(digest)] = good
    assert get_blob(mirror, here, digest).body == good


def test_a_connection_that_is_broken_on_purpose_has_one_line_in_the_log(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    before = len(mirror.log.read_text())
    digest = hub.blob(name, LARGE)
    hub.blobs[name, str(digest)] = LARGE[:-1] + b"!"
    for _ in range(3):  # Granian writes after the client saw it: what the first left is here at the last
        with begun(mirror, f"fresh.test/{name}", digest) as broken, pytest.raises(http.client.IncompleteRead):
            broken.read()
    log = mirror.log.read_text()[before:]
    told = f"blobs/{digest} is broken off: fresh.test: it sent something else than was requested"
    assert log.count(told) == 3
    assert "Application callable raised" not in log


def breaking(
    content: bytes, times: int, *, ranges: bool = True, chunked: bool = False
) -> tuple[list[str], object]:
    """An upstream whose connection breaks in the middle, so many times; what it was asked for. What is
    ``chunked`` does not say how long the rest is."""
    asked: list[str] = []

    def trouble(request: Request) -> Reply | None:
        if request.method != "GET":
            return None
        wanted = request.headers.get("Range", "")
        asked.append(wanted)
        start = int(wanted[6:-1]) if wanted and ranges else 0
        rest = content[start:]
        said = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        if len(asked) <= times:
            return Reply(206 if start else 200, rest[: len(rest) // 2], said, length=len(rest))
        return Reply(206 if start else 200, rest, said, chunked=chunked)

    return asked, trouble


@pytest.mark.long
@pytest.mark.parametrize(("ranges", "chunked"), [(True, False), (True, True), (False, False), (False, True)])
def test_a_broken_download_goes_on_where_it_was(
    mirror: RegistryServer, hub: Upstream, name: str, ranges: bool, chunked: bool
) -> None:
    content = name.encode() + LARGE
    digest = hub.blob(name, content)
    asked, hub.troubles[name] = breaking(content, 2, ranges=ranges, chunked=chunked)  # type: ignore[assignment]
    assert get_blob(mirror, f"fresh.test/{name}", digest).body == content
    assert asked[0] == ""
    assert asked[1] == f"bytes={len(content) // 2}-"
    assert len(asked) == 3


@pytest.mark.long
def test_a_download_that_goes_on_breaking_is_given_up_and_gone_on_with_later(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    content = name.encode() + LARGE
    digest = hub.blob(name, content)
    half = len(content) // 2
    here = f"trouble0.test/{name}"

    def stuck(request: Request) -> Reply | None:
        if request.headers.get("Range"):
            return Reply(503)
        return Reply(200, content[:half], length=len(content)) if request.method == "GET" else None

    hub.troubles[name] = stuck
    with begun(mirror, here, digest) as answer, pytest.raises(http.client.IncompleteRead):
        answer.read()
    assert not linked(mirror, digest)
    del hub.troubles[name]
    wait_until(lambda: get_blob(mirror, here, digest).status == 200, what="another try")
    assert get_blob(mirror, here, digest).body == content
    assert left_behind(mirror) == []


def test_a_client_that_leaves_does_not_end_the_download(
    mirror: RegistryServer, hub: Upstream, name: str, gate: threading.Event
) -> None:
    digest = gated(hub, name, gate)
    with begun(mirror, f"fresh.test/{name}", digest) as answer:
        answer.read(1000)
    gate.set()
    wait_until(lambda: linked(mirror, digest), what="the blob's link")
    assert hub.asked(name) == [f"GET blobs/{digest}"]


def test_head_is_answered_without_a_download(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    digest = hub.blob(name, LARGE + name.encode())
    answer = get_blob(mirror, f"fresh.test/{name}", digest, "HEAD")
    assert answer.status == 200
    assert answer.headers["content-length"] == str(len(LARGE) + len(name))
    assert hub.asked(name) == [f"HEAD blobs/{digest}"]
    assert not linked(mirror, digest)


def test_ranges_of_what_is_coming_in(
    mirror: RegistryServer, hub: Upstream, name: str, gate: threading.Event
) -> None:
    needs_disk(mirror.root)  # over S3 the other worker would wait for the end
    digest = gated(hub, name, gate)
    content = hub.blobs[name, str(digest)]
    here = f"fresh.test/{name}"
    # One client stays: a download that nobody waits for is given up with the next bytes.
    with begun(mirror, here, digest) as whole:
        answer = get_blob(mirror, here, digest, Range="bytes=100-199")
        assert (answer.status, answer.body) == (206, content[100:200])
        assert answer.headers["content-range"] == f"bytes 100-199/{len(content)}"
        assert get_blob(mirror, here, digest, Range=f"bytes={len(content)}-").status == 416
        several = get_blob(mirror, here, digest, Range="bytes=1000-1009,10-19")
        assert (several.status, several.headers["content-length"]) == (206, str(len(several.body)))
        assert several.body.index(content[1000:1010]) < several.body.index(content[10:20])
        with ThreadPoolExecutor(1) as pool:
            end = pool.submit(get_blob, mirror, here, digest, Range="bytes=-10")
            gate.set()
            assert end.result().body == content[-10:]
        assert whole.read() == content
    # Who comes between the last byte and the commit may have the upstream asked whether it has the blob.
    assert [asked for asked in hub.asked(name) if asked.startswith("GET ")] == [f"GET blobs/{digest}"]


def test_what_upstream_does_not_have_in_that_repository(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    elsewhere = mirror.push_blob("own-things", b"secret " + name.encode())
    for method in ("GET", "HEAD"):
        assert get_blob(mirror, f"fresh.test/{name}", elsewhere, method).status == 404
    assert get_blob(mirror, f"fresh.test/{name}", elsewhere).code == "BLOB_UNKNOWN"


def test_content_that_is_here_already_is_not_fetched_again(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    content = LARGE + name.encode()
    mirror.push_blob("own-things", content)
    digest = hub.blob(name, content)
    assert get_blob(mirror, f"fresh.test/{name}", digest).body == content
    assert hub.asked(name) == [f"HEAD blobs/{digest}"]


def test_an_upstream_that_does_not_say_how_much_comes(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    content = LARGE + name.encode()
    digest = hub.blob(name, content)
    hub.troubles[name] = lambda _: Reply(200, content, chunked=True)
    assert get_blob(mirror, f"fresh.test/{name}", digest).body == content


@pytest.mark.parametrize("more", [1, 100_000])
def test_more_than_was_declared(mirror: RegistryServer, hub: Upstream, name: str, more: int) -> None:
    content = LARGE + name.encode()
    digest = hub.blob(name, content)
    hub.troubles[name] = lambda _: Reply(200, content + b"x" * more, length=len(content) + more)
    with (
        begun(mirror, f"fresh.test/{name}", digest) as answer,
        pytest.raises(http.client.IncompleteRead),
    ):
        answer.read()
    assert not linked(mirror, digest)


def test_a_whole_image_is_pulled(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    hub.image(name, "1", layer=LARGE)
    here = f"fresh.test/{name}"
    manifest = get(mirror, here, "1").json()
    for part in (manifest["config"], *manifest["layers"]):
        assert len(get_blob(mirror, here, Digest.parse(part["digest"])).body) == part["size"]
