"""A registry that is read-only: it is read as ever, and nothing that is stored changes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.model.digest import Digest
from digestry.registry.config import RegistryConfig
from digestry.registry.jobs import jobs
from tests.registry.access.support import PASSWORDS, basic, bearer, htpasswd, nobody, token
from tests.registry.pull_through.support import get, get_blob, mirroring, upstream
from tests.registry.support import Upload, events, query
from tests.support import RegistryServer, start_registry

SHORT = (
    "read-only = true\n[limits]\nupload-idle-seconds = 1\n[collection]\nevery = 1\nlease = 1\nuntagged = 0\n"
)


def stored(root: Path) -> dict[str, bytes]:
    """All content, and what came of uploads."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for part in ("blobs", "ingest")
        for path in (root / part).rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """It took an image, a blob that nothing needs and half an upload; then it was served read-only."""
    directory = tmp_path_factory.mktemp("read-only")
    first = start_registry(directory / "root")
    try:
        assert nobody(first).push_image("a/b", "1").status == 201
        first.push_blob("a/b", b"of no manifest")
        assert Upload.begin(first, "a/b").patch(b"half").status == 202
    finally:
        first.stop()
    (directory / "registry.toml").write_text(SHORT)
    server = start_registry(directory / "root", "--config", str(directory / "registry.toml"))
    try:
        yield server
    finally:
        server.stop()


@pytest.mark.long
def test_nothing_changes(server: RegistryServer) -> None:
    upload = str(query(server, "SELECT id FROM uploads")[0][0])
    before, journal = stored(server.root), events(server, "a/b")
    digest, other = journal[0]["toDigest"], Digest.of(b"other")
    for method, path in (
        ("POST", "/v2/a/b/blobs/uploads/"),
        ("POST", f"/v2/a/c/blobs/uploads/?mount={Digest.of(b'layer')}&from=a/b"),
        ("POST", f"/v2/a/b/blobs/uploads/?digest={other}"),
        ("PATCH", f"/v2/a/b/blobs/uploads/{upload}"),
        ("PUT", f"/v2/a/b/blobs/uploads/{upload}?digest={other}"),
        ("DELETE", f"/v2/a/b/blobs/uploads/{upload}"),
        ("PUT", "/v2/a/b/manifests/2"),
        ("DELETE", "/v2/a/b/manifests/1"),
        ("DELETE", f"/v2/a/b/manifests/{digest}"),
        ("DELETE", f"/v2/a/b/blobs/{Digest.of(b'layer')}"),
        ("POST", f"/v2/a/b/_digestry/restore/1?to={digest}"),
        ("POST", "/v2/_digestry/sightings"),
        ("BREW", "/v2/a/b/manifests/1"),
    ):
        answer = server.request(method, path, b"other")
        assert (answer.status, answer.code, answer.headers["allow"]) == (405, "UNSUPPORTED", "GET, HEAD"), (
            path
        )
        assert "read-only" in answer.json()["errors"][0]["message"]
    time.sleep(2.5)  # the collection and the uploads' timeout would have come by now
    assert (stored(server.root), events(server, "a/b")) == (before, journal)


def test_everything_is_read(server: RegistryServer) -> None:
    digest = events(server, "a/b")[0]["toDigest"]
    assert get(server, "a/b", "1").headers["docker-content-digest"] == digest
    assert get(server, "a/b", digest, "HEAD").status == 200
    assert get_blob(server, "a/b", Digest.of(b"layer")).body == b"layer"
    assert server.request("GET", "/v2/a/b/_oci/tag-history/1").status == 200
    asked = server.request("POST", "/v2/_digestry/resolve", b"{}")
    assert asked.status != 405


def test_logins_work(tmp_path: Path) -> None:
    (tmp_path / "users").write_text(htpasswd(PASSWORDS))
    (tmp_path / "registry.toml").write_text('read-only = true\n[auth]\nhtpasswd = "users"\n')
    server = start_registry(tmp_path / "root", "--config", str(tmp_path / "registry.toml"))
    try:
        given = token(server, "repository:a/b:pull,push", headers=basic("alice"))["token"]
        assert get(server, "a/b", "1", **bearer(given)).status == 404
        assert server.request("POST", "/v2/a/b/blobs/uploads/", headers=bearer(given)).status == 405
        assert server.request("POST", "/token", b"grant_type=password").status == 401
    finally:
        server.stop()


def test_no_job_removes(tmp_path: Path) -> None:
    names = {job.name for job in jobs(RegistryConfig(tmp_path))}
    assert names - {job.name for job in jobs(RegistryConfig(tmp_path, read_only=True))} == {
        "collection",
        "fleet upkeep",
        "identity",
        "log",
    }


@pytest.mark.long
def test_a_mirror_serves_what_it_has(tmp_path: Path) -> None:
    with upstream() as hub:
        table = f'[mirror."hub.test"]\nurl = "{hub.url}"\ntag-ttl = 0\n'
        digest = hub.image("x/y", "1")
        with mirroring(tmp_path, table) as server:
            assert get(server, "hub.test/x/y", "1").status == 200
        asked = len(hub.asked("x/y"))
        hub.image("x/y", "1", layer=b"another")
        with mirroring(tmp_path, "read-only = true\n" + table) as server:
            assert get(server, "hub.test/x/y", "1").headers["docker-content-digest"] == str(digest)
            assert get(server, "hub.test/x/z", "1").status == 404
            assert len(hub.asked("x/y")) == asked
