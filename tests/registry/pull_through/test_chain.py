"""A mirror as one link of a chain: other caches before it, projects of other registries behind it."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from digestry.model.digest import Digest
from tests.client.liar import Reply, Request
from tests.registry.pull_through.support import KIND, Upstream, get, get_blob, mirroring, state, upstream
from tests.support import PATIENCE, RegistryServer, free_port, program, wait_until


@pytest.fixture(scope="module")
def hub() -> Iterator[Upstream]:
    with upstream() as made:
        yield made


@pytest.fixture(scope="module")
def chained(hub: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    tables = (
        f'[mirror."docker.io"]\nurl = "{hub.url}/hub-cache"\ndefault = true\ntag-ttl = 0\n'
        f'[mirror."quay.test"]\nurl = "{hub.url}/below/v2/quay/cache"\ntag-ttl = 0\n'
        f'[mirror."plain.test"]\nurl = "{hub.url}"\ntag-ttl = 0\n'
        "[limits]\nupload = 1000000\n"
    )
    with mirroring(tmp_path_factory.mktemp("chained") / "mirror", tables) as server:
        yield server


# -- HEAD and GET of a blob that is not here -------------------------------------------------------


def refusing(status: int) -> Callable[[Request], Reply | None]:
    return lambda request: Reply(status) if request.method == "HEAD" else None


HEADS: dict[str, Callable[[Request], Reply | None]] = {
    "honest": lambda _: None,
    **{f"{status}": refusing(status) for status in (400, 401, 403, 404, 405, 500, 501)},
    "no length": lambda request: (
        Reply(200, b"", {"Content-Length": "0"}) if request.method == "HEAD" else None
    ),
    "chunked": lambda request: (
        Reply(200, b"", {"Transfer-Encoding": "chunked"}) if request.method == "HEAD" else None
    ),
}


@pytest.mark.parametrize("prefix", ["plain.test/", ""], ids=["by prefix", "by default"])
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("size", [0, 1, 70_000, 2_000_000])
def test_head_says_what_get_would(  # noqa: PLR0917 - a test
    chained: RegistryServer,
    hub: Upstream,
    name: str,
    prefix: str,
    head: Callable[[Request], Reply | None],
    size: int,
) -> None:
    there = name if prefix else f"hub-cache/{name}"
    hub.troubles[there] = lambda request: head(request) if "/blobs/" in request.path else None
    content = (name.encode() + bytes(size))[:size]
    digest = hub.blob(there, content)
    before = get_blob(chained, prefix + name, digest, "HEAD")
    whole = get_blob(chained, prefix + name, digest)
    after = get_blob(chained, prefix + name, digest, "HEAD")
    assert before.status == whole.status == (200 if size <= 1_000_000 else 413)
    assert before.body == b""
    if before.status == 200:
        assert whole.body == content
        both = ("content-length", "content-type", "docker-content-digest", "etag", "accept-ranges")
        assert [before.headers[key] for key in both] == [whole.headers[key] for key in both]
        assert [after.headers[key] for key in both] == [whole.headers[key] for key in both]
    nobodys = Digest.of(b"nobody has " + name.encode())
    assert [get_blob(chained, prefix + name, nobodys, method).status for method in ("HEAD", "GET")] == [
        404
    ] * 2


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("size", [0, 1, 100, 70_000, 300_000])
@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-", 0, None),
        ("bytes=-1", -1, None),
        ("bytes=50-60", 50, 60),
        ("bytes=-999999", 0, None),
        ("bytes=99-999999", 99, None),
    ],
)
def test_ranges(
    chained: RegistryServer,
    hub: Upstream,
    name: str,
    *,
    cached: bool,
    size: int,
    header: str,
    first: int,
    last: int | None,
) -> None:
    content = (name.encode() * (1 + size // len(name)))[:size]
    digest = hub.blob(name, content)
    here = f"plain.test/{name}"
    if cached:
        assert get_blob(chained, here, digest).body == content
    answer = get_blob(chained, here, digest, Range=header)
    begin = size + first if first < 0 else first
    if 0 <= begin < size:
        end = size - 1 if last is None else min(last, size - 1)
        assert (answer.status, answer.body) == (206, content[begin : end + 1])
        assert answer.headers["content-range"] == f"bytes {begin}-{end}/{size}"
    elif first < 0 or header == "bytes=-999999":
        assert (answer.status, answer.body) == (200, b"")  # the end of nothing
    else:
        assert answer.status == 416
        assert answer.headers["content-range"] == f"bytes */{size}"


def test_several_ranges_of_what_is_not_here(chained: RegistryServer, hub: Upstream, name: str) -> None:
    content = name.encode() * 10_000
    digest = hub.blob(name, content)
    answers = [
        get_blob(chained, f"plain.test/{name}", digest, Range="bytes=100-109,50000-50009") for _ in range(2)
    ]
    for answer in answers:
        assert answer.status == 206
        assert answer.headers["content-type"].startswith("multipart/byteranges; boundary=")
        assert content[100:110] in answer.body
        assert content[50000:50010] in answer.body
        assert len(answer.body) == int(answer.headers["content-length"]) < 1000


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    ["docker.io", "index.docker.io", "registry-1.docker.io", "Docker.IO", "docker.io.", "docker.io:443"],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_one_registry_has_several_names(
    chained: RegistryServer, hub: Upstream, query: str, method: str
) -> None:
    digest = hub.image("hub-cache/library/named", "1")
    answer = chained.request(method, f"/v2/library/named/manifests/1?ns={query}")
    assert answer.headers["docker-content-digest"] == str(digest)
    answer = chained.request(method, f"/v2/library/named/manifests/1?ns=other.{query}")
    assert answer.status == 404


@pytest.mark.parametrize("prefix", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_prefixes_are_names_too(chained: RegistryServer, hub: Upstream, prefix: str) -> None:
    digest = hub.image("hub-cache/library/prefixed", "1")
    for name in (f"{prefix}/library/prefixed", f"{prefix}/prefixed"):
        assert get(chained, name, "1").headers["docker-content-digest"] == str(digest)
        entries = chained.request("GET", f"/v2/{name}/_digestry/journal?tag=1").json()["entries"]
        assert [entry["toDigest"] for entry in entries] == [str(digest)]
    assert chained.request("POST", f"/v2/{prefix}/library/prefixed/blobs/uploads/").status == 405


# -- a project of another registry's ---------------------------------------------------------------


@contextlib.contextmanager
def project(hub: Upstream) -> Iterator[list[str]]:
    """The scopes that tokens were asked for, of a registry whose projects want one each."""
    scopes: list[str] = []

    def answer(request: Request) -> Reply:
        if request.path == "/service/token":
            scopes.extend(request.query["scope"])
            return Reply(200, json.dumps({"token": request.query["scope"][0]}).encode())
        name = request.path.removeprefix("/v2/").partition("/manifests/")[0].partition("/tags/")[0]
        name = name.partition("/blobs/")[0]
        if request.headers.get("Authorization") != f"Bearer repository:{name}:pull":
            realm = f'Bearer realm="{hub.url}/service/token",service="harbor"'
            return Reply(401, b"{}", {"WWW-Authenticate": realm})
        if "/tags/" in request.path and "last" not in request.query:
            link = f'</v2/{name}/tags/list?last=1&n=1>; rel="next"'
            return Reply(200, json.dumps({"name": name, "tags": ["1"]}).encode(), {"Link": link})
        return honest(request)

    honest, hub.liar.answer = hub.liar.answer, answer
    try:
        yield scopes
    finally:
        hub.liar.answer = honest


def test_a_project_is_asked_by_its_own_names(chained: RegistryServer, hub: Upstream, name: str) -> None:
    there = f"hub-cache/{name}"
    digest = hub.image(there, "1", "2", layer=b"layer of " + name.encode())
    layer = Digest.of(b"layer of " + name.encode())
    with project(hub) as scopes:
        for here in (name, f"docker.io/{name}"):
            assert get(chained, here, "1").headers["docker-content-digest"] == str(digest)
            assert get_blob(chained, here, layer).body == b"layer of " + name.encode()
            listed = chained.request("GET", f"/v2/{here}/tags/list")
            assert listed.json() == {"name": here, "tags": ["1", "2"]}
            assert "hub-cache" not in f"{listed.headers}{get(chained, here, '1').headers}"
        assert set(scopes) == {f"repository:{there}:pull"}


def test_a_registry_may_be_below_a_path(chained: RegistryServer, hub: Upstream) -> None:
    digest = Digest.of(b"{}")
    asked: list[str] = []

    def answer(request: Request) -> Reply:
        asked.append(request.path)
        return Reply(200, b"{}")

    honest, hub.liar.answer = hub.liar.answer, answer
    try:
        assert get_blob(chained, "quay.test/a/b", digest).body == b"{}"
    finally:
        hub.liar.answer = honest
    assert asked == [f"/below/v2/quay/cache/a/b/blobs/{digest}"]


# -- real ones -------------------------------------------------------------------------------------


@pytest.mark.peer("docker-registry")
def test_dockers_registry_as_a_cache_in_front(
    chained: RegistryServer, hub: Upstream, name: str, tmp_path: Path
) -> None:
    content = b"layer of " + name.encode()
    digest = hub.image(f"hub-cache/{name}", "1", layer=content)
    port = free_port()
    config = tmp_path / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {tmp_path / 'data'}}}}}\n"
        f'http: {{addr: "127.0.0.1:{port}"}}\nproxy: {{remoteurl: "http://{chained.host}"}}\n'
    )
    process = subprocess.Popen(
        [program("docker-registry"), "serve", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        raw = _fetched(port, f"/v2/{name}/manifests/1")
        assert Digest.of(raw) == digest
        layer = json.loads(raw)["layers"][0]["digest"]
        assert _fetched(port, f"/v2/{name}/blobs/{layer}") == content
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _read(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers={"Accept": KIND})
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content
        return content
    finally:
        connection.close()


def _fetched(port: int, path: str) -> bytes:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return _read(port, path)
        except ConnectionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


@pytest.mark.long
def test_digestry_behind_digestry(chained: RegistryServer, hub: Upstream, name: str, tmp_path: Path) -> None:
    digest = hub.image(f"hub-cache/{name}", "1", layer=b"layer of " + name.encode())
    table = f'[mirror."docker.io"]\nurl = "http://{chained.host}"\ndefault = true'
    with mirroring(tmp_path / "second", table) as server:
        # Other tests' upstream sent what cannot be used: it may be left alone for some seconds.
        wait_until(lambda: get(server, name, "1").status == 200, what="the upstream's tag")
        answer = get(server, name, "1")
        assert answer.headers["docker-content-digest"] == str(digest)
        layer = json.loads(answer.body)["layers"][0]
        head = get_blob(server, name, Digest.parse(layer["digest"]), "HEAD")
        assert (head.status, head.headers["content-length"]) == (200, str(layer["size"]))
        assert get_blob(server, name, Digest.parse(layer["digest"])).body == b"layer of " + name.encode()


@pytest.mark.long
def test_what_a_mirror_behind_says_of_its_own_upstream_is_told(
    hub: Upstream, name: str, tmp_path: Path
) -> None:
    digest = hub.image(name, "1")
    first = f'[mirror."a.test"]\nurl = "{hub.url}"\ntag-ttl = 0'
    with mirroring(tmp_path / "first", first) as inner:
        second = (
            f'[mirror."b.test"]\nurl = "http://{inner.host}/a.test"\ntag-ttl = 0\n'
            f'[mirror."kept.test"]\nurl = "http://{inner.host}/a.test"\ntag-ttl = "1h"\n'
        )
        with mirroring(tmp_path / "second", second) as outer:
            assert state(get(outer, f"b.test/{name}", "1")) == "current"
            hub.troubles[name] = lambda _: Reply(403, b"{}")
            for host in ("b.test", "kept.test", "kept.test"):
                answer = get(outer, f"{host}/{name}", "1")
                assert answer.headers["docker-content-digest"] == str(digest)
                assert state(answer) == "refused"
            del hub.troubles[name]
            assert state(get(outer, f"b.test/{name}", "1")) == "current"
