"""Registries that lie: nothing they send is believed, and nothing of ours reaches a stranger."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from digestry.blobs.disk import DiskBlobs
from digestry.client.options import ClientOptions
from digestry.client.repository import Repository
from digestry.client.session import Session
from digestry.errors import (
    ContentError,
    DigestMismatch,
    DigestryError,
    ProtocolViolation,
    Refused,
    RemoteNotFound,
    SizeMismatch,
    Unauthorized,
    Unreachable,
)
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.client.liar import Liar, Reply, Request, lying
from tests.support import PATIENCE

IMAGE = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": {"mediaType": media_types.OCI_CONFIG, "digest": str(Digest.of(b"{}")), "size": 2},
        "layers": [],
    }
).encode()
DIGEST = Digest.of(IMAGE)
CONTENT = bytes(range(256)) * 40_000  # about 10 MB, so that the writing thread is used
BLOB = Descriptor(media_types.OCI_LAYER, Digest.of(CONTENT), len(CONTENT))


def manifest_reply(body: bytes = IMAGE, digest: str | None = None) -> Reply:
    extra = {} if digest is None else {"Docker-Content-Digest": digest}
    return Reply(200, body, {"Content-Type": media_types.OCI_MANIFEST, **extra})


def always(reply: Reply) -> Callable[[Request], Reply]:
    return lambda _: reply


@pytest.fixture
def store(tmp_path: Path) -> DiskBlobs:
    blobs = DiskBlobs(tmp_path / "store")
    blobs.prepare()
    return blobs


def fetch(repository: Repository, store: DiskBlobs, descriptor: Descriptor = BLOB) -> list[int]:
    steps: list[int] = []
    with store.begin(descriptor.digest, descriptor.size) as sink:
        repository.pull_blob(descriptor, sink, steps.append)
    return steps


# -- manifests ----------------------------------------------------------------------------------


def test_other_bytes_than_the_digest_asked_for(liar: Liar, hostile: Repository) -> None:
    liar.answer = always(manifest_reply())
    with pytest.raises(DigestMismatch):
        hostile.pull_manifest(str(Digest.of(b"another")))
    assert hostile.pull_manifest(str(DIGEST)).raw == IMAGE


def test_other_bytes_than_the_digest_in_the_header(liar: Liar, hostile: Repository) -> None:
    liar.answer = always(manifest_reply(digest=str(Digest.of(b"x"))))
    with pytest.raises(DigestMismatch):
        hostile.pull_manifest("latest")


@pytest.mark.parametrize("value", ["md5:abc", "", "sha256:short"])
def test_a_header_that_is_no_digest(liar: Liar, hostile: Repository, value: str) -> None:
    liar.answer = always(manifest_reply(digest=value))
    with pytest.raises(ProtocolViolation):
        hostile.pull_manifest("latest")
    with pytest.raises(ProtocolViolation):
        hostile.resolve("latest")


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b"{}", b'{"schemaVersion":1}', b"[" * 100_000])
def test_garbage_instead_of_a_manifest(liar: Liar, hostile: Repository, body: bytes) -> None:
    liar.answer = always(manifest_reply(body))
    with pytest.raises(ProtocolViolation, match="team/app:latest"):
        hostile.pull_manifest("latest")


def test_a_manifest_of_another_type_than_it_says(liar: Liar, hostile: Repository) -> None:
    liar.answer = always(Reply(200, IMAGE, {"Content-Type": media_types.OCI_INDEX}))
    with pytest.raises(ProtocolViolation):
        hostile.pull_manifest("latest")


def test_a_useless_content_type_is_made_up_for(liar: Liar, hostile: Repository) -> None:
    liar.answer = always(Reply(200, IMAGE, {"Content-Type": "text/plain; charset=utf-8"}))
    assert hostile.pull_manifest("latest").media_type == media_types.OCI_MANIFEST
    # Neither does HEAD tell enough then: the manifest is fetched.
    assert hostile.resolve("latest").digest == DIGEST


def test_an_endless_manifest(liar: Liar, hostile: Repository) -> None:
    liar.answer = always(Reply(200, headers={"Content-Type": media_types.OCI_MANIFEST}, endless=True))
    with pytest.raises(ProtocolViolation, match="more than 16777216 bytes"):
        hostile.pull_manifest("latest")


def test_resolve_says_another_digest_than_asked_for(liar: Liar, hostile: Repository) -> None:
    liar.answer = always(manifest_reply(digest=str(DIGEST)))
    with pytest.raises(ProtocolViolation, match="was asked for"):
        hostile.resolve(str(Digest.of(b"another")))


def test_resolve_where_head_is_not_allowed(liar: Liar, hostile: Repository) -> None:
    liar.answer = lambda r: Reply(405) if r.method == "HEAD" else manifest_reply()
    assert hostile.resolve("latest") == Descriptor(media_types.OCI_MANIFEST, DIGEST, len(IMAGE))


# -- blobs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [CONTENT, b"small"])
def test_a_good_blob(liar: Liar, hostile: Repository, store: DiskBlobs, content: bytes) -> None:
    descriptor = Descriptor(media_types.OCI_LAYER, Digest.of(content), len(content))
    liar.answer = always(Reply(200, content))
    assert sum(fetch(hostile, store, descriptor)) == len(content)
    assert store.read(descriptor.digest) == content
    assert hostile.read_blob(descriptor) == content


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(200, CONTENT[:-1] + b"?"), DigestMismatch),
        (Reply(200, CONTENT + b"more"), SizeMismatch),
        (Reply(200, CONTENT + b"more", chunked=True), SizeMismatch),
        (Reply(200, CONTENT[:-1]), SizeMismatch),
        (Reply(200, CONTENT[:-1], chunked=True), SizeMismatch),
        (Reply(200, endless=True), SizeMismatch),
        (Reply(200, b"", length=0), SizeMismatch),
        (Reply(204, b""), ProtocolViolation),
        (Reply(404, b""), RemoteNotFound),
        (Reply(206, CONTENT), ProtocolViolation),
    ],
)
def test_bad_blobs_leave_nothing(
    liar: Liar, hostile: Repository, store: DiskBlobs, reply: Reply, error: type[DigestryError]
) -> None:
    liar.answer = always(reply)
    with pytest.raises(error):
        fetch(hostile, store)
    assert list(store.digests()) == []
    assert list(store.ingests()) == []
    with pytest.raises(error):
        hostile.read_blob(BLOB)


def test_a_broken_connection_is_taken_up_again(liar: Liar, hostile: Repository, store: DiskBlobs) -> None:
    def answer(request: Request) -> Reply:
        wanted = request.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        end = min(start + 3_000_000, len(CONTENT))
        headers = {"Content-Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"} if wanted else {}
        return Reply(206 if wanted else 200, CONTENT[start:end], headers, length=len(CONTENT) - start)

    liar.answer = answer
    assert sum(fetch(hostile, store)) == len(CONTENT)
    assert store.read(BLOB.digest) == CONTENT
    ranges = [request.headers.get("Range") for request in liar.seen]
    assert len(ranges) > 3, "it goes on for as long as each attempt brings something"
    assert ranges[0] is None
    assert None not in ranges[1:]


def test_a_registry_that_ignores_ranges(liar: Liar, hostile: Repository, store: DiskBlobs) -> None:
    cut = Reply(200, CONTENT[:5_000_000], length=len(CONTENT))
    liar.answer = lambda _: cut if len(liar.seen) == 1 else Reply(200, CONTENT)
    fetch(hostile, store)
    assert store.read(BLOB.digest) == CONTENT


def test_a_registry_that_refuses_ranges(liar: Liar, hostile: Repository, store: DiskBlobs) -> None:
    layer = bytes(range(256)) * 1000
    descriptor = Descriptor(media_types.OCI_LAYER, Digest.of(layer), len(layer))

    def answer(request: Request) -> Reply:
        if "Range" in request.headers:
            return Reply(416)
        cut = len(liar.seen) == 1
        return Reply(200, layer[:1000] if cut else layer, length=len(layer), cut=cut)

    liar.answer = answer
    with store.begin(descriptor.digest, descriptor.size) as sink:
        hostile.pull_blob(descriptor, sink)
    assert store.read(descriptor.digest) == layer
    assert ["Range" in request.headers for request in liar.seen] == [False, True, False]


@pytest.mark.parametrize("form", ["json", "prettyjws"])
def test_a_signed_manifest_of_schema_1_is_named(liar: Liar, hostile: Repository, form: str) -> None:
    # Its digest is that of the signed part of its bytes.
    said = {
        "Content-Type": f"application/vnd.docker.distribution.manifest.v1+{form}; charset=utf-8",
        "Docker-Content-Digest": str(Digest.of(b"payload")),
    }
    liar.answer = lambda _: Reply(200, b'{"schemaVersion":1,"signatures":[]}', said)
    with pytest.raises(ProtocolViolation, match="schema 1"):
        hostile.pull_manifest("1")


def test_another_range_than_asked_for(liar: Liar, hostile: Repository, store: DiskBlobs) -> None:
    cut = Reply(200, CONTENT[:5_000_000], length=len(CONTENT))
    other = Reply(206, CONTENT[1:], {"Content-Range": f"bytes 1-{len(CONTENT) - 1}/{len(CONTENT)}"})
    liar.answer = lambda _: cut if len(liar.seen) == 1 else other
    with pytest.raises(ProtocolViolation, match="another part"):
        fetch(hostile, store)


def test_a_connection_that_always_breaks(liar: Liar, hostile: Repository, store: DiskBlobs) -> None:
    liar.answer = always(Reply(200, b"", length=len(CONTENT)))
    with pytest.raises(Unreachable, match="broke"):
        fetch(hostile, store)
    assert len(liar.seen) == 3  # the first, and two retries


def test_a_full_disk_is_no_broken_connection(
    liar: Liar, hostile: Repository, store: DiskBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar.answer = always(Reply(200, CONTENT))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwritev", full)
    with pytest.raises(DigestryError, match="No space"):
        fetch(hostile, store)
    assert len(liar.seen) == 1


# -- redirects ------------------------------------------------------------------------------------


def login(directory: Path, host: str) -> ClientOptions:
    encoded = base64.b64encode(b"ann:s3cret").decode()
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"auths": {host: {"auth": encoded}}}))
    return ClientOptions(docker_config=directory, timeout=PATIENCE, retries=1)


def test_credentials_do_not_follow_a_redirect(liar: Liar, tmp_path: Path) -> None:
    with lying(always(Reply(200, CONTENT))) as cdn:

        def answer(request: Request) -> Reply:
            if "Authorization" not in request.headers:
                return Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            return Reply(307, headers={"Location": f"http://{cdn.host}/elsewhere"})

        liar.answer = answer
        with Session(login(tmp_path, liar.host)) as session:
            assert session.repository(Reference(liar.host, "a")).read_blob(BLOB) == CONTENT
        assert [r.path for r in cdn.seen] == ["/elsewhere"]
        assert "Authorization" not in cdn.seen[0].headers
        assert "Authorization" in liar.seen[-1].headers


def test_a_redirect_target_that_wants_credentials_gets_none(liar: Liar, tmp_path: Path) -> None:
    with lying(always(Reply(401, headers={"WWW-Authenticate": 'Basic realm="give"'}))) as thief:
        liar.answer = always(Reply(302, headers={"Location": f"http://{thief.host}/"}))
        with Session(login(tmp_path, liar.host)) as session, pytest.raises(Unauthorized):
            session.repository(Reference(liar.host, "a")).read_blob(BLOB)
        assert all("Authorization" not in request.headers for request in thief.seen)


def test_redirects_in_a_circle(liar: Liar, hostile: Repository) -> None:
    liar.answer = always(Reply(307, headers={"Location": "/v2/again"}))
    with pytest.raises(ProtocolViolation, match="redirects more than"):
        hostile.pull_manifest("latest")
    assert len(liar.seen) < 10


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://host/x", "http://[bad", "http://", "gopher:x"]
)
def test_redirects_to_no_web_address(liar: Liar, hostile: Repository, target: str) -> None:
    liar.answer = always(Reply(302, headers={"Location": target}))
    with pytest.raises(ProtocolViolation):
        hostile.pull_manifest("latest")


def test_tls_does_not_lead_to_plain_http(session: Session) -> None:
    with pytest.raises(ProtocolViolation, match="plain HTTP"):
        session.connection.transport.follow("https://registry.example/v2/", "http://registry.example/x")
    assert (
        session.connection.transport.follow("https://registry.example/v2/a", "b")
        == "https://registry.example/v2/b"
    )


# -- refusals -------------------------------------------------------------------------------------


def test_the_registry_s_own_words(liar: Liar, hostile: Repository) -> None:
    body = json.dumps({"errors": [{"code": "DENIED", "message": "no \x1b[31mway"}]}).encode()
    liar.answer = always(Reply(403, body))
    with pytest.raises(Unauthorized) as caught:
        hostile.pull_manifest("latest")
    assert "DENIED: no \\x1b[31mway" in caught.value.message
    assert caught.value.status == 403
    assert caught.value.code == "DENIED"
    assert "digestry login" in caught.value.hint


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        ("DENIED", "repository quota of 10 GB exceeded", "no login changes that"),
        ("DENIED", "tag v1 is immutable and cannot be overwritten", "a rule of the registry"),
        (
            "DENIED",
            "current image with 3 vulnerabilities cannot be pulled due to policy",
            "a rule of the registry",
        ),
        ("TOOMANYREQUESTS", "pull rate limit", "limits how often it may be asked: wait"),
        ("DENIED", "requested access to the resource is denied", "you are not logged in"),
        ("", "", "the registry does not say why"),
    ],
)
def test_what_to_do_about_a_403_is_what_the_registry_says(
    liar: Liar, hostile: Repository, code: str, message: str, hint: str
) -> None:
    body = (
        json.dumps({"errors": [{"code": code, "message": message}]}).encode() if code else b"<html>no</html>"
    )
    liar.answer = always(Reply(403, body))
    with pytest.raises(Unauthorized) as caught:
        hostile.pull_manifest("latest")
    assert hint in caught.value.hint
    assert ("digestry login" in caught.value.hint) == ("rule" not in hint and "no login" not in hint), (
        "a login is proposed only where it may help"
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b'{"errors": 1}',
        b'{"errors":[]}',
        b'{"errors":[1]}',
        b"<html>",
        b"\xff\xfe",
        b"x" * 999_999,
    ],
)
def test_errors_that_are_garbage(liar: Liar, hostile: Repository, body: bytes) -> None:
    liar.answer = always(Reply(400, body))
    with pytest.raises(Refused) as caught:
        hostile.pull_manifest("latest")
    assert len(caught.value.message) < 1000


def test_an_endless_error(liar: Liar, hostile: Repository) -> None:
    liar.answer = always(Reply(500, endless=True))
    with pytest.raises(Refused):
        hostile.pull_manifest("latest")


@pytest.mark.long
def test_retry_after_is_honoured(liar: Liar, hostile: Repository) -> None:
    liar.answer = lambda _: (
        Reply(429, headers={"Retry-After": "1"}) if len(liar.seen) == 1 else manifest_reply()
    )
    begun = time.monotonic()
    assert hostile.pull_manifest("latest").digest == DIGEST
    assert time.monotonic() - begun > 0.9


def test_a_limit_that_does_not_end(liar: Liar, hostile: Repository) -> None:
    liar.answer = always(Reply(429))
    with pytest.raises(Refused, match="429") as caught:
        hostile.pull_manifest("latest")
    assert caught.value.hint
    assert len(liar.seen) == 3


def test_a_registry_that_does_not_answer(liar: Liar) -> None:
    def slow(_: Request) -> Reply:
        time.sleep(1)
        return Reply()

    liar.answer = slow
    with (
        Session(ClientOptions(timeout=0.2, retries=0)) as session,
        pytest.raises(Unreachable, match="in time"),
    ):
        session.repository(Reference(liar.host, "a")).pull_manifest("latest")


def test_nobody_listens(session: Session) -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1: nothing listens"):
        session.repository(Reference("127.0.0.1:1", "a")).pull_manifest("latest")


def test_a_host_that_must_have_tls_is_not_asked_in_plain(
    monkeypatch: pytest.MonkeyPatch, session: Session
) -> None:
    monkeypatch.setattr("digestry.client.options.is_loopback", lambda _: False)
    with lying() as plain:
        with pytest.raises(Unreachable, match=r"does not speak TLS|broke|reset") as caught:
            session.repository(Reference(plain.host, "a")).pull_manifest("latest")
        assert plain.seen == []
        assert caught.value.message.startswith("cannot reach")


# -- lists ----------------------------------------------------------------------------------------


def test_tags_in_pages(liar: Liar, hostile: Repository) -> None:
    def answer(request: Request) -> Reply:
        if "last" in request.query:
            return Reply(200, b'{"name":"team/app","tags":["c"]}')
        link = {"Link": '</v2/team/app/tags/list?n=2&last=b>; rel="next"'}
        return Reply(200, b'{"name":"team/app","tags":["a","b"]}', link)

    liar.answer = answer
    assert list(hostile.tags()) == ["a", "b", "c"]


def test_a_link_to_another_host(liar: Liar, hostile: Repository) -> None:
    with lying(always(Reply(200, b'{"tags":["stolen"]}'))) as other:
        link = {"Link": f'<http://{other.host}/v2/team/app/tags/list>; rel="next"'}
        liar.answer = always(Reply(200, b'{"tags":["a"]}', link))
        with pytest.raises(ProtocolViolation, match="another host"):
            list(hostile.tags())
        assert other.seen == []


def test_links_in_a_circle(liar: Liar, hostile: Repository) -> None:
    liar.answer = always(Reply(200, b'{"tags":["a"]}', {"Link": '<?n=1&last=a>; rel="next"'}))
    with pytest.raises(ProtocolViolation, match="never ends"):
        list(hostile.tags())
    assert len(liar.seen) == 2


@pytest.mark.parametrize("body", [b"", b"[]", b'{"tags":"a"}'])
def test_garbage_instead_of_tags(liar: Liar, hostile: Repository, body: bytes) -> None:
    liar.answer = always(Reply(200, body))
    with pytest.raises(ProtocolViolation):
        list(hostile.tags())


def test_what_cannot_be_a_tag_hides_no_other(liar: Liar, hostile: Repository) -> None:
    liar.answer = always(Reply(200, b'{"tags":["a",1,"../x",null,"b"]}'))
    odd: list[str] = []
    assert list(hostile.tags(odd.append)) == ["a", "b"]
    assert len(odd) == 3
    assert "../x" in odd[1]


def test_no_tags(liar: Liar, hostile: Repository) -> None:
    liar.answer = always(Reply(200, b'{"name":"team/app","tags":null}'))
    assert list(hostile.tags()) == []


def test_referrers_filtered_here_when_the_registry_did_not(liar: Liar, hostile: Repository) -> None:
    entries = [
        {"mediaType": media_types.OCI_MANIFEST, "digest": str(DIGEST), "size": 1, "artifactType": kind}
        for kind in ("a/b", "c/d")
    ]
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}
    liar.answer = always(Reply(200, json.dumps(index).encode()))
    assert [d.artifact_type for d in hostile.referrers(DIGEST, "c/d")] == ["c/d"]
    assert len(hostile.referrers(DIGEST)) == 2


@pytest.mark.parametrize(
    ("applied", "asked", "whole"),
    [
        ("artifactType", None, False), ("artifactType", "c/d", True), ("ARTIFACTTYPE", "c/d", True),
        ("annotation", "c/d", False), ("artifactType, annotation", "c/d", False), ("annotation", None, False),
        (" , ", None, True), ("", None, True),
    ],
)  # fmt: skip
def test_a_filter_that_was_not_asked_for_leaves_something_out(
    liar: Liar, hostile: Repository, applied: str, asked: str | None, whole: bool
) -> None:
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": []}
    liar.answer = always(Reply(200, json.dumps(index).encode(), {"OCI-Filters-Applied": applied}))
    if whole:
        assert hostile.referrers(DIGEST, asked) == []
        return
    with pytest.raises(ProtocolViolation, match="out of its list"):
        hostile.referrers(DIGEST, asked)


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ('<?b=2>; rel="next"', 2), ("<?b=2>; REL=NEXT", 2),
        ('<?a=1>; rel="prev", <?b=2>; rel="last next"', 2),
        ('</next>; rel="prev"', 1), ("<x>", 1), ("", 1),
        ('?b=2; rel="next"', 0), ('<?b=2; rel="next"', 0), ("<?b=2>; rel='next'", 0),
        (f'<?{"a" * 9000}>; rel="prev", <?b=2>; rel="next"', 0),
    ],
)  # fmt: skip
def test_a_link_that_cannot_be_read_is_not_the_end(
    liar: Liar, hostile: Repository, link: str, expected: int
) -> None:
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": []}

    def answer(request: Request) -> Reply:
        headers = {} if "b" in request.query else {"Link": link}
        return Reply(200, json.dumps(index).encode(), headers)

    liar.answer = answer
    if expected:
        assert hostile.referrers(DIGEST) == []
        assert len([one for one in liar.seen if "/referrers/" in one.path]) == expected
        return
    with pytest.raises(ProtocolViolation, match="next page cannot be read"):
        hostile.referrers(DIGEST)


@pytest.mark.parametrize("status", [404, 405])
def test_a_list_that_goes_on_where_there_is_no_page(liar: Liar, hostile: Repository, status: int) -> None:
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": []}

    def answer(request: Request) -> Reply:
        if "last" in request.query:
            return Reply(status, b"{}")
        return Reply(200, json.dumps(index).encode(), {"Link": '<?last=a>; rel="next"'})

    liar.answer = answer
    with pytest.raises(ProtocolViolation, match="a page that it does not have"):
        hostile.referrers(DIGEST)


# -- pushes ---------------------------------------------------------------------------------------


def test_a_location_on_another_host_gets_no_credentials(liar: Liar, tmp_path: Path) -> None:
    with lying(always(Reply(201))) as storage:

        def answer(request: Request) -> Reply:
            if "Authorization" not in request.headers:
                return Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            if request.method == "HEAD":
                return Reply(404)
            return Reply(202, headers={"Location": f"http://{storage.host}/put?token=1"})

        liar.answer = answer
        source = tmp_path / "blob"
        source.write_bytes(CONTENT)
        with Session(login(tmp_path / "docker", liar.host)) as session:
            repository = session.repository(Reference(liar.host, "a"))
            assert repository.push_blob(BLOB, lambda: source.open("rb")) == "sent"
        (request,) = storage.seen
        assert "Authorization" not in request.headers
        assert request.query == {"token": ["1"], "digest": [str(BLOB.digest)]}
        assert request.body == CONTENT


def test_a_damaged_source_never_is_a_whole_upload(liar: Liar, hostile: Repository, tmp_path: Path) -> None:
    liar.answer = lambda r: Reply(404) if r.method == "HEAD" else Reply(202, headers={"Location": "/up"})
    source = tmp_path / "blob"
    source.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(DigestMismatch):
        hostile.push_blob(BLOB, lambda: source.open("rb"))
    assert all(len(request.body) < len(CONTENT) for request in liar.seen)


def test_a_registry_that_stored_something_else(liar: Liar, hostile: Repository, tmp_path: Path) -> None:
    source = tmp_path / "blob"
    source.write_bytes(CONTENT)

    def answer(request: Request) -> Reply:
        if request.method == "HEAD":
            return Reply(404)
        if request.method == "POST":
            return Reply(202, headers={"Location": "/up"})
        return Reply(201, headers={"Docker-Content-Digest": str(DIGEST)})

    liar.answer = answer
    with pytest.raises(ProtocolViolation):
        hostile.push_blob(BLOB, lambda: source.open("rb"))
    with pytest.raises(ProtocolViolation):
        hostile.push_manifest(b'{"schemaVersion":2,"manifests":[]}', media_types.OCI_INDEX, tags=["a"])


def test_an_upload_without_a_location(liar: Liar, hostile: Repository, tmp_path: Path) -> None:
    liar.answer = lambda r: Reply(404) if r.method == "HEAD" else Reply(202)
    with pytest.raises(ProtocolViolation, match="does not say where"):
        hostile.push_blob(BLOB, lambda: (tmp_path / "x").open("rb"))


def test_a_pushed_manifest_is_checked_before_it_leaves(liar: Liar, hostile: Repository) -> None:
    with pytest.raises(ContentError):
        hostile.push_manifest(IMAGE, media_types.OCI_MANIFEST, digest=Digest.of(b"x"))
    assert liar.seen == []


@pytest.mark.parametrize("target", ["ftp://storage/x", "http://[bad", "http://user@storage/x"])
def test_a_signature_is_not_shown(liar: Liar, hostile: Repository, target: str) -> None:
    """An address that an upload or a redirect leads to may let anybody in."""
    liar.answer = always(Reply(307, headers={"Location": f"{target}?X-Amz-Signature=s3cret"}))
    with pytest.raises(ProtocolViolation) as caught:
        hostile.pull_manifest("latest")
    assert "s3cret" not in str(caught.value)
