"""Manifests: what is taken, what is refused, and that what is served is what came."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from digestry.client.registry_warnings import read_warnings
from digestry.model import media_types
from digestry.model.digest import Digest
from tests.registry.support import (
    events,
    on_disk,
    put_manifest,
    query,
    raw_exchange,
    statuses,
    still_answers,
)
from tests.stores import blob_file, digests
from tests.support import RegistryServer, descriptor

LIMIT = 4 << 20
KINDS = {
    media_types.OCI_MANIFEST: False,
    media_types.DOCKER_MANIFEST: False,
    media_types.OCI_INDEX: True,
    media_types.DOCKER_LIST: True,
}


def document(registry: RegistryServer, name: str, kind: str) -> dict[str, Any]:
    """A manifest of the kind, whose content is there; different at each call."""
    image = registry.image(name, os.urandom(20))
    if not KINDS[kind]:
        return {**image, "mediaType": kind}
    child = registry.push_manifest(name, str(Digest.of(json.dumps(image).encode())), image)
    size = len(json.dumps(image))
    return {
        "schemaVersion": 2,
        "mediaType": kind,
        "manifests": [descriptor(media_types.OCI_MANIFEST, child, size)],
    }


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds(registry: RegistryServer, kind: str) -> None:
    raw = json.dumps(document(registry, "manifests/kinds", kind)).encode()
    digest = Digest.of(raw)
    tag = kind.rpartition("/")[2].replace("+", "-")
    answer = put_manifest(registry, "manifests/kinds", tag, raw, kind)
    assert answer.status == 201
    assert answer.headers["docker-content-digest"] == str(digest)
    assert answer.headers["location"] == f"/v2/manifests/kinds/manifests/{digest}"
    for target in (tag, digest):
        for method in ("GET", "HEAD"):
            found = registry.request(method, f"/v2/manifests/kinds/manifests/{target}")
            assert found.status == 200
            assert found.headers["content-type"] == kind
            assert found.headers["content-length"] == str(len(raw))
            assert found.headers["docker-content-digest"] == str(digest)
            assert found.body == (raw if method == "GET" else b"")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "sent",
    [None, "{kind}", "{kind}; charset=utf-8", "{KIND}", "application/json", "application/octet-stream"],
)
def test_content_type_given_in_many_ways(registry: RegistryServer, kind: str, sent: str | None) -> None:
    raw = json.dumps(document(registry, "manifests/types", kind)).encode()
    header = None if sent is None else sent.format(kind=kind, KIND=kind.upper())
    assert put_manifest(registry, "manifests/types", "t", raw, header).status == 201
    assert registry.request("GET", "/v2/manifests/types/manifests/t").headers["content-type"] == kind


@pytest.mark.parametrize("is_index", [False, True])
def test_neither_content_type_nor_media_type(registry: RegistryServer, is_index: bool) -> None:
    kind = media_types.OCI_INDEX if is_index else media_types.OCI_MANIFEST
    body = document(registry, "manifests/untyped", kind)
    del body["mediaType"]
    assert put_manifest(registry, "manifests/untyped", "t", json.dumps(body).encode(), None).status == 201
    assert registry.request("GET", "/v2/manifests/untyped/manifests/t").headers["content-type"] == kind


@pytest.mark.parametrize("is_index", [False, True])
def test_dockers_type_must_be_in_the_document(registry: RegistryServer, is_index: bool) -> None:
    name = f"manifests/header-alone-{int(is_index)}"
    kind = media_types.OCI_INDEX if is_index else media_types.OCI_MANIFEST
    body = document(registry, name, kind)
    del body["mediaType"]
    raw = json.dumps(body).encode()
    assert put_manifest(registry, name, "t", raw, kind).status == 201
    # The same bytes as another kind would change what the tag points to, and move no tag.
    docker = media_types.DOCKER_LIST if is_index else media_types.DOCKER_MANIFEST
    for target in ("other", str(Digest.of(raw))):
        answer = put_manifest(registry, name, target, raw, docker)
        assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
    assert registry.request("GET", f"/v2/{name}/manifests/t").headers["content-type"] == kind


@pytest.mark.parametrize("inside", KINDS)
@pytest.mark.parametrize("outside", [*KINDS, "text/plain", "application/vnd.oci.image.config.v1+json"])
def test_media_type_that_does_not_fit(registry: RegistryServer, inside: str, outside: str) -> None:
    if inside == outside:
        return
    raw = json.dumps(document(registry, "manifests/mismatch", inside)).encode()
    answer = put_manifest(registry, "manifests/mismatch", "t", raw, outside)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
    assert registry.request("GET", f"/v2/manifests/mismatch/manifests/{Digest.of(raw)}").status == 404
    assert not on_disk(registry, Digest.of(raw))


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_by_digest(registry: RegistryServer, algorithm: str) -> None:
    name = f"manifests/by-{algorithm}"
    raw = json.dumps(registry.image(name)).encode()
    digest = Digest.of(raw, algorithm)
    answer = put_manifest(registry, name, str(digest), raw)
    assert answer.status == 201
    assert answer.headers["docker-content-digest"] == str(digest)
    assert "oci-tag" not in answer.headers
    assert registry.request("GET", f"/v2/{name}/manifests/{digest}").body == raw
    assert registry.request("GET", f"/v2/{name}/tags/list").json() == {"name": name, "tags": []}


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_by_another_digest(registry: RegistryServer, algorithm: str) -> None:
    raw = json.dumps(registry.image("manifests/other", os.urandom(9))).encode()
    wrong = Digest.of(os.urandom(9), algorithm)
    answer = put_manifest(registry, "manifests/other", f"{wrong}?tag=t", raw)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    for target in (wrong, Digest.of(raw), Digest.of(raw, "sha512"), "t"):
        assert registry.request("HEAD", f"/v2/manifests/other/manifests/{target}").status == 404
    assert not on_disk(registry, Digest.of(raw))


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_by_tag_with_the_digest_beside_it(registry: RegistryServer, algorithm: str) -> None:
    name = f"manifests/beside-{algorithm}"
    raw = json.dumps(registry.image(name)).encode()
    digest = Digest.of(raw, algorithm)
    answer = put_manifest(registry, name, f"t?digest={Digest.of(b'other', algorithm)}", raw)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert registry.request("HEAD", f"/v2/{name}/manifests/t").status == 404
    answer = put_manifest(registry, name, f"t?digest={digest}", raw)
    assert (answer.status, answer.headers["docker-content-digest"]) == (201, str(digest))
    assert "oci-tag" not in answer.headers
    assert [event["toDigest"] for event in events(registry, name)] == [str(digest)]
    for text in ("sha512:0", "md5:" + "0" * 32, "t"):
        answer = put_manifest(registry, name, f"t?digest={text}", raw)
        assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_by_tag_the_digest_is_of_sha256_whatever_the_content_is_named_by(registry: RegistryServer) -> None:
    """Clients that push to a tag compute SHA-256, and ask for that digest later."""
    name = "manifests/all-sha512"
    config, layer = b'{"architecture": "amd64", "os": "linux"}', os.urandom(9)
    image = registry.image(name, layer)
    image["config"]["digest"] = str(registry.push_blob(name, config, "sha512"))
    image["config"]["size"] = len(config)
    image["layers"][0]["digest"] = str(registry.push_blob(name, layer, "sha512"))
    raw = json.dumps(image).encode()
    assert registry.push_manifest(name, "image", raw) == Digest.of(raw)


@pytest.mark.parametrize("count", [1, 3, 20, 21, 100])
def test_by_digest_with_tags(registry: RegistryServer, count: int) -> None:
    name = f"manifests/tags{count}"
    raw = json.dumps(registry.image(name)).encode()
    digest = Digest.of(raw)
    tags = [f"v{number:03d}" for number in range(count)]
    query_string = "&".join(f"tag={tag}" for tag in tags)
    answer = put_manifest(registry, name, f"{digest}?{query_string}", raw)
    assert answer.status == 201
    # http.client joins nothing: look at the lines themselves.
    request = f"PUT /v2/{name}/manifests/{digest}?{query_string} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    request += f"Content-Type: {media_types.OCI_MANIFEST}\r\nContent-Length: {len(raw)}\r\n\r\n"
    lines = raw_exchange(registry, request.encode() + raw).partition(b"\r\n\r\n")[0].decode().splitlines()
    told = [line.partition(": ")[2] for line in lines if line.lower().startswith("oci-tag:")]
    assert [tag for line in told for tag in line.split(", ")] == tags
    assert registry.request("GET", f"/v2/{name}/tags/list").json()["tags"] == tags
    assert [event["event"] for event in events(registry, name)] == ["created"] * count  # and once only


def test_too_many_tags(registry: RegistryServer) -> None:
    raw = json.dumps(registry.image("manifests/many")).encode()
    query_string = "&".join(f"tag=v{number}" for number in range(101))
    answer = put_manifest(registry, "manifests/many", f"{Digest.of(raw)}?{query_string}", raw)
    assert answer.status == 414
    assert registry.request("GET", f"/v2/manifests/many/manifests/{Digest.of(raw)}").status == 404
    assert events(registry, "manifests/many") == []


@pytest.mark.parametrize(
    "tags", ["tag=ok&tag=.bad", "tag=", "tag=ok&tag=sha256:" + "0" * 64, "tag=" + "x" * 129]
)
def test_one_bad_tag_and_none_is_made(registry: RegistryServer, tags: str) -> None:
    raw = json.dumps(registry.image("manifests/bad-tags")).encode()
    answer = put_manifest(registry, "manifests/bad-tags", f"{Digest.of(raw)}?{tags}", raw)
    assert answer.status == 400
    assert registry.request("HEAD", "/v2/manifests/bad-tags/manifests/ok").status == 404


def test_tag_parameter_beside_a_tag(registry: RegistryServer) -> None:
    raw = json.dumps(registry.image("manifests/tag-tag")).encode()
    assert put_manifest(registry, "manifests/tag-tag", "a?tag=b", raw).status == 400
    assert events(registry, "manifests/tag-tag") == []


@pytest.mark.parametrize("tag", ["x" * 128, "_", "1", "A.b-C_d"])
def test_good_tags(registry: RegistryServer, tag: str) -> None:
    digest = registry.push_image("manifests/good", tag)
    answer = registry.request("HEAD", f"/v2/manifests/good/manifests/{tag}")
    assert answer.headers["docker-content-digest"] == str(digest)


@pytest.mark.parametrize(
    "tag", ["x" * 129, ".x", "-x", "a%20b", "a%00b", "%C3%A4", "a+b", "x" * 30_000, "a@b"]
)
def test_bad_tags(registry: RegistryServer, tag: str) -> None:
    raw = json.dumps(registry.image("manifests/bad")).encode()
    for method in ("PUT", "DELETE"):
        body = raw if method == "PUT" else None
        answer = registry.request(method, f"/v2/manifests/bad/manifests/{tag}", body)
        assert answer.status == 400, (method, answer.body)
    assert events(registry, "manifests/bad") == []


@pytest.mark.parametrize("name", ["manifests/tags", "manifests/nowhere"])
@pytest.mark.parametrize("target", [".INVALID_MANIFEST_NAME", "-a", "a%20b", "t" * 129, "t" * 300])
def test_a_name_that_is_no_tag_is_not_there(registry: RegistryServer, name: str, target: str) -> None:
    registry.push_image("manifests/tags", "good")
    for method in ("HEAD", "GET"):
        answer = registry.request(method, f"/v2/{name}/manifests/{target}")
        assert answer.status == 404
    assert answer.code == "MANIFEST_UNKNOWN"
    assert b"not in repository" not in answer.body


def padded(registry: RegistryServer, name: str, size: int) -> bytes:
    body = {**registry.image(name), "annotations": {"pad": ""}}
    body["annotations"] = {"pad": "x" * (size - len(json.dumps(body)))}
    raw = json.dumps(body).encode()
    assert len(raw) == size
    return raw


def test_as_large_as_the_limit(registry: RegistryServer) -> None:
    raw = padded(registry, "manifests/large", LIMIT)
    assert put_manifest(registry, "manifests/large", "t", raw).status == 201
    assert registry.request("GET", "/v2/manifests/large/manifests/t").body == raw


@pytest.mark.parametrize("size", [LIMIT + 1, 5 << 20])
@pytest.mark.parametrize("streamed", [False, True])
def test_larger_than_the_limit(registry: RegistryServer, size: int, streamed: bool) -> None:
    raw = padded(registry, "manifests/larger", size)
    body = (raw[start : start + 65536] for start in range(0, size, 65536)) if streamed else raw
    answer = registry.request(
        "PUT", "/v2/manifests/larger/manifests/t", body, {"Content-Type": media_types.OCI_MANIFEST}
    )
    assert (answer.status, answer.code) == (413, "SIZE_INVALID")
    assert answer.json()["errors"][0]["detail"] == {"limit": LIMIT}
    assert not on_disk(registry, Digest.of(raw))
    assert events(registry, "manifests/larger") == []


def test_missing_blobs_are_named_and_nothing_is_stored(registry: RegistryServer) -> None:
    name = "manifests/missing"
    there, gone = b"is here", [os.urandom(10) for _ in range(3)]
    config = registry.push_blob(name, b"{}")
    body = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": descriptor(media_types.OCI_CONFIG, config, 2),
        "layers": [
            descriptor(media_types.OCI_LAYER, Digest.of(content), len(content))
            for content in (there, *gone, gone[0])
        ],
    }
    registry.push_blob(name, there)
    registry.push_blob("manifests/elsewhere", gone[0])  # another repository's does not count
    raw = json.dumps(body).encode()
    digest = Digest.of(raw)
    for target in ("t", str(digest), f"{digest}?tag=t"):
        answer = put_manifest(registry, name, target, raw)
        assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")
        named = [item["digest"] for item in answer.json()["errors"][0]["detail"]]
        assert named == [str(Digest.of(content)) for content in gone]
    for target in ("t", str(digest)):
        assert registry.request("GET", f"/v2/{name}/manifests/{target}").status == 404
    assert registry.request("GET", f"/v2/{name}/blobs/{digest}").status == 404
    assert not on_disk(registry, digest)
    assert events(registry, name) == []


def test_missing_config_in_an_unknown_repository(registry: RegistryServer) -> None:
    digest = Digest.of(os.urandom(9))
    body = {"schemaVersion": 2, "config": descriptor(media_types.OCI_CONFIG, digest, 9), "layers": []}
    answer = put_manifest(registry, "manifests/never", "t", json.dumps(body).encode())
    assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert query(registry, "SELECT 1 FROM repositories WHERE name = 'manifests/never'") == []


def test_missing_children(registry: RegistryServer) -> None:
    name = "manifests/children"
    registry.push_blob(name, b"{}")
    as_blob = registry.push_blob(name, os.urandom(50))  # a blob is no child
    missing = Digest.of(os.urandom(10))
    body = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [descriptor(media_types.OCI_MANIFEST, child, 10) for child in (missing, as_blob)],
    }
    answer = put_manifest(registry, name, "t", json.dumps(body).encode(), media_types.OCI_INDEX)
    assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    named = [item["digest"] for item in answer.json()["errors"][0]["detail"]]
    assert named == [str(missing), str(as_blob)]


def test_a_deleted_child_is_missing(registry: RegistryServer) -> None:
    name = "manifests/deleted-child"
    child = registry.push_image(name, "child")
    body = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [descriptor(media_types.OCI_MANIFEST, child, 10)],
    }
    assert registry.request("DELETE", f"/v2/{name}/manifests/{child}").status == 202
    raw = json.dumps(body).encode()
    assert put_manifest(registry, name, "t", raw, media_types.OCI_INDEX).status == 400
    registry.push_image(name, "child")
    assert put_manifest(registry, name, "t", raw, media_types.OCI_INDEX).status == 201


@pytest.mark.parametrize(
    ("kind", "urls", "status"),
    [
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", ["https://example.com/x"], 201),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", ["https://example.com/x"], 201),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", [], 400),
        (media_types.OCI_LAYER, ["https://example.com/x"], 400),
    ],
)
def test_foreign_layers(registry: RegistryServer, kind: str, urls: list[str], status: int) -> None:
    body = registry.image("manifests/foreign")
    body["layers"].append(descriptor(kind, Digest.of(os.urandom(10)), 10, urls=urls))
    assert put_manifest(registry, "manifests/foreign", "t", json.dumps(body).encode()).status == status


def test_exact_bytes_are_kept(registry: RegistryServer) -> None:
    name = "manifests/exact"
    image = registry.image(name)
    odd = json.dumps(image, indent="\t").replace("\n", "\r\n ")
    spaced = (
        ' \n{ "x-unknown": {"deep": [1, 1.0, 1e400, null]}, "x-unknown": "again",' + odd.strip()[1:] + "\n\n "
    )
    escaped = json.dumps({**image, "annotations": {"k\u00e9y": "\U0001f433 \\/ \u007f"}}).replace("/", "\\/")
    for number, text in enumerate((odd, spaced, escaped)):
        raw = text.encode()
        answer = put_manifest(registry, name, f"t{number}", raw)
        assert answer.status == 201, answer.body
        assert answer.headers["docker-content-digest"] == str(Digest.of(raw))
        assert registry.request("GET", f"/v2/{name}/manifests/t{number}").body == raw
        assert registry.request("GET", f"/v2/{name}/manifests/{Digest.of(raw)}").body == raw


@pytest.mark.parametrize("target", ["tag", "digest"])
def test_if_none_match(registry: RegistryServer, target: str) -> None:
    name = f"manifests/etag-{target}"
    digest = registry.push_image(name, "t")
    path = f"/v2/{name}/manifests/{digest if target == 'digest' else 't'}"
    etag = registry.request("GET", path).headers["etag"]
    assert etag == f'"{digest}"'
    for value in (etag, f"W/{etag}", f'"a", {etag}', "*"):
        for method in ("GET", "HEAD"):
            answer = registry.request(method, path, headers={"If-None-Match": value})
            assert (answer.status, answer.body) == (304, b"")
            assert answer.headers["etag"] == etag
            assert answer.headers["docker-content-digest"] == str(digest)
    assert registry.request("GET", path, headers={"If-None-Match": '"other"'}).status == 200
    for value, status in ((etag, 200), ('"other"', 412), (f"W/{etag}", 412), ("*", 200)):
        assert registry.request("GET", path, headers={"If-Match": value}).status == status
    if target == "tag":
        registry.push_image(name, "t", b"moved")
        assert registry.request("GET", path, headers={"If-None-Match": etag}).status == 200


def test_what_is_not_there(registry: RegistryServer) -> None:
    registry.push_image("manifests/present", "t")
    for target in ("other", str(Digest.of(b"no manifest"))):
        for method in ("GET", "HEAD", "DELETE"):
            answer = registry.request(method, f"/v2/manifests/present/manifests/{target}")
            assert answer.status == 404
        assert answer.code == "MANIFEST_UNKNOWN"
        answer = registry.request("GET", f"/v2/manifests/absent/manifests/{target}")
        assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")


def test_a_manifest_of_another_repository_is_not_served(registry: RegistryServer) -> None:
    digest = registry.push_image("manifests/owner", "t", os.urandom(10))
    registry.push_image("manifests/stranger", "t", os.urandom(10))
    for kind in ("manifests", "blobs"):
        assert registry.request("GET", f"/v2/manifests/stranger/{kind}/{digest}").status == 404


NOT_MANIFESTS = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b'"text"',
    b"{",
    b"\xff\xfe\x00",
    b"\x00" * 100,
    b'{"schemaVersion": 2}',
    b'{"schemaVersion": 1, "name": "x", "tag": "y", "fsLayers": []}',
    b'{"schemaVersion": 2, "config": 5, "layers": []}',
    b'{"schemaVersion": 2, "config": {"mediaType": "a", "digest": "sha256:zz", "size": 1}, "layers": []}',
    b'{"schemaVersion": 2, "config": {"mediaType": "a", "digest": "sha256:'
    + b"0" * 64
    + b'", "size": -1}, "layers": []}',
    b'{"schemaVersion": 2, "config": {"mediaType": "a", "digest": "sha256:'
    + b"0" * 64
    + b'", "size": 1e99}, "layers": []}',
    b'{"schemaVersion": 2, "manifests": [[]]}',
    b"[" * 200_000,
    b'{"a":' * 200_000,
    b'{"schemaVersion": 2, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b', "manifests": []}',
]


@pytest.mark.parametrize("raw", NOT_MANIFESTS, ids=range(len(NOT_MANIFESTS)))
@pytest.mark.parametrize("kind", [None, media_types.OCI_MANIFEST, media_types.OCI_INDEX])
def test_what_is_no_manifest(registry: RegistryServer, raw: bytes, kind: str | None) -> None:
    before = digests(registry.root)
    answer = put_manifest(registry, "manifests/hostile", "t", raw, kind)
    assert answer.status == 400, answer.body
    assert answer.code in {"MANIFEST_INVALID", "DIGEST_INVALID"}
    assert len(answer.body) < 2000
    assert digests(registry.root) == before
    assert query(registry, "SELECT 1 FROM manifests WHERE digest = ?", str(Digest.of(raw))) == []
    assert registry.request("GET", "/v2/manifests/hostile/manifests/t").status == 404
    assert query(registry, "SELECT 1 FROM repositories WHERE name = 'manifests/hostile'") == []
    still_answers(registry)


def test_both_image_and_index(registry: RegistryServer) -> None:
    body = {**registry.image("manifests/ambiguous"), "manifests": []}
    assert put_manifest(registry, "manifests/ambiguous", "t", json.dumps(body).encode()).status == 400


def test_duplicate_keys_are_answered_alike_and_kept_as_they_are(registry: RegistryServer) -> None:
    name = "manifests/duplicate"
    image = json.dumps(registry.image(name))
    other = json.dumps(descriptor(media_types.OCI_CONFIG, Digest.of(os.urandom(5)), 5))
    raw = ('{"config": ' + other + ", " + image[1:]).encode()
    answer = put_manifest(registry, name, "t", raw)
    if answer.status == 201:
        assert registry.request("GET", f"/v2/{name}/manifests/t").body == raw
    else:
        assert answer.status == 400
    still_answers(registry)


def test_the_same_digest_again_is_no_event(registry: RegistryServer) -> None:
    name = "manifests/again"
    raw = json.dumps(registry.image(name)).encode()
    for _ in range(3):
        assert put_manifest(registry, name, "t", raw).status == 201
        assert put_manifest(registry, name, f"{Digest.of(raw)}?tag=t&tag=t", raw).status == 201
    assert [(event["event"], event["tag"]) for event in events(registry, name)] == [("created", "t")]


def test_a_referrer_that_is_pushed_again_is_as_old_as_it_was(registry: RegistryServer) -> None:
    name = "manifests/old"
    body = registry.image(name)
    body["subject"] = {"mediaType": body["mediaType"], "digest": str(Digest.of(b"subject")), "size": 7}
    raw = json.dumps(body).encode()
    digest = Digest.of(raw)

    def push() -> None:
        assert put_manifest(registry, name, "t", raw).status == 201

    push()

    def pushed_at() -> int:
        return int(query(registry, "SELECT pushed_at FROM manifests WHERE digest = ?", str(digest))[0][0])

    first = pushed_at()
    push()
    assert pushed_at() == first
    registry.request("DELETE", f"/v2/{name}/manifests/{digest}")
    push()
    assert pushed_at() > first


def test_a_lost_or_damaged_manifest_is_not_served_until_it_is_pushed(registry: RegistryServer) -> None:
    name = "manifests/damaged"
    for harm in (b"", b"x"):
        raw = json.dumps(registry.image(name, os.urandom(9))).encode()
        digest = Digest.of(raw)
        put_manifest(registry, name, "t", raw)
        # Read as a blob: the hot path to manifests has it in memory.
        path = blob_file(registry.root, digest)
        path.write_bytes(harm) if harm else path.unlink()
        answer = registry.request("GET", f"/v2/{name}/blobs/{digest}")
        assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")
        assert str(registry.root).encode() not in answer.body
        # What memory has of it is not served either.
        for target in ("t", str(digest)):
            answer = registry.request("GET", f"/v2/{name}/manifests/{target}")
            assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
            assert b"damaged" in answer.body
            assert b"push an image" in answer.body
            assert registry.request("HEAD", f"/v2/{name}/manifests/{target}").status == 404
        assert put_manifest(registry, name, "t", raw).status == 201
        assert registry.request("GET", f"/v2/{name}/manifests/t").body == raw
        assert registry.request("GET", f"/v2/{name}/blobs/{digest}").body == raw


@pytest.mark.long
def test_answers_for_early_errors_do_not_take_the_body_for_a_request(registry: RegistryServer) -> None:
    """What is in an unread body must never be read as the next request of the connection."""
    inner = b"PUT /v2/manifests/smuggled/manifests/t HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    for length in (len(inner), 5 << 20, 100 << 20):
        head = (
            f"PUT /v2/manifests/early/manifests/-bad HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
        )
        received = raw_exchange(registry, head.encode() + inner, quiet=2.5)
        assert statuses(received) == [400], length
        assert received.count(b"MANIFEST_INVALID") == 1
        assert b"smuggled" not in received
    head = "PUT /v2/manifests/early/manifests/t HTTP/1.1\r\nHost: x\r\nContent-Length: 5242880\r\n\r\n"
    assert statuses(raw_exchange(registry, head.encode() + inner, quiet=2.5)) == [413]


def test_the_connection_serves_on_after_an_error_whose_body_was_read(registry: RegistryServer) -> None:
    refused = b"PUT /v2/manifests/early/manifests/-bad HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    base = b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert statuses(raw_exchange(registry, refused, refused, base)) == [400, 400, 200]


def _said(registry: RegistryServer, name: str, manifest: dict[str, Any], target: str = "t") -> list[str]:
    """Pushes a manifest, which is taken; returns what the registry warns of."""
    kind = manifest["mediaType"]
    answer = registry.request(
        "PUT", f"/v2/{name}/manifests/{target}", json.dumps(manifest).encode(), {"Content-Type": kind}
    )
    assert answer.status == 201
    assert registry.request("GET", f"/v2/{name}/manifests/{target}").body == json.dumps(manifest).encode()
    said = answer.headers.get("warning")
    return [] if said is None else list(read_warnings([said]))


def test_a_wrong_size_is_warned_of(registry: RegistryServer) -> None:
    name = "sizes/image"
    image = registry.image(name, os.urandom(20))
    assert _said(registry, name, image) == []
    layer = {**image["layers"][0], "size": 21}
    (text,) = _said(registry, name, {**image, "layers": [layer]})
    assert text.startswith(f"{layer['digest']} has 20 bytes, and not 21 as the manifest says; some clients ")
    config = {**image["config"], "size": 0}
    (text,) = _said(registry, name, {**image, "config": config})
    assert f"{config['digest']} has {image['config']['size']} bytes, and not 0" in text
    twice = [image["layers"][0], layer]
    (text,) = _said(registry, name, {**image, "layers": twice})
    assert "not 21" in text


def test_a_wrong_size_of_what_an_index_lists_is_warned_of(registry: RegistryServer) -> None:
    name = "sizes/index"
    image = registry.image(name, os.urandom(20))
    digest = registry.push_manifest(name, "one", image)
    size = int(registry.request("HEAD", f"/v2/{name}/manifests/{digest}").headers["content-length"])
    for stated in (size, size + 1):
        child = descriptor(media_types.OCI_MANIFEST, digest, stated)
        index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [child]}
        said = _said(registry, name, index, "all")
        assert [str(digest) in text and f"not {stated}" in text for text in said] == [True] * (stated != size)
