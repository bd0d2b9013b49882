"""Pushing to registries, and through proxies, that do not do it as most do."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from digestry.client.options import ClientOptions
from digestry.client.repository import Repository
from digestry.client.session import Session
from digestry.errors import DigestMismatch, ProtocolViolation, Refused
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.client.liar import Liar, Reply, Request, lying
from tests.client.test_auth import basic, write_config

CONTENT = bytes(range(256)) * 12_000  # 3 MB
BLOB = Descriptor(media_types.OCI_LAYER, Digest.of(CONTENT), len(CONTENT))


class Uploads:
    """A registry that takes blobs, with something odd before it."""

    def __init__(self, liar: Liar) -> None:
        self.liar = liar
        self.blobs: dict[str, bytes] = {}
        self.sessions: dict[str, bytes] = {}
        self.limit = 1 << 40
        self.least: int | None = None
        liar.answer = self.answer

    def answer(self, request: Request) -> Reply:
        if len(request.body) > self.limit:
            return Reply(413, b"<html>too large</html>")
        if request.method == "HEAD":
            found = self.blobs.get(request.path.rpartition("/")[2])
            return Reply(404) if found is None else Reply(200, found)
        if request.method == "POST":
            name = str(len(self.sessions))
            self.sessions[name] = b""
            extra = {} if self.least is None else {"OCI-Chunk-Min-Length": str(self.least)}
            return Reply(202, headers={"Location": f"/upload/{name}?state=a%2Bb", **extra})
        name = request.path.rpartition("/")[2]
        if request.method == "PATCH":
            first, last = map(int, re.fullmatch(r"(\d+)-(\d+)", request.headers["Content-Range"]).groups())  # type: ignore[union-attr]
            assert first == len(self.sessions[name])
            assert last - first + 1 == len(request.body)
        self.sessions[name] += request.body
        if request.method == "PUT":
            assert request.query["state"] == ["a+b"]
            digest = request.query["digest"][0]
            assert str(Digest.of(self.sessions[name])) == digest
            self.blobs[digest] = self.sessions[name]
            return Reply(201)
        end = len(self.sessions[name]) - 1
        return Reply(202, headers={"Location": f"/upload/{name}?state=a%2Bb", "Range": f"0-{end}"})

    def parts(self) -> list[int]:
        return [len(request.body) for request in self.liar.seen if request.method == "PATCH"]


@pytest.fixture
def uploads(liar: Liar) -> Uploads:
    return Uploads(liar)


def push(repository: Repository, origin: str | None = None, content: bytes = CONTENT) -> str:
    steps: list[int] = []
    outcome = repository.push_blob(
        BLOB, lambda: io.BytesIO(content), mount_from=origin, progress=steps.append
    )
    if outcome == "sent":
        assert sum(steps) == BLOB.size
    return outcome


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 500, 503])
def test_a_mount_that_is_refused(uploads: Uploads, hostile: Repository, status: int) -> None:
    taken = uploads.answer
    uploads.liar.answer = lambda request: Reply(status) if "mount" in request.query else taken(request)
    assert push(hostile, "team/base") == "sent"
    assert uploads.blobs[str(BLOB.digest)] == CONTENT
    before = len(uploads.liar.seen)
    uploads.blobs.clear()
    assert push(hostile, "team/base") == "sent"
    assert not any("mount" in request.query for request in uploads.liar.seen[before:])


def test_a_token_server_that_refuses_the_origin(uploads: Uploads, tmp_path: Path) -> None:
    liar, taken = uploads.liar, uploads.answer

    def answer(request: Request) -> Reply:
        if request.path == "/token":
            refused = any("team/base" in scope for scope in request.query["scope"])
            return Reply(403) if refused else Reply(200, b'{"token":"t"}')
        if request.headers.get("Authorization") != "Bearer t":
            return Reply(401, headers={"WWW-Authenticate": f'Bearer realm="http://{liar.host}/token"'})
        return taken(request)

    liar.answer = answer
    config = write_config(tmp_path, {"auths": {liar.host: {"auth": basic("u", "p")}}})
    with Session(ClientOptions(docker_config=config)) as session:
        assert push(session.repository(Reference(liar.host, "team/app")), "team/base") == "sent"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_an_upload_that_is_sent_on(uploads: Uploads, hostile: Repository, status: int, method: str) -> None:
    taken = uploads.answer

    def answer(request: Request) -> Reply:
        if request.method == method and "moved" not in request.query:
            more = "&" if "?" in request.target else "?"
            return Reply(status, headers={"Location": f"{request.target}{more}moved=1"})
        return taken(request)

    uploads.liar.answer = answer
    assert push(hostile) == "sent"
    assert uploads.blobs[str(BLOB.digest)] == CONTENT


def test_another_host_gets_the_upload_without_credentials(uploads: Uploads, tmp_path: Path) -> None:
    def first(request: Request) -> Reply:
        if request.headers.get("Authorization") is None:
            return Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        if request.method == "HEAD":
            return Reply(404)
        return Reply(307, headers={"Location": f"http://{uploads.liar.host}/blobs/uploads/"})

    with lying(first) as liar:
        config = write_config(tmp_path, {"auths": {liar.host: {"auth": basic("u", "p")}}})
        with Session(ClientOptions(docker_config=config)) as session:
            assert push(session.repository(Reference(liar.host, "team/app"))) == "sent"
    assert all("Authorization" not in request.headers for request in uploads.liar.seen)


def test_a_303_is_not_followed(uploads: Uploads, hostile: Repository) -> None:
    taken = uploads.answer
    uploads.liar.answer = lambda request: (
        Reply(303, headers={"Location": "/elsewhere"}) if request.method == "POST" else taken(request)
    )
    with pytest.raises(ProtocolViolation, match="303"):
        push(hostile)


@pytest.mark.parametrize("limit", [1 << 20, 200_000, 64 << 10])
def test_a_limit_to_bodies(uploads: Uploads, hostile: Repository, limit: int) -> None:
    uploads.limit = limit
    assert push(hostile) == "sent"
    assert uploads.blobs[str(BLOB.digest)] == CONTENT
    assert max(len(part) for part in uploads.sessions.values()) == len(CONTENT)


def test_the_fewest_bytes_of_a_part(uploads: Uploads, hostile: Repository) -> None:
    uploads.limit, uploads.least = len(CONTENT) - 1, 2_500_000
    assert push(hostile) == "sent"
    assert uploads.parts() == [2_500_000, len(CONTENT) - 2_500_000]


def test_a_limit_below_the_fewest_bytes_of_a_part(uploads: Uploads, hostile: Repository) -> None:
    uploads.limit, uploads.least = 1 << 20, 2 << 20
    with pytest.raises(Refused, match="413"):
        push(hostile)


@pytest.mark.parametrize("size", [1_000, BLOB.size, 9 << 20])
@pytest.mark.parametrize(("status", "code"), [(500, "UNKNOWN"), (404, "BLOB_UPLOAD_UNKNOWN")])
def test_an_upload_that_the_registry_lost_is_begun_anew(
    uploads: Uploads, hostile: Repository, status: int, code: str, size: int
) -> None:
    content = (CONTENT * 4)[:size]
    blob = Descriptor(media_types.OCI_LAYER, Digest.of(content), len(content))
    refused: list[str] = []

    def lose(request: Request) -> Reply:
        if request.method in {"PUT", "PATCH"} and not refused:
            refused.append(request.path)
            return Reply(status, json.dumps({"errors": [{"code": code, "message": "lost"}]}).encode())
        return uploads.answer(request)

    uploads.liar.answer = lose
    assert hostile.push_blob(blob, lambda: io.BytesIO(content)) == "sent"
    assert uploads.blobs == {str(blob.digest): content}
    assert len(uploads.sessions) == 2

    # One that loses every upload is not asked without an end.
    uploads.blobs.clear()
    uploads.liar.answer = lambda r: Reply(status) if r.method in {"PUT", "PATCH"} else uploads.answer(r)
    with pytest.raises(Refused):
        hostile.push_blob(blob, lambda: io.BytesIO(content))


def test_a_limit_to_everything(uploads: Uploads, hostile: Repository) -> None:
    uploads.limit = 1000
    with pytest.raises(Refused, match="413"):
        push(hostile)


def test_damaged_parts_never_are_a_whole_upload(uploads: Uploads, hostile: Repository) -> None:
    uploads.limit = 1 << 20
    with pytest.raises(DigestMismatch):
        push(hostile, content=CONTENT[:-1] + b"?")
    assert not uploads.blobs


def test_a_registry_that_lost_a_part(uploads: Uploads, hostile: Repository) -> None:
    uploads.limit = 1 << 20
    taken = uploads.answer

    def answer(request: Request) -> Reply:
        reply = taken(request)
        if request.method == "PATCH" and reply.status == 202:
            reply.headers = {**reply.headers, "Range": "0-9"}
        return reply

    uploads.liar.answer = answer
    with pytest.raises(ProtocolViolation, match="says that it has"):
        push(hostile)


@pytest.mark.parametrize("status", [400, 403, 405, 500, 501])
@pytest.mark.parametrize("there", [False, True])
def test_a_head_that_is_refused_of_a_blob(
    uploads: Uploads, hostile: Repository, status: int, *, there: bool
) -> None:
    taken = uploads.answer

    def answer(request: Request) -> Reply:
        if request.method == "HEAD":
            return Reply(status)
        if request.method == "GET":
            return Reply(206, CONTENT[:1]) if there else Reply(404)
        return taken(request)

    uploads.liar.answer = answer
    assert push(hostile) == ("present" if there else "sent")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 500, 501])
def test_a_head_that_is_refused_of_a_manifest(liar: Liar, hostile: Repository, status: int) -> None:
    image = json.dumps(
        {"schemaVersion": 2, "config": {"mediaType": "a/b", "digest": str(BLOB.digest), "size": 1}}
    ).encode()
    liar.answer = lambda request: (
        Reply(status)
        if request.method == "HEAD"
        else Reply(200, image, {"Content-Type": media_types.OCI_MANIFEST})
    )
    assert hostile.resolve("1").digest == Digest.of(image)
    assert [request.method for request in liar.seen] == ["HEAD", "GET"]


def test_a_head_that_is_limited_is_not_made_a_pull(liar: Liar) -> None:
    liar.answer = lambda _: Reply(429)
    with Session(ClientOptions(retries=0)) as session, pytest.raises(Refused, match="429"):
        session.repository(Reference(liar.host, "a")).resolve("1")
    assert [request.method for request in liar.seen] == ["HEAD"]


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_any_success_ends_an_upload(uploads: Uploads, liar: Liar, hostile: Repository, status: int) -> None:
    def answer(request: Request) -> Reply:
        reply = uploads.answer(request)
        return Reply(status) if request.method == "PUT" and reply.status == 201 else reply

    liar.answer = answer
    assert push(hostile) == "sent"
    assert uploads.blobs == {str(BLOB.digest): CONTENT}
