"""Answers whose fields have the wrong types: each ends as an error of digestry's own, or is read; none as a
defect."""

from __future__ import annotations

import datetime
import io
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from digestry.client.credentials import DockerCredentials
from digestry.client.options import ClientOptions
from digestry.client.registry import Registry
from digestry.client.repository import Repository
from digestry.client.session import Session
from digestry.errors import DigestryError, InvalidDigest, InvalidReference, TooLarge
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.digest_prefix import DigestPrefix
from digestry.model.history import TAG_EVENT, TAG_TIMESTAMP
from digestry.model.image_config import ImageConfig
from digestry.model.reference import Reference
from digestry.model.resolution import ResolveQuery
from digestry.model.sightings import SightingReport
from tests.client.liar import Liar, Reply, Request
from tests.client.test_hostile import always
from tests.support import PATIENCE
from tests.typefuzz import SAMPLED, mutations

DIGEST = Digest.of(b"x")
AT = "2026-01-02T03:04:05.123456789Z"
MOMENT = datetime.datetime(2026, 2, 1, tzinfo=datetime.UTC)
DESCRIPTOR = {
    "mediaType": media_types.OCI_MANIFEST,
    "digest": str(DIGEST),
    "size": 1,
    "urls": ["https://a.example"],
    "annotations": {TAG_TIMESTAMP: AT, TAG_EVENT: "created"},
    "data": "eA==",
    "platform": {
        "architecture": "arm",
        "os": "windows",
        "variant": "v7",
        "os.version": "10.0.20348.1",
        "os.features": ["win32k"],
    },
    "artifactType": "a/b",
}
MANIFEST = {
    "schemaVersion": 2,
    "mediaType": media_types.OCI_MANIFEST,
    "config": {"mediaType": media_types.OCI_CONFIG, "digest": str(DIGEST), "size": 1},
    "layers": [{"mediaType": media_types.OCI_LAYER, "digest": str(DIGEST), "size": 1}],
    "subject": {"mediaType": media_types.OCI_MANIFEST, "digest": str(DIGEST), "size": 1},
    "annotations": {"a": "b"},
}
INDEX = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [DESCRIPTOR], "annotations": {}}
CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "variant": "v1",
    "os.version": "1",
    "created": AT,
    "config": {"Env": ["A=b"], "Cmd": ["/x"], "Labels": {"a": "b"}},
    "rootfs": {"type": "layers", "diff_ids": [str(DIGEST)]},
    "history": [{"created": AT, "created_by": "x", "comment": "", "empty_layer": True}],
}
EVENT = {
    "at": AT,
    "repository": "a",
    "tag": "1",
    "event": "moved",
    "fromDigest": str(DIGEST),
    "toDigest": str(DIGEST),
    "mediaType": media_types.OCI_MANIFEST,
    "size": 1,
    "actor": "ann",
    "sequence": 1,
    "previousHash": "",
    "hash": "",
}
SPAN = {
    "tag": "1",
    "digest": str(DIGEST),
    "since": AT,
    "still": False,
    "until": AT,
    "mediaType": media_types.OCI_MANIFEST,
    "size": 1,
    "sequence": 1,
    "repository": "a",
}
EXTENSIONS = [
    "_digestry/whose/<digest>",
    "_digestry/holders/<digest>",
    "_digestry/digests/<prefix>",
    "_digestry/resolve",
    "_digestry/sightings",
    "_digestry/sightings/<digest>",
]
DISCOVERY = {"extensions": [{"name": "_digestry", "endpoints": EXTENSIONS}]}


@dataclass(frozen=True)
class Case:
    """A document, the part of a path where it is asked for, and who asks."""

    document: Any
    path: str
    ask: Callable[[Repository], object]
    status: int = 200
    kind: str = "application/json"


def _registry(repository: Repository) -> Registry:
    return Registry(repository.reference.host, connection=repository.connection)


def _whose_anywhere(repository: Repository) -> object:
    return _registry(repository).tags_for_digest(DIGEST)


def _sight(repository: Repository) -> object:
    return _registry(repository).record_sightings([SightingReport("a", DIGEST, "h", 1)])


CASES: dict[str, Case] = {
    "a manifest": Case(
        MANIFEST, "/manifests/", lambda r: r.pull_manifest("1"), kind=media_types.OCI_MANIFEST
    ),
    "an index": Case(INDEX, "/manifests/", lambda r: r.pull_manifest("1"), kind=media_types.OCI_INDEX),
    "a manifest of any kind": Case(INDEX, "/manifests/", lambda r: r.pull_manifest("1"), kind="text/plain"),
    "a list of tags": Case({"name": "a", "tags": ["1", "2"]}, "/tags/", lambda r: list(r.tags())),
    "referrers": Case(INDEX, "/referrers/", lambda r: r.referrers(DIGEST, "a/b")),
    "an error": Case(
        {"errors": [{"code": "DENIED", "message": "no", "detail": {"damaged": True}}]},
        "/manifests/",
        lambda r: r.pull_manifest("1"),
        404,
    ),
    "a refusal": Case(
        {"errors": [{"code": "DENIED", "message": "no", "detail": [1]}]},
        "/",
        lambda r: r.pull_manifest("1"),
        403,
    ),
    "tag history": Case(INDEX, "/tag-history/", lambda r: r.tag_history("1")),
    "a journal": Case({"repository": "a", "entries": [EVENT]}, "/journal", lambda r: r.journal("1")),
    "a tag at a time": Case(
        {"repository": "a", "at": AT, "span": SPAN}, "/_digestry/tag/", lambda r: r.tag_at("1", MOMENT)
    ),
    "tags at a time": Case(
        {"repository": "a", "at": AT, "tags": [SPAN]}, "/_digestry/tags", lambda r: r.tags_at(MOMENT)
    ),
    "spans": Case({"digest": str(DIGEST), "spans": [SPAN]}, "/whose/", lambda r: r.tags_for_digest(DIGEST)),
    "spans anywhere": Case({"digest": str(DIGEST), "spans": [SPAN]}, "/whose/", _whose_anywhere),
    "holders": Case(
        {
            "digest": str(DIGEST),
            "holders": [{"digest": str(DIGEST), "mediaType": "a/b", "size": 1, "manifests": [str(DIGEST)]}],
        },
        "/holders/",
        lambda r: r.holders(DIGEST),
    ),
    "beginnings": Case(
        {"prefix": "abcdefa", "digests": [str(DIGEST)]},
        "/digests/",
        lambda r: r.find_digest(DigestPrefix("sha256", DIGEST.encoded[:9])),
    ),
    "a restored tag": Case(
        {"repository": "a", "tag": "1", "toDigest": str(DIGEST), "event": EVENT},
        "/restore/",
        lambda r: r.restore("1", DIGEST),
    ),
    "extensions": Case(
        DISCOVERY,
        "/ext/discover",
        lambda r: r.find_digest(DigestPrefix("sha256", DIGEST.encoded[:9])),
    ),
    "many questions": Case(
        {
            "resolutions": [{"repository": "a", "tags": {}, "digests": {}}],
            "contents": {str(DIGEST): "x"},
        },
        "/resolve",
        lambda r: _registry(r).resolve_many([ResolveQuery("a", (DIGEST,), ("1",))]),
    ),
    "what was noted": Case({"noted": 1, "unknown": []}, "/sightings", _sight),
    "sightings": Case(
        {"digest": str(DIGEST), "sightings": [{"host": "h", "seenAt": AT}], "places": [{"host": "h"}]},
        "/sightings/",
        lambda r: r.sightings(DIGEST),
    ),
}


_NOT_THEIRS = (InvalidReference, InvalidDigest, TooLarge)


def holds(what: str, ask: Callable[..., object], *arguments: Any) -> None:
    """``ask`` returns, or raises an error of digestry's own that is no longer than a page, and that does not
    blame whoever called."""
    failed = ""
    try:
        ask(*arguments)
    except _NOT_THEIRS as error:
        failed = f"{error!r} blames the caller"
    except DigestryError as error:
        failed = f"a message of {len(error.message)}" if len(error.message) > 5000 else ""
    except Exception as error:  # noqa: BLE001 - what is looked for
        failed = repr(error)[:300]
    assert not failed, what


def answers(case: Case, raw: bytes) -> Callable[[Request], Reply]:
    def answer(request: Request) -> Reply:
        if case.path in request.target:
            return Reply(case.status, raw, {"Content-Type": case.kind})
        if request.target.endswith("/discover"):
            return Reply(200, json.dumps(DISCOVERY).encode())
        return Reply(404, b"{}")

    return answer


@pytest.fixture
def remote() -> Iterator[Callable[[str], Repository]]:
    with Session(ClientOptions(timeout=PATIENCE, retries=0)) as session:

        def of(host: str) -> Repository:
            session.connection.cache.extension_endpoints.clear()
            session.connection.cache.bulk_refused.clear()
            return session.repository(Reference(host, "a"))

        yield of


@SAMPLED
@pytest.mark.parametrize("name", CASES)
def test_an_answer(name: str, every: int, liar: Liar, remote: Callable[[str], Repository]) -> None:
    case = CASES[name]
    tried = 0
    for what, raw in itertools.islice(mutations(case.document), None, None, every):
        liar.answer = answers(case, raw)
        holds(what, case.ask, remote(liar.host))
        tried += 1
    assert tried > 70 // every
    assert any(case.path in request.target for request in liar.seen[-4:])


def test_a_token(liar: Liar, tmp_path: Path) -> None:
    document = {"token": "t", "access_token": "t", "expires_in": 60, "issued_at": AT, "refresh_token": "r"}
    for what, raw in mutations(document):

        def answer(request: Request, raw: bytes = raw) -> Reply:
            if request.path == "/token":
                return Reply(200, raw)
            if request.headers.get("Authorization"):
                return Reply(404)
            return Reply(401, headers={"WWW-Authenticate": f'Bearer realm="http://{liar.host}/token"'})

        liar.answer = answer
        with Session(ClientOptions(timeout=PATIENCE, retries=0)) as session:
            holds(what, session.repository(Reference(liar.host, "a")).pull_manifest, "1")


def test_a_config() -> None:
    for what, raw in mutations(CONFIG):
        holds(what, lambda raw: str(ImageConfig.parse(raw).platform), raw)


DOCKER_CONFIG = {
    "auths": {"r.example": {"auth": "YTpi", "username": "a", "password": "b", "identitytoken": "t"}},
    "credHelpers": {"other.example": "none-such"},
    "credsStore": "none-such",
}


def test_dockers_configuration(tmp_path: Path) -> None:
    for what, raw in mutations(DOCKER_CONFIG):
        (tmp_path / "config.json").write_bytes(raw)
        for host in ("r.example", "other.example", "docker.io"):
            holds(f"{what}, for {host}", DockerCredentials(tmp_path).get, host, "team/app")


@pytest.mark.long
def test_a_credential_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = tmp_path / "answer"
    helper = tmp_path / "docker-credential-odd"
    helper.write_text(f"#!/bin/sh\ncat >/dev/null\nexec cat {answer}\n")
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text('{"credsStore":"odd"}')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for what, raw in mutations({"ServerURL": "r.example", "Username": "u", "Secret": "s"}):
        answer.write_bytes(raw)
        holds(what, DockerCredentials(tmp_path).get, "r.example")


HEADERS = {
    "Location": "/v2/a/blobs/uploads/1",
    "Link": '</v2/a/tags/list?last=1>; rel="next"',
    "WWW-Authenticate": 'Bearer realm="http://127.0.0.1:1/t",service="s",scope="repository:a:pull"',
    "Docker-Content-Digest": str(DIGEST),
    "Content-Type": media_types.OCI_MANIFEST,
    "Content-Encoding": "gzip",
    "Content-Range": "bytes 0-0/1",
    "Range": "0-1",
    "Retry-After": "0",
    "X-Retry-After": "1",
    "OCI-Chunk-Min-Length": "5",
    "OCI-Subject": str(DIGEST),
    "OCI-Filters-Applied": "artifactType",
    "Digestry-Upstream": "current",
    "Transfer-Encoding": "gzip, chunked",
    "Connection": "close, x",
}
ODD = [
    "",
    " ",
    "9" * 400,
    "-1",
    "1.5",
    "1, 2",
    "nan",
    "\t",
    "\xff\xfe",
    "\x00",
    "\x1b[31m",
    "x" * 50_000,
    "http://",
    "http://[",
    "http://[::1",
    "http://a:b/",
    "http://a:99999/",
    "//",
    "?",
    "#",
    "\\\\a\\b",
    "/%",
    "/%zz",
    "/\x7f\x01 x",
    "/\u00e9",
    "javascript:alert(1)",
    "data:,x",
    "<>; rel=next",
    "<http://[>; rel=next",
    "Bearer",
    "Bearer realm",
    'Bearer realm="',
    'Bearer realm="http://["',
    'Bearer realm="http://\x00/"',
    'Bearer realm="http://127.0.0.1:1/\x01 ?q#f",service="\x01"',
    "Basic realm=x, Bearer realm=y, Negotiate",
    "sha256:" + "a" * 63,
    "sha512:" + "a" * 128,
    "bytes 9-1/5",
    "bytes */*",
    "br",
    "gzip, gzip, gzip, deflate",
    "Thu, 99 Foo 99999 99:99:99 GMT",
    "application/json; charset=x; charset=\x00",
]


def _push(repository: Repository) -> object:
    blob = Descriptor(media_types.OCI_LAYER, DIGEST, 1)
    return repository.push_blob(blob, lambda: io.BytesIO(b"x"), mount_from="b")


ASKING: dict[str, Callable[[Repository], object]] = {
    "manifest": lambda r: r.pull_manifest("1"),
    "resolve": lambda r: r.resolve("1"),
    "tags": lambda r: list(r.tags()),
    "referrers": lambda r: r.referrers(DIGEST, "a/b"),
    "blob": lambda r: r.read_blob(Descriptor(media_types.OCI_LAYER, DIGEST, 1)),
    "push": _push,
}


@SAMPLED
@pytest.mark.parametrize("header", HEADERS)
def test_a_header(header: str, every: int, liar: Liar, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auths": {liar.host: {"auth": "YTpi"}}}))
    options = ClientOptions(
        docker_config=tmp_path, timeout=2, connect_timeout=0.5, retries=0, waiting=2, patience=2
    )
    statuses = itertools.cycle([200, 202, 206, 307, 401, 404, 429])
    for value in ODD[::every]:
        for (name, ask), status in zip(ASKING.items(), statuses, strict=False):
            liar.answer = always(Reply(status, b"{}", {header: value}))
            with Session(options) as session:
                holds(f"{value[:50]!r} to {name}", ask, session.repository(Reference(liar.host, "a")))
