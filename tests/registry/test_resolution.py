"""One question about many images: what it answers is what the single questions answer."""

from __future__ import annotations

import itertools
import json
import os
from typing import Any

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.resolution import LARGEST_REQUEST, MOST_EVENTS, MOST_QUERIES, MOST_SPANS, MOST_THINGS
from tests.registry.support import put_manifest
from tests.support import RegistryServer, Response, descriptor

PATH = "/v2/_digestry/resolve"


def post(registry: RegistryServer, queries: Any, **more: Any) -> Response:
    body = json.dumps({"queries": queries, **more})
    return registry.request("POST", PATH, body, {"Content-Type": "application/json"})


def resolve(registry: RegistryServer, *queries: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    answer = post(registry, queries, **more)
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = answer.json()["resolutions"]
    assert [one["repository"] for one in found] == [one["repository"] for one in queries]
    return found


def push_index(registry: RegistryServer, name: str, tag: str, *children: Digest) -> Digest:
    body = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [descriptor(media_types.OCI_MANIFEST, child, 10) for child in children],
        "annotations": {"tag": tag},
    }
    return registry.push_manifest(name, tag, body)


def attach(registry: RegistryServer, name: str, subject: Digest, layer: bytes = b"", **extra: Any) -> Digest:
    empty = registry.push_blob(name, b"{}")
    content = layer or os.urandom(20).hex().encode()
    body = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": media_types.IN_TOTO,
        "config": descriptor(media_types.OCI_EMPTY, empty, 2),
        "layers": [descriptor(media_types.IN_TOTO, registry.push_blob(name, content), len(content))],
        "subject": descriptor(media_types.OCI_MANIFEST, subject, 100),
        "annotations": {media_types.PREDICATE_TYPE: f"{media_types.OPENVEX}/v0.2.0"},
        **extra,
    }
    return registry.push_manifest(name, str(Digest.of(json.dumps(body).encode())), body)


def alone(registry: RegistryServer, name: str, digest: str) -> list[dict[str, Any]]:
    answer = registry.request("GET", f"/v2/{name}/_digestry/holders/{digest}")
    found: list[dict[str, Any]] = answer.json()["holders"]
    return found


def test_it_says_what_single_questions_say(registry: RegistryServer) -> None:
    name = "resolution/same"
    one = registry.push_image(name, "t", os.urandom(10))
    config = registry.request("GET", f"/v2/{name}/manifests/{one}").json()["config"]["digest"]
    sibling = registry.push_manifest(
        name,
        "sibling",
        registry.request("GET", f"/v2/{name}/manifests/{one}").json() | {"annotations": {"squeezed": "more"}},
    )
    other = registry.push_image(name, "other", os.urandom(10))
    inner = push_index(registry, name, "inner", one, other)
    outer = push_index(registry, name, "t", inner)
    gone = push_index(registry, name, "gone", other)
    registry.request("DELETE", f"/v2/{name}/manifests/{gone}")
    older, newer = attach(registry, name, one), attach(registry, name, one)
    never = Digest.of(os.urandom(10))
    asked = [str(digest) for digest in (one, inner, never)]
    (found,) = resolve(registry, {"repository": name, "digests": asked, "tags": ["t", "no"]})
    nodes = {node["digest"]: node for node in found["nodes"]}
    # Of what was asked, of what the tag points to, of what is in an index, and of the code of those.
    assert {*asked, str(outer), str(other), config} <= set(found["holders"])
    for digest, holding in found["holders"].items():
        assert [nodes[one] for one in holding] == alone(registry, name, digest), digest
    assert set(nodes) >= {str(digest) for digest in (one, sibling, other, inner, outer, gone)}
    assert nodes[str(gone)]["present"] is False
    assert found["holders"][str(never)] == []
    for digest, referrers in found["referrers"].items():
        listed = registry.request("GET", f"/v2/{name}/referrers/{digest}").json()["manifests"]
        assert referrers == listed
    assert [item["digest"] for item in found["referrers"][str(one)]] == [str(newer), str(older)]
    assert set(found["referrers"]) >= set(nodes) | set(asked)
    there, missing = found["tags"]
    assert there["target"]["digest"] == str(outer)
    entries = registry.request("GET", f"/v2/{name}/_digestry/journal?tag=t").json()["entries"]
    hidden = {"address", "client", "hash", "previousHash", "number", "sequence"}
    wanted = [{key: value for key, value in entry.items() if key not in hidden} for entry in entries]
    assert there["events"] == wanted
    assert "more" not in there
    assert missing == {"tag": "no"}


def test_of_several_repositories_each_its_own(registry: RegistryServer) -> None:
    layer = os.urandom(10)
    names = ["resolution/a", "resolution/b", "resolution/never"]
    image, same = (registry.push_image(name, "t", layer) for name in names[:2])
    assert image == same
    registry.push_image("resolution/b", "t", os.urandom(10))
    first, second, never = resolve(
        registry, *({"repository": name, "digests": [str(image)], "tags": ["t"]} for name in names)
    )
    assert first["tags"][0]["target"]["digest"] == str(image)
    assert [event["event"] for event in first["tags"][0]["events"]] == ["created"]
    assert second["tags"][0]["target"]["digest"] != str(image)
    assert [event["event"] for event in second["tags"][0]["events"]] == ["moved", "created"]
    assert never == {
        "repository": "resolution/never",
        "holders": {str(image): []},
        "tags": [{"tag": "t"}],
        "referrers": {str(image): []},
    }


def test_a_deleted_tag_has_a_history(registry: RegistryServer) -> None:
    name = "resolution/deleted"
    image = registry.push_image(name, "t")
    registry.request("DELETE", f"/v2/{name}/manifests/{image}")
    (found,) = resolve(registry, {"repository": name, "tags": ["t"]})
    (tag,) = found["tags"]
    assert "target" not in tag
    assert [event["event"] for event in tag["events"]] == ["deleted", "created"]


def test_beginnings_of_digests(registry: RegistryServer) -> None:
    name = "resolution/prefixes"
    image = registry.push_image(name, "t", os.urandom(10))
    config = registry.request("GET", f"/v2/{name}/manifests/{image}").json()["config"]["digest"]
    beginnings = [image.encoded[:12], config[7:30], "0" * 12]
    (found,) = resolve(registry, {"repository": name, "prefixes": beginnings})
    assert found["prefixes"] == {beginnings[0]: [str(image)], beginnings[1]: [config], beginnings[2]: []}
    assert found["holders"][config] == [str(image)]
    (elsewhere,) = resolve(registry, {"repository": "resolution/never", "prefixes": beginnings[:1]})
    assert elsewhere["prefixes"] == {beginnings[0]: []}


def test_contents_only_if_wanted_and_only_what_the_repository_may_serve(registry: RegistryServer) -> None:
    name = "resolution/contents"
    image = registry.push_image(name, "t", os.urandom(10))
    index = push_index(registry, name, "i", image)
    layer = b'{"says": "v\xc3\xa4lue"}'
    advisory = attach(registry, name, image, layer)
    attach(registry, name, image, annotations={media_types.PREDICATE_TYPE: "https://slsa.dev/provenance/v1"})
    attach(registry, name, image, b"\xff\xfe")
    # A layer that may be absent, of which another repository has the bytes.
    secret = registry.push_blob("resolution/others", b"a secret of others")
    foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    attach(registry, name, image, layers=[descriptor(foreign, secret, 18, urls=["http://127.0.0.1/x"])])
    query = {"repository": name, "digests": [str(index)], "tags": ["t"]}
    assert "contents" not in post(registry, [query]).json()
    contents = post(registry, [query], contents=True).json()["contents"]
    assert contents[str(Digest.of(layer))] == layer.decode()
    assert {str(index), str(advisory)} <= set(contents)
    assert len(contents) == 5
    assert str(image) not in contents
    assert not any("secret" in content and "layers" not in content for content in contents.values())
    for digest, content in contents.items():
        assert str(Digest.of(content.encode())) == digest


@pytest.mark.long
def test_many_events_are_cut_and_that_is_said(registry: RegistryServer) -> None:
    name = "resolution/busy"
    raws = []
    for _ in range(2):
        image = registry.push_image(name, "t", os.urandom(10))
        raws.append(registry.request("GET", f"/v2/{name}/manifests/{image}").body)
    for raw in itertools.islice(itertools.cycle(raws), MOST_EVENTS):
        put_manifest(registry, name, "t", raw)
    (found,) = resolve(registry, {"repository": name, "tags": ["t"]})
    (tag,) = found["tags"]
    assert len(tag["events"]) == MOST_EVENTS
    assert tag["more"] is True
    newest = registry.request("GET", f"/v2/{name}/_digestry/journal?tag=t&n=1").json()["entries"][0]
    assert tag["events"][0]["toDigest"] == newest["toDigest"]


@pytest.mark.long
def test_an_answer_ends_before_it_is_too_long(registry: RegistryServer) -> None:
    queries = []
    for number in range(4):
        name = f"resolution/heavy{number}"
        subject = registry.push_image(name, "t", os.urandom(10))
        for _ in range(2):
            attach(registry, name, subject, annotations={"pad": "x" * 3_000_000})
        queries.append({"repository": name, "digests": [str(subject)]})
    answered = 0
    for _ in range(4):
        answer = post(registry, queries[answered:])
        assert answer.status == 200
        assert len(answer.body) < 20 << 20
        found = answer.json()["resolutions"]
        assert found
        assert all(len(one["referrers"][query["digests"][0]]) == 2 for one, query in
                   zip(found, queries[answered:], strict=False))  # fmt: skip
        answered += len(found)
        if answered == len(queries):
            break
    assert answered == len(queries)


@pytest.mark.long
def test_what_is_too_much_for_an_answer_is_left_out(registry: RegistryServer) -> None:
    name = "resolution/too-heavy"
    subject = registry.push_image(name, "t", os.urandom(10))
    for _ in range(3):
        attach(registry, name, subject, annotations={"pad": "x" * 3_000_000})
    light = registry.push_image("resolution/light", "t", os.urandom(10))
    heavy, other = resolve(
        registry,
        {"repository": name, "digests": [str(subject)]},
        {"repository": "resolution/light", "digests": [str(light)]},
    )
    assert heavy == {"repository": name}  # not "nobody refers to it": it can be asked alone
    assert other["referrers"][str(light)] == []
    # What is left out has been looked at: a request has that done a few times; the rest is for the next.
    again = [{"repository": name, "digests": [str(subject)]}] * 50
    assert 1 <= len(post(registry, again).json()["resolutions"]) <= 5


def test_limits(registry: RegistryServer) -> None:
    assert resolve(registry) == []
    most = [{"repository": f"limits/r{number}", "tags": ["t"]} for number in range(MOST_QUERIES)]
    assert len(resolve(registry, *most)) == MOST_QUERIES
    answer = post(registry, [*most, most[0]])
    assert (answer.status, answer.json()["errors"][0]["detail"]) == (400, {"limit": MOST_QUERIES})
    tags = [f"t{number}" for number in range(MOST_THINGS)]
    assert len(resolve(registry, {"repository": "limits/tags", "tags": tags})[0]["tags"]) == MOST_THINGS
    answer = post(registry, [{"repository": "limits/tags", "tags": [*tags, "one-more"]}])
    assert (answer.status, answer.json()["errors"][0]["detail"]) == (400, {"limit": MOST_THINGS})
    answer = registry.request("POST", PATH, b" " * (LARGEST_REQUEST + 1))
    assert (answer.status, answer.code) == (413, "SIZE_INVALID")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'{"queries": {}}', b'{"queries": [{}]}', b'{"queries": [{"repository": 1}]}',
        b'{"queries": [{"repository": "A"}]}', b'{"queries": [{"repository": "../x"}]}',
        b'{"queries": [{"repository": "a", "tags": [".x"]}]}',
        b'{"queries": [{"repository": "a", "digests": ["sha256:x"]}]}',
        b'{"queries": [{"repository": "a", "prefixes": ["abc"]}]}',
        b'{"queries": [{"repository": "a", "prefixes": ["ABCDEFABCDEF"]}]}',
        b'{"queries": [{"repository": "a", "prefixes": ["%%%%%%%%%%%%"]}]}',
        b'\xff', b'[' * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_question(registry: RegistryServer, body: bytes) -> None:
    answer = registry.request("POST", PATH, body)
    assert answer.status == 400
    assert answer.json()["errors"][0]["message"]


def test_it_is_listed_and_only_posted_to(registry: RegistryServer) -> None:
    extensions = registry.request("GET", "/v2/_oci/ext/discover").json()["extensions"]
    assert any("_digestry/resolve" in one["endpoints"] for one in extensions)
    answer = registry.request("GET", PATH)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.long
def test_when_tags_came_to_each_node(registry: RegistryServer) -> None:
    name = "resolution/spans"
    one = registry.push_image(name, "1.5", os.urandom(10))
    index = push_index(registry, name, "all", one)
    other = registry.push_image(name, "1.5", os.urandom(10))
    (found,) = resolve(registry, {"repository": name, "digests": [str(one)]})
    assert set(found["spans"]) == {node["digest"] for node in found["nodes"]} == {str(one), str(index)}
    (left,), (still,) = found["spans"][str(one)], found["spans"][str(index)]
    assert (left["tag"], left["still"], still["tag"], still["still"]) == ("1.5", False, "all", True)
    whose = registry.request("GET", f"/v2/{name}/_digestry/whose/{one}").json()["spans"]
    hidden = {"mediaType", "size", "sequence"}
    assert [{key: span[key] for key in span.keys() - hidden} for span in whose] == [still, left]
    (found,) = resolve(registry, {"repository": name, "digests": [str(other)]})
    assert [span["tag"] for span in found["spans"][str(other)]] == ["1.5"]
    for _ in range(MOST_SPANS // 2 + 1):  # back and forth, more often than an answer tells
        for digest in (one, other):
            raw = registry.request("GET", f"/v2/{name}/manifests/{digest}").json()
            registry.push_manifest(name, "1.5", raw)
            registry.push_manifest(name, "more", raw)
    (found,) = resolve(registry, {"repository": name, "digests": [str(one)]})
    assert set(found["spans"]) == {str(index)}
