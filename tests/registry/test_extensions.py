"""What is beyond the distribution-spec: tag history (a draft), the journal, holders, advisories."""

from __future__ import annotations

import datetime
import json
import os
from typing import Any
from urllib.parse import quote

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.registry.support import events, every_page, joined, next_path, put_manifest
from tests.support import RegistryServer, descriptor

TIMESTAMP = "org.opencontainers.distribution.tag.timestamp"
EVENT = "org.opencontainers.distribution.tag.event"


def story(registry: RegistryServer, name: str) -> tuple[Digest, Digest]:
    """created a, moved to b, moved back to a, deleted, created b."""
    a = registry.push_image(name, "t", os.urandom(10))
    b = registry.push_image(name, "t", os.urandom(10))
    raw = registry.request("GET", f"/v2/{name}/manifests/{a}").body
    put_manifest(registry, name, "t", raw)
    put_manifest(registry, name, "t", raw)  # no change, no event
    assert registry.request("DELETE", f"/v2/{name}/manifests/t").status == 202
    raw = registry.request("GET", f"/v2/{name}/manifests/{b}").body
    put_manifest(registry, name, "t", raw)
    return a, b


def history(registry: RegistryServer, name: str, query: str = "", tag: str = "t") -> list[dict[str, Any]]:
    answer = registry.request("GET", f"/v2/{name}/_oci/tag-history/{tag}{query}")
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == media_types.OCI_INDEX
    body = answer.json()
    assert (body["schemaVersion"], body["mediaType"]) == (2, media_types.OCI_INDEX)
    found: list[dict[str, Any]] = body["manifests"]
    return found


def told(entries: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(entry["annotations"][EVENT], entry["digest"]) for entry in entries]


def times(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["annotations"][TIMESTAMP] for entry in entries]


def test_history_is_newest_first(registry: RegistryServer) -> None:
    name = "extensions/history"
    a, b = story(registry, name)
    entries = history(registry, name)
    assert told(entries) == [
        ("created", str(b)),
        ("deleted", str(a)),
        ("created", str(a)),
        ("created", str(b)),
        ("created", str(a)),
    ]
    assert times(entries) == sorted(times(entries), reverse=True)
    assert len(set(times(entries))) == 5
    now = datetime.datetime.now(datetime.UTC)
    for entry in entries:
        assert entry["mediaType"] == media_types.OCI_MANIFEST
        size = len(registry.request("GET", f"/v2/{name}/manifests/{entry['digest']}").body)
        assert entry["size"] == size
        moment = datetime.datetime.fromisoformat(entry["annotations"][TIMESTAMP])
        assert abs(now - moment) < datetime.timedelta(minutes=1)


def test_history_outlives_the_tag_and_the_manifest(registry: RegistryServer) -> None:
    name = "extensions/outlives"
    digest = registry.push_image(name, "t")
    registry.request("DELETE", f"/v2/{name}/manifests/{digest}")
    assert told(history(registry, name)) == [("deleted", str(digest)), ("created", str(digest))]
    assert history(registry, name)[0]["size"] > 0


def test_history_is_never_a_404(registry: RegistryServer) -> None:
    registry.push_image("extensions/other-tag", "other")
    assert history(registry, "extensions/other-tag") == []
    assert history(registry, "extensions/never-seen") == []
    assert registry.request("HEAD", "/v2/extensions/never-seen/_oci/tag-history/t").status == 200


@pytest.mark.parametrize("size", [1, 2, 4, 5, 6])
def test_history_in_pages(registry: RegistryServer, size: int) -> None:
    name = f"extensions/pages{size}"
    story(registry, name)
    whole = history(registry, name)
    pages = every_page(registry, f"/v2/{name}/_oci/tag-history/t?n={size}")
    assert joined(pages, "manifests") == whole
    assert len(pages) == -(-5 // size)


def test_history_of_none(registry: RegistryServer) -> None:
    name = "extensions/none"
    story(registry, name)
    answer = registry.request("GET", f"/v2/{name}/_oci/tag-history/t?n=0")
    assert answer.json()["manifests"] == []
    assert "link" not in answer.headers


def test_history_before_and_since(registry: RegistryServer) -> None:
    name = "extensions/window"
    story(registry, name)
    whole = history(registry, name)
    moments = times(whole)
    assert history(registry, name, f"?before={moments[1]}") == whole[2:]
    assert history(registry, name, f"?since={moments[3]}") == whole[:3]
    assert history(registry, name, f"?before={moments[0]}&since={moments[4]}") == whole[1:4]
    assert history(registry, name, f"?since={moments[0]}") == []
    assert history(registry, name, "?since=1970-01-01T00:00:00Z") == whole
    assert history(registry, name, "?before=9999-12-31T23:59:59.999999999Z") == whole
    assert history(registry, name, "?since=2001-01-01t00:00:00z") == whole
    # The same moment, told in another zone.
    there = datetime.datetime.fromisoformat(moments[1]).astimezone(
        datetime.timezone(datetime.timedelta(hours=9))
    )
    assert history(registry, name, f"?before={quote(there.isoformat())}") == whole[2:]


@pytest.mark.parametrize(
    "value",
    ["", "yesterday", "2026-11-21", "2026-11-21T10:02:03", "1763719323", "2026-13-01T00:00:00Z", "%00"],
)
@pytest.mark.parametrize("parameter", ["before", "since"])
def test_history_of_what_is_no_time(registry: RegistryServer, parameter: str, value: str) -> None:
    answer = registry.request("GET", f"/v2/extensions/x/_oci/tag-history/t?{parameter}={value}")
    assert answer.status == 400
    assert "RFC 3339" in answer.json()["errors"][0]["message"]


def test_history_of_one_digest(registry: RegistryServer) -> None:
    name = "extensions/by-digest"
    a, b = story(registry, name)
    assert told(history(registry, name, f"?digest={a}")) == [
        ("deleted", str(a)),
        ("created", str(a)),
        ("created", str(a)),
    ]
    assert told(history(registry, name, f"?digest={b}")) == [("created", str(b))] * 2
    assert history(registry, name, f"?digest={Digest.of(b'other')}") == []
    assert registry.request("GET", f"/v2/{name}/_oci/tag-history/t?digest=x").code == "DIGEST_INVALID"
    pages = every_page(registry, f"/v2/{name}/_oci/tag-history/t?digest={a}&n=1")
    assert [len(page.json()["manifests"]) for page in pages] == [1, 1, 1]


def test_history_of_what_is_no_tag(registry: RegistryServer) -> None:
    for tag in (".x", "x" * 129, "a/b", "a%20b", ""):
        answer = registry.request("GET", f"/v2/extensions/x/_oci/tag-history/{tag}")
        assert answer.status == 400, tag


def test_discovery(registry: RegistryServer) -> None:
    for path in ("/v2/_oci/ext/discover", "/v2/extensions/history/_oci/ext/discover"):
        answer = registry.request("GET", path)
        assert answer.status == 200
        names = [extension["name"] for extension in answer.json()["extensions"]]
        assert names == ["_oci", "_digestry"]
        assert all(
            set(one) == {"name", "description", "url", "endpoints"} for one in answer.json()["extensions"]
        )


def test_journal(registry: RegistryServer) -> None:
    name = "extensions/journal"
    headers = {"User-Agent": "pusher/1.0 " + "x" * 400, "Content-Type": media_types.OCI_MANIFEST}
    raw = json.dumps(registry.image(name)).encode()
    registry.request("PUT", f"/v2/{name}/manifests/t", raw, headers)
    (entry,) = events(registry, name)
    assert entry["client"] == ("pusher/1.0 " + "x" * 400)[:256]
    assert entry["address"] == "127.0.0.1"
    assert entry["actor"] == "anonymous"
    assert len(entry["hash"]) == len(entry["previousHash"]) == 64
    registry.push_image(name, "u", os.urandom(10))
    registry.push_image(name, "t", os.urandom(10))
    found = events(registry, name)
    assert [one["tag"] for one in found] == ["t", "u", "t"]
    assert [
        one["tag"] for one in joined(every_page(registry, f"/v2/{name}/_digestry/journal?n=1"), "entries")
    ] == [
        "t",
        "u",
        "t",
    ]
    only = registry.request("GET", f"/v2/{name}/_digestry/journal?tag=t").json()["entries"]
    assert [one["event"] for one in only] == ["moved", "created"]
    pages = every_page(registry, f"/v2/{name}/_digestry/journal?tag=t&n=1")
    assert joined(pages, "entries") == only
    assert registry.request("GET", "/v2/extensions/never/_digestry/journal").json()["entries"] == []
    for query in ("before=x", "before=-1", "tag=.x", "n=x", "before=" + "9" * 40):
        assert registry.request("GET", f"/v2/{name}/_digestry/journal?{query}").status == 400


def holders(registry: RegistryServer, name: str, digest: Digest | str) -> dict[str, dict[str, Any]]:
    answer = registry.request("GET", f"/v2/{name}/_digestry/holders/{digest}")
    assert answer.status == 200, answer.body
    assert answer.json()["digest"] == str(digest)
    return {item["digest"]: item for item in answer.json()["holders"]}


def test_holders(registry: RegistryServer) -> None:
    name = "extensions/holders"
    image = registry.push_image(name, "t", os.urandom(10))
    config = registry.request("GET", f"/v2/{name}/manifests/{image}").json()["config"]["digest"]
    other = registry.push_image(name, "other", os.urandom(10))

    def push_index(tag: str, *children: Digest) -> Digest:
        body = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_INDEX,
            "manifests": [descriptor(media_types.OCI_MANIFEST, child, 10) for child in children],
            "annotations": {"tag": tag},
        }
        return registry.push_manifest(name, tag, body)

    inner = push_index("inner", image, other)
    outer = push_index("outer", inner)
    for digest in (image, config):
        found = holders(registry, name, digest)
        assert set(found) == {str(image), str(inner), str(outer)}
        assert found[str(image)]["config"] == config
        assert found[str(inner)]["manifests"] == sorted([str(image), str(other)])
    assert set(holders(registry, name, inner)) == {str(inner), str(outer)}
    assert set(holders(registry, name, outer)) == {str(outer)}
    # Overwritten and deleted ones are still known; that they cannot be pulled is said.
    push_index("outer", other)
    assert registry.request("DELETE", f"/v2/{name}/manifests/{outer}").status == 202
    assert registry.request("DELETE", f"/v2/{name}/manifests/{inner}").status == 202
    found = holders(registry, name, image)
    assert {digest: item.get("present", True) for digest, item in found.items()} == {
        str(image): True,
        str(inner): False,
        str(outer): False,
    }
    assert holders(registry, name, Digest.of(b"never")) == {}
    assert holders(registry, "extensions/never", image) == {}
    assert registry.request("GET", f"/v2/{name}/_digestry/holders/x").code == "DIGEST_INVALID"


def push_advisory(registry: RegistryServer, name: str, subject: Digest, predicate: str) -> Digest:
    empty = registry.push_blob(name, b"{}")
    statement = registry.push_blob(name, os.urandom(20))
    body = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": media_types.IN_TOTO,
        "config": descriptor(media_types.OCI_EMPTY, empty, 2),
        "layers": [descriptor(media_types.IN_TOTO, statement, 20)],
        "subject": descriptor(media_types.OCI_MANIFEST, subject, 100),
        "annotations": {media_types.PREDICATE_TYPE: predicate},
    }
    return registry.push_manifest(name, str(Digest.of(json.dumps(body).encode())), body)


def test_advisories(registry: RegistryServer) -> None:
    name = "extensions/advisories"
    subject = registry.push_image(name, "t")
    vex = [push_advisory(registry, name, subject, f"{media_types.OPENVEX}/v0.2.0") for _ in range(4)]
    push_advisory(registry, name, subject, "https://slsa.dev/provenance/v1")
    answer = registry.request("GET", f"/v2/{name}/_digestry/advisories")
    assert answer.status == 200
    found = answer.json()["advisories"]
    assert [item["digest"] for item in found] == [str(digest) for digest in reversed(vex)]
    assert {item["subject"] for item in found} == {str(subject)}
    for size in (1, 2, 3, 4):
        assert (
            joined(every_page(registry, f"/v2/{name}/_digestry/advisories?n={size}"), "advisories") == found
        )
    registry.request("DELETE", f"/v2/{name}/manifests/{vex[0]}")
    assert len(registry.request("GET", f"/v2/{name}/_digestry/advisories").json()["advisories"]) == 3
    assert registry.request("GET", "/v2/extensions/never/_digestry/advisories").json()["advisories"] == []
    assert registry.request("GET", f"/v2/{name}/_digestry/advisories?last=x").code == "DIGEST_INVALID"


@pytest.mark.parametrize(
    "path", ["", "nothing", "journal/x", "holders", "holders/", "advisories/x", "../journal"]
)
def test_unknown_extensions(registry: RegistryServer, path: str) -> None:
    answer = registry.request("GET", f"/v2/extensions/x/_digestry/{path}")
    assert answer.status == 404
    assert next_path(answer.headers) is None
