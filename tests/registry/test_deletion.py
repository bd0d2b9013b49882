"""Deletion: of tags, of manifests with their tags, of blobs; and what is in use stays."""

from __future__ import annotations

import json
import os

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.registry.support import events, put_manifest
from tests.support import RegistryServer, descriptor


def test_tag(registry: RegistryServer) -> None:
    name = "deletion/tag"
    digest = registry.push_image(name, "a")
    registry.push_image(name, "b")
    assert registry.request("DELETE", f"/v2/{name}/manifests/a").status == 202
    assert registry.request("GET", f"/v2/{name}/manifests/a").status == 404
    for target in ("b", digest):
        assert registry.request("GET", f"/v2/{name}/manifests/{target}").status == 200
    last = events(registry, name)[-1]
    assert (last["event"], last["tag"], last["fromDigest"]) == ("deleted", "a", str(digest))
    assert "toDigest" not in last
    assert last["mediaType"] == media_types.OCI_MANIFEST
    assert last["size"] > 0
    answer = registry.request("DELETE", f"/v2/{name}/manifests/a")
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
    assert len(events(registry, name)) == 3


def test_manifest_with_its_tags(registry: RegistryServer) -> None:
    name = "deletion/manifest"
    digest = registry.push_image(name, "a")
    registry.push_image(name, "b")
    other = registry.push_image(name, "c", os.urandom(10))
    assert registry.request("DELETE", f"/v2/{name}/manifests/{digest}").status == 202
    for target in ("a", "b", digest):
        for method in ("GET", "HEAD"):
            assert registry.request(method, f"/v2/{name}/manifests/{target}").status == 404
    assert registry.request("GET", f"/v2/{name}/blobs/{digest}").status == 404
    assert registry.request("GET", f"/v2/{name}/tags/list").json()["tags"] == ["c"]
    assert registry.request("GET", f"/v2/{name}/manifests/{other}").status == 200
    assert [(event["event"], event["tag"]) for event in events(registry, name)[-2:]] == [
        ("deleted", "a"),
        ("deleted", "b"),
    ]
    answer = registry.request("DELETE", f"/v2/{name}/manifests/{digest}")
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")


def test_deleted_and_pushed_again(registry: RegistryServer) -> None:
    name = "deletion/again"
    raw = json.dumps(registry.image(name)).encode()
    for _ in range(3):
        assert put_manifest(registry, name, "t", raw).status == 201
        assert registry.request("GET", f"/v2/{name}/manifests/{Digest.of(raw)}").body == raw
        assert registry.request("DELETE", f"/v2/{name}/manifests/{Digest.of(raw)}").status == 202
        assert registry.request("GET", f"/v2/{name}/manifests/t").status == 404
    assert [event["event"] for event in events(registry, name)] == ["created", "deleted"] * 3


def test_only_in_this_repository(registry: RegistryServer) -> None:
    layer = os.urandom(10)
    digest = registry.push_image("deletion/here", "t", layer)
    assert registry.push_image("deletion/there", "t", layer) == digest
    assert registry.request("DELETE", f"/v2/deletion/here/manifests/{digest}").status == 202
    assert registry.request("GET", f"/v2/deletion/there/manifests/{digest}").status == 200
    assert registry.request("DELETE", f"/v2/deletion/here/blobs/{Digest.of(layer)}").status == 202
    assert registry.request("GET", f"/v2/deletion/there/blobs/{Digest.of(layer)}").body == layer


def test_blob(registry: RegistryServer) -> None:
    name = "deletion/blob"
    digest = registry.push_blob(name, os.urandom(10))
    assert registry.request("DELETE", f"/v2/{name}/blobs/{digest}").status == 202
    for method in ("GET", "HEAD", "DELETE"):
        assert registry.request(method, f"/v2/{name}/blobs/{digest}").status == 404


def test_blob_in_use(registry: RegistryServer) -> None:
    name = "deletion/in-use"
    layer = os.urandom(10)
    digest = registry.push_image(name, "t", layer)
    config = registry.request("GET", f"/v2/{name}/manifests/t").json()["config"]["digest"]
    for blob in (Digest.of(layer), config):
        answer = registry.request("DELETE", f"/v2/{name}/blobs/{blob}")
        assert answer.status == 409
        assert str(digest) in answer.json()["errors"][0]["message"]
        assert registry.request("HEAD", f"/v2/{name}/blobs/{blob}").status == 200
    # Without its tag the manifest can still be pulled, and needs them.
    assert registry.request("DELETE", f"/v2/{name}/manifests/t").status == 202
    assert registry.request("DELETE", f"/v2/{name}/blobs/{config}").status == 409
    assert registry.request("DELETE", f"/v2/{name}/manifests/{digest}").status == 202
    assert registry.request("DELETE", f"/v2/{name}/blobs/{config}").status == 202
    # Now the manifest cannot come back before its content does.
    raw = json.dumps({"schemaVersion": 2, "config": descriptor("a/b", Digest.parse(config), 9), "layers": []})
    assert put_manifest(registry, name, "t", raw.encode()).code == "MANIFEST_BLOB_UNKNOWN"


def test_child_of_an_index(registry: RegistryServer) -> None:
    name = "deletion/child"
    child = registry.push_image(name, "child")
    body = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [descriptor(media_types.OCI_MANIFEST, child, 10)],
    }
    index = registry.push_manifest(name, "index", body)
    outer = registry.push_manifest(
        name, "outer", {**body, "manifests": [descriptor(media_types.OCI_INDEX, index, 10)]}
    )
    for listed, by in ((child, index), (index, outer)):
        answer = registry.request("DELETE", f"/v2/{name}/manifests/{listed}")
        assert answer.status == 409
        assert str(by) in answer.json()["errors"][0]["message"]
        assert registry.request("GET", f"/v2/{name}/manifests/{listed}").status == 200
    assert registry.request("GET", f"/v2/{name}/tags/list").json()["tags"] == ["child", "index", "outer"]
    for digest in (outer, index, child):
        assert registry.request("DELETE", f"/v2/{name}/manifests/{digest}").status == 202
    assert registry.request("GET", f"/v2/{name}/tags/list").json()["tags"] == []


def test_of_what_never_was(registry: RegistryServer) -> None:
    digest = Digest.of(os.urandom(10))
    registry.push_blob("deletion/known", b"{}")
    for target, code in (("t", "MANIFEST_UNKNOWN"), (digest, "MANIFEST_UNKNOWN")):
        answer = registry.request("DELETE", f"/v2/deletion/known/manifests/{target}")
        assert (answer.status, answer.code) == (404, code)
        answer = registry.request("DELETE", f"/v2/deletion/unknown/manifests/{target}")
        assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")
    for name in ("deletion/known", "deletion/unknown"):
        assert registry.request("DELETE", f"/v2/{name}/blobs/{digest}").code == "BLOB_UNKNOWN"
