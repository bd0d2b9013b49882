"""Conditions on a tag's move, and the registry's memory: as of a time, whose, restore, the journal."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.registry.support import events, every_page, joined
from tests.support import RegistryServer, Response, descriptor, start_registry


def put(registry: RegistryServer, name: str, target: str, raw: bytes, **headers: str) -> Response:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    kind = json.loads(raw)["mediaType"]
    return registry.request("PUT", f"/v2/{name}/manifests/{target}", raw, {"Content-Type": kind, **named})


def new(registry: RegistryServer, name: str) -> bytes:
    """A new image's manifest, not pushed."""
    return json.dumps(registry.image(name, os.urandom(10))).encode()


def story(registry: RegistryServer, name: str) -> tuple[list[Digest], list[str]]:
    """``t`` is a, then b, then deleted, then a; the digests, and the time of each entry."""
    a, b = new(registry, name), new(registry, name)
    for raw in (a, b):
        assert put(registry, name, "t", raw).status == 201
    assert registry.request("DELETE", f"/v2/{name}/manifests/t").status == 202
    assert put(registry, name, "t", a).status == 201
    return [Digest.of(a), Digest.of(b)], [event["at"] for event in events(registry, name)]


# -- conditions -----------------------------------------------------------------------------------


def test_if_match(registry: RegistryServer) -> None:
    name = "memory/if-match"
    a, b, c = (new(registry, name) for _ in range(3))
    refused = put(registry, name, "t", a, If_Match="*")
    assert (refused.status, refused.code) == (412, "PRECONDITION_FAILED")
    made = put(registry, name, "t", a, If_None_Match="*")
    assert made.status == 201
    etag = made.headers["etag"]
    assert etag == registry.request("HEAD", f"/v2/{name}/manifests/t").headers["etag"]
    assert put(registry, name, "t", b, If_None_Match="*").status == 412
    assert put(registry, name, "t", b, If_Match=etag).status == 201
    stale = put(registry, name, "t", c, If_Match=etag)
    assert stale.status == 412
    assert str(Digest.of(b)) in stale.json()["errors"][0]["message"]
    assert stale.json()["errors"][0]["detail"] == {"tag": "t", "digest": str(Digest.of(b))}
    assert registry.request("GET", f"/v2/{name}/manifests/{Digest.of(c)}").status == 404
    assert put(registry, name, "t", c, If_Match=f'W/"{Digest.of(b)}"').status == 412
    assert put(registry, name, "t", c, If_Match=f'"x", "{Digest.of(b)}"').status == 201
    assert put(registry, name, "t", a, If_None_Match=f'W/"{Digest.of(c)}"').status == 412
    assert [event["event"] for event in events(registry, name)] == ["created", "moved", "moved"]


@pytest.mark.parametrize("value", ["sha256:0", '"a', '"a" "b"', "", '*, "a"', '"a",'])
def test_bad_conditions(registry: RegistryServer, value: str) -> None:
    answer = put(registry, "memory/bad", "t", new(registry, "memory/bad"), If_Match=value)
    assert (answer.status, answer.code) == (400, "UNSUPPORTED"), answer.body


def test_conditions_are_of_every_tag(registry: RegistryServer) -> None:
    name = "memory/tags"
    a, b = new(registry, name), new(registry, name)
    assert put(registry, name, "one", a).status == 201
    target = f"{Digest.of(b)}?tag=one&tag=two"
    assert put(registry, name, target, b, If_Match=f'"{Digest.of(a)}"').status == 412
    assert put(registry, name, target, b, If_None_Match="*").status == 412
    assert registry.request("GET", f"/v2/{name}/tags/list").json()["tags"] == ["one"]
    assert put(registry, name, str(Digest.of(b)), b, If_None_Match="*").status == 201
    assert put(registry, name, str(Digest.of(b)), b, If_None_Match="*").status == 412
    assert put(registry, name, target, b).status == 201


def test_delete_if_match(registry: RegistryServer) -> None:
    name = "memory/delete"
    a, b = new(registry, name), new(registry, name)
    put(registry, name, "t", a)
    put(registry, name, "t", b)
    path = f"/v2/{name}/manifests/t"
    assert registry.request("DELETE", path, headers={"If-Match": f'"{Digest.of(a)}"'}).status == 412
    by_digest = registry.request("DELETE", f"/v2/{name}/manifests/{Digest.of(a)}", headers={"If-Match": "*"})
    assert by_digest.status == 400
    assert registry.request("DELETE", path, headers={"If-Match": f'"{Digest.of(b)}"'}).status == 202
    assert registry.request("DELETE", path, headers={"If-Match": "*"}).status == 412


@pytest.mark.long
def test_compare_and_set_under_contention(registry: RegistryServer) -> None:
    """In each round all ask for what the round before left: exactly one gets it."""
    name, rounds, pushers = "memory/contention", 10, 8
    images = [[new(registry, name) for _ in range(pushers)] for _ in range(rounds)]
    before = new(registry, name)
    put(registry, name, "t", before)
    order = [Digest.of(before)]
    for contenders in images:
        answers: dict[Digest, int] = {}
        barrier = threading.Barrier(pushers)

        def push(raw: bytes, etag: str, answers: dict[Digest, int], barrier: threading.Barrier) -> None:
            barrier.wait()
            answers[Digest.of(raw)] = put(registry, name, "t", raw, If_Match=etag).status

        threads = [
            threading.Thread(target=push, args=(raw, f'"{order[-1]}"', answers, barrier))
            for raw in contenders
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers.values()) == [201] + [412] * (pushers - 1)
        order += [digest for digest, status in answers.items() if status == 201]
    moves = [(event.get("fromDigest"), event["toDigest"]) for event in events(registry, name)]
    assert moves == list(zip([None, *map(str, order)], map(str, order), strict=False))


# -- as of a time ---------------------------------------------------------------------------------


def as_of(registry: RegistryServer, name: str, tag: str, at: str) -> Response:
    return registry.request("GET", f"/v2/{name}/_digestry/tag/{tag}?at={quote(at)}")


def test_a_tag_as_of_a_time(registry: RegistryServer) -> None:
    name = "memory/as-of"
    (a, b), times = story(registry, name)
    body = as_of(registry, name, "t", times[0]).json()
    assert body == {
        "repository": name,
        "at": times[0],
        "span": {
            "tag": "t",
            "digest": str(a),
            "since": times[0],
            "still": False,
            "until": times[1],
            "mediaType": media_types.OCI_MANIFEST,
            "size": body["span"]["size"],
            "sequence": body["span"]["sequence"],
        },
    }
    assert as_of(registry, name, "t", times[1]).json()["span"]["digest"] == str(b)
    gone = as_of(registry, name, "t", times[2])
    assert (gone.status, gone.code) == (404, "MANIFEST_UNKNOWN")
    assert f"there was no tag t in {name} at {times[2]}" in gone.body.decode()
    assert as_of(registry, name, "t", "2000-01-01T00:00:00Z").status == 404
    late = as_of(registry, name, "t", "2100-01-01T00:00:00+02:00").json()
    assert late["span"]["still"] is True
    assert "until" not in late["span"]
    now = registry.request("GET", f"/v2/{name}/_digestry/tag/t").json()
    assert now["span"]["digest"] == str(a)
    unknown = as_of(registry, "memory/nowhere", "t", times[0])
    assert (unknown.status, unknown.code) == (404, "NAME_UNKNOWN")


@pytest.mark.parametrize("at", ["2026-11-01", "now", "", "2026-11-01T00:00:00", "1", "9999-99-99T00:00:00Z"])
def test_bad_times(registry: RegistryServer, at: str) -> None:
    registry.push_image("memory/times", "t")
    for path in (f"tag/t?at={at}", f"tags?at={at}", f"journal?since={at}", f"journal?until={at}"):
        answer = registry.request("GET", f"/v2/memory/times/_digestry/{path}")
        assert (answer.status, answer.code) == (400, "UNSUPPORTED"), path


def test_tags_as_of_a_time(registry: RegistryServer) -> None:
    name = "memory/tags-as-of"
    (a, b), times = story(registry, name)
    for tag in ("z", "m", "a"):
        registry.push_image(name, tag, tag.encode())
    path = f"/v2/{name}/_digestry/tags"

    def at(time: str, more: str = "") -> list[tuple[str, str]]:
        spans = joined(every_page(registry, f"{path}?at={quote(time)}{more}"), "tags")
        return [(span["tag"], span["digest"]) for span in spans]

    assert at(times[0]) == [("t", str(a))]
    assert at(times[1]) == [("t", str(b))]
    assert at(times[2]) == []
    everything = [(row["tag"], row["digest"]) for row in registry.request("GET", path).json()["tags"]]
    assert [tag for tag, _ in everything] == ["a", "m", "t", "z"]
    for size in (1, 2, 3, 4, 5):
        assert at("2100-01-01T00:00:00Z", f"&n={size}") == everything
    first = registry.request("GET", f"{path}?n=1")
    assert f"at={quote(first.json()['at'][:19], safe='')}" in first.headers["link"]
    assert registry.request("GET", "/v2/memory/nowhere/_digestry/tags").status == 404


def test_the_journal_between_two_times(registry: RegistryServer) -> None:
    name = "memory/between"
    _, times = story(registry, name)
    path = f"/v2/{name}/_digestry/journal"
    for since in range(4):
        for until in range(4):
            query = f"since={quote(times[since])}&until={quote(times[until])}&n=1"
            found = joined(every_page(registry, f"{path}?{query}"), "entries")
            assert [event["at"] for event in found] == times[since : until + 1][::-1]


# -- whose ----------------------------------------------------------------------------------------


def whose(registry: RegistryServer, name: str, digest: Digest, query: str = "") -> list[dict[str, Any]]:
    pages = every_page(registry, f"/v2/{name}/_digestry/whose/{digest}{query}")
    assert all(page.json()["digest"] == str(digest) for page in pages)
    return joined(pages, "spans")


def test_whose(registry: RegistryServer) -> None:
    name = "memory/whose"
    (a, b), times = story(registry, name)
    raw = registry.request("GET", f"/v2/{name}/manifests/{a}").body
    body = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [descriptor(media_types.OCI_MANIFEST, a, len(raw))],
    }
    listed = registry.push_manifest(name, "multi", body)
    spans = whose(registry, name, a)
    assert [(span["tag"], span["digest"], span["still"]) for span in spans] == [
        ("multi", str(listed), True),
        ("t", str(a), True),
        ("t", str(a), False),
    ]
    assert (spans[2]["since"], spans[2]["until"]) == (times[0], times[1])
    assert whose(registry, name, a, "?n=1") == spans
    (only,) = whose(registry, name, b)
    assert (only["since"], only["until"]) == (times[1], times[2])
    config = Digest.parse(json.loads(raw)["config"]["digest"])
    assert whose(registry, name, config) == spans
    assert whose(registry, name, Digest.of(b"never")) == []
    assert whose(registry, "memory/nowhere", a) == []
    # Another repository's tags are not told.
    registry.push_image("memory/whose-other", "t")
    assert whose(registry, name, a) == spans
    # And what was, is told after all of it is gone.
    for digest in (listed, a):
        assert registry.request("DELETE", f"/v2/{name}/manifests/{digest}").status == 202
    assert [span["still"] for span in whose(registry, name, a)] == [False] * 3
    bad = registry.request("GET", f"/v2/{name}/_digestry/whose/sha256:1")
    assert (bad.status, bad.code) == (400, "DIGEST_INVALID")


def test_whose_in_all_repositories(registry: RegistryServer) -> None:
    (a, b), _ = story(registry, "memory/everywhere")
    raw = registry.request("GET", f"/v2/memory/everywhere/manifests/{a}").body
    body = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [descriptor(media_types.OCI_MANIFEST, a, len(raw))],
    }
    config = Digest.parse(json.loads(raw)["config"]["digest"])
    layer = Digest.parse(json.loads(raw)["layers"][0]["digest"])
    for blob in (config, layer):
        mounted = f"/v2/memory/elsewhere/blobs/uploads/?mount={blob}&from=memory/everywhere"
        assert registry.request("POST", mounted).status == 201
    registry.push_manifest("memory/elsewhere", str(a), raw)
    listed = registry.push_manifest("memory/elsewhere", "multi", body)

    def everywhere(digest: Digest, query: str = "") -> list[dict[str, Any]]:
        return joined(every_page(registry, f"/v2/_digestry/whose/{digest}{query}"), "spans")

    spans = everywhere(a)
    assert [(span["repository"], span["tag"], span["digest"]) for span in spans] == [
        ("memory/elsewhere", "multi", str(listed)),
        ("memory/everywhere", "t", str(a)),
        ("memory/everywhere", "t", str(a)),
    ]
    assert everywhere(a, "?n=1") == everywhere(a, "?n=2") == spans
    assert everywhere(config) == spans
    assert [span["repository"] for span in everywhere(b)] == ["memory/everywhere"]
    assert everywhere(layer) == everywhere(Digest.of(b"never")) == []
    bad = registry.request("GET", "/v2/_digestry/whose/sha256:1")
    assert (bad.status, bad.code) == (400, "DIGEST_INVALID")
    assert registry.request("POST", f"/v2/_digestry/whose/{a}").status == 405


@pytest.mark.long
def test_no_page_ends_between_moves_of_one_time(tmp_path: Path) -> None:
    """Times differ in each repository, but not between two of them."""
    layer = b"the same everywhere"
    root = tmp_path / "root"
    server = start_registry(root)
    for number in range(5):
        image = server.push_image(f"tied/{number}", "t", layer)
    server.stop()
    with closing(sqlite3.connect(root / "catalog.db")) as connection, connection:
        connection.execute("DROP TRIGGER journal_no_update")
        connection.execute("UPDATE journal SET at = 1800000000000000 - (sequence IN (1, 2))")
    server = start_registry(root)
    try:
        path = f"/v2/_digestry/whose/{image}"
        for size, lengths in ((1, [3, 2]), (2, [3, 2]), (3, [3, 2]), (4, [5]), (5, [5])):
            pages = every_page(server, f"{path}?n={size}")
            assert [len(page.json()["spans"]) for page in pages] == lengths, size
            names = [span["repository"] for page in pages for span in page.json()["spans"]]
            assert names == [f"tied/{number}" for number in (4, 3, 2, 1, 0)]
        # By position, as an older client asks: what is older than the entry there.
        older = server.request("GET", f"{path}?before=3").json()["spans"]
        assert [span["repository"] for span in older] == ["tied/1", "tied/0"]
        assert server.request("GET", f"{path}?before=1").json()["spans"] == []
        assert len(server.request("GET", f"{path}?before=99").json()["spans"]) == 5
    finally:
        server.stop()


# -- restore --------------------------------------------------------------------------------------


def restore(registry: RegistryServer, name: str, query: str, **headers: str) -> Response:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return registry.request("POST", f"/v2/{name}/_digestry/restore/t?{query}", headers=named)


def test_restore(registry: RegistryServer) -> None:
    name = "memory/restore"
    (a, b), times = story(registry, name)
    answer = restore(registry, name, f"to={b}", User_Agent="restorer/1")
    assert answer.status == 200
    assert answer.headers["docker-content-digest"] == str(b)
    body = answer.json()
    assert (body["repository"], body["tag"]) == (name, "t")
    assert (body["fromDigest"], body["toDigest"]) == (str(a), str(b))
    newest = events(registry, name)[-1]
    assert body["event"] == newest
    assert (newest["event"], newest["client"], newest["fromDigest"]) == ("moved", "restorer/1", str(a))
    assert registry.request("HEAD", f"/v2/{name}/manifests/t").headers["docker-content-digest"] == str(b)
    again = restore(registry, name, f"at={times[1]}")
    assert again.status == 200
    assert "event" not in again.json()
    assert restore(registry, name, f"at={times[0]}").json()["toDigest"] == str(a)
    assert len(events(registry, name)) == 6


def test_restore_says_why_it_cannot(registry: RegistryServer) -> None:
    name = "memory/unrestored"
    (a, b), times = story(registry, name)
    never = restore(registry, name, f"to={Digest.of(b'never')}")
    assert (never.status, never.code) == (404, "MANIFEST_UNKNOWN")
    assert "never pointed to" in never.body.decode()
    assert restore(registry, name, f"at={times[2]}").status == 404
    for query in ("", f"to={a}&at={times[0]}", "at=yesterday", "to=sha256:1", f"to={a}&to={b}"):
        assert restore(registry, name, query).status == 400, query
    assert restore(registry, "memory/nowhere", f"to={a}").code == "NAME_UNKNOWN"
    assert restore(registry, name, f"to={b}", If_Match=f'"{b}"').status == 412
    assert registry.request("GET", f"/v2/{name}/_digestry/restore/t?to={a}").status == 405
    assert registry.request("POST", f"/v2/{name}/_digestry/tags").status == 405
    assert registry.request("DELETE", f"/v2/{name}/manifests/{b}").status == 202
    gone = restore(registry, name, f"to={b}")
    assert gone.status == 404
    assert "does not have any more" in gone.body.decode()
    assert len(events(registry, name)) == 4


def test_discovery_names_them(registry: RegistryServer) -> None:
    extensions = registry.request("GET", "/v2/_oci/ext/discover").json()["extensions"]
    endpoints = {endpoint for extension in extensions for endpoint in extension["endpoints"]}
    assert endpoints >= {
        "_digestry/tag/<tag>",
        "_digestry/tags",
        "_digestry/whose/<digest>",
        "_digestry/restore/<tag>",
    }


# -- the beginning of a digest ----------------------------------------------------------------------


def beginning(registry: RegistryServer, name: str, text: str) -> Any:
    found = registry.request(
        "GET", f"/v2/{name}/_digestry/digests/{text}" if name else f"/v2/_digestry/digests/{text}"
    )
    assert found.status == 200, found.body
    return found.json()


def test_digests_by_their_beginning_in_all_roles_and_times(registry: RegistryServer) -> None:
    name = "memory/beginnings"
    raws = [new(registry, name) for _ in range(3)]
    overwritten, deleted, current = map(Digest.of, raws)
    for raw in raws:
        assert put(registry, name, "t", raw).status == 201
    assert registry.request("DELETE", f"/v2/{name}/manifests/{deleted}").status == 202
    config = Digest.parse(json.loads(raws[0])["config"]["digest"])
    missing = Digest.of(os.urandom(8))
    index = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [descriptor(media_types.OCI_MANIFEST, current, len(raws[2]))],
    }
    assert put(registry, name, "i", json.dumps(index).encode()).status == 201
    for digest in (overwritten, deleted, current, config, Digest.of(json.dumps(index).encode())):
        for text in (digest.encoded[:7], str(digest)[:20], digest.encoded, str(digest)):
            assert beginning(registry, name, text) == {"prefix": text, "digests": [str(digest)]}, digest
            assert str(digest) in beginning(registry, "", text)["digests"]
    assert beginning(registry, name, missing.short)["digests"] == []
    assert beginning(registry, "", missing.short)["digests"] == []
    other = "memory/beginnings-elsewhere"
    registry.push_image(other, "t")
    assert beginning(registry, other, current.short)["digests"] == []


@pytest.mark.parametrize(
    "text", ["abcdef", "ABCDEF01", "sha256:", "md5:abcdef01", "latest", "a" * 129, "%27"]
)
def test_what_begins_no_digest(registry: RegistryServer, text: str) -> None:
    for path in (f"/v2/memory/any/_digestry/digests/{text}", f"/v2/_digestry/digests/{text}"):
        answer = registry.request("GET", path)
        assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    unknown = registry.request("GET", "/v2/memory/nowhere/_digestry/digests/abcdef01")
    assert (unknown.status, unknown.code) == (404, "NAME_UNKNOWN")
    assert registry.request("POST", "/v2/_digestry/digests/abcdef01").status == 405


def test_a_time_to_the_second_is_that_whole_second(registry: RegistryServer) -> None:
    name = "memory/seconds"
    digests, times = story(registry, name)
    while len({time[:19] for time in times}) > 1:  # all within one second
        name += "x"
        digests, times = story(registry, name)
    second = f"{times[0][:19]}Z"
    assert (
        registry.request("GET", f"/v2/{name}/_digestry/tag/t?at={second}").json()["span"]["since"] == times[3]
    )
    exact = registry.request("GET", f"/v2/{name}/_digestry/tag/t?at={times[0]}").json()["span"]
    assert (exact["since"], exact["digest"]) == (times[0], str(digests[0]))
    journal = registry.request("GET", f"/v2/{name}/_digestry/journal?since={second}&until={second}").json()
    assert [entry["at"] for entry in journal["entries"]] == times[::-1]
