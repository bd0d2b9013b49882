"""Who may do what: challenges, refusals, and what cannot be told from what is not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.registry.access.identity import Identity
from digestry.registry.access.principal import Principal
from digestry.registry.access.rules import Rule, Rules
from digestry.registry.resources import tags
from tests.registry.access.support import As, basic, bearer, challenge, nobody, of, token
from tests.registry.support import every_page, joined
from tests.support import RegistryServer, Response, descriptor

ANY = Digest.of(b"team/app")
READS = [
    "manifests/1",
    f"manifests/{ANY}",
    f"blobs/{Digest.of(b'secret/x')}",
    "tags/list",
    f"referrers/{ANY}",
    "_oci/tag-history/1",
    "_digestry/journal",
    f"_digestry/holders/{ANY}",
    f"_digestry/layers/{ANY}",
    "_digestry/advisories",
    "_digestry/tag/1",
    "_digestry/tags",
    f"_digestry/whose/{ANY}",
    f"_digestry/sightings/{ANY}",
]
OF_EACH = {"date", "x-request-id"}
"""Headers that no two answers have alike."""
WRITES = [
    ("POST", "blobs/uploads/", "push"),
    ("POST", f"blobs/uploads/?digest={ANY}", "push"),
    ("POST", f"blobs/uploads/?mount={ANY}&from=team/app", "push"),
    ("PATCH", "blobs/uploads/8d5dd9d4-9ad6-4b05-9b8a-0d0d7b6c8f11", "push"),
    ("PUT", f"blobs/uploads/8d5dd9d4-9ad6-4b05-9b8a-0d0d7b6c8f11?digest={ANY}", "push"),
    ("GET", "blobs/uploads/8d5dd9d4-9ad6-4b05-9b8a-0d0d7b6c8f11", "push"),
    ("PUT", "manifests/2", "push"),
    ("DELETE", "manifests/1", "take anything out of"),
    ("DELETE", f"manifests/{ANY}", "take anything out of"),
    ("DELETE", f"blobs/{ANY}", "take anything out of"),
    ("POST", f"_digestry/restore/1?to={ANY}", "push"),
]


@pytest.mark.long
def test_the_base_asks_who_is_there(server: RegistryServer) -> None:
    for path in ("/v2/", "/v2"):
        found = challenge(server.request("GET", path))
        assert found == {"scheme": "Bearer", "realm": f"http://{server.host}/token", "service": "digestry"}
        assert of(server, "alice").request("GET", path).status == 200


@pytest.mark.parametrize("path", READS)
def test_reads_are_for_who_may_pull(server: RegistryServer, path: str) -> None:
    answer = nobody(server).request("GET", f"/v2/secret/x/{path}")
    assert challenge(answer)["scope"] == "repository:secret/x:pull"
    assert answer.code == "UNAUTHORIZED"
    assert nobody(server).request("HEAD", f"/v2/secret/x/{path}").status == 401
    assert of(server, "carol").request("GET", f"/v2/secret/x/{path}").status in {200, 404}


@pytest.mark.parametrize("path", READS)
def test_what_may_not_be_seen_is_as_what_is_not_there(server: RegistryServer, path: str) -> None:
    def seen(answer: Response, name: str) -> tuple[int, bytes, dict[str, str]]:
        headers = {key: value for key, value in answer.headers.items() if key not in OF_EACH}
        return answer.status, answer.body.replace(name.encode(), b"NAME"), headers

    alice = of(server, "alice")
    hidden = alice.request("GET", f"/v2/secret/x/{path}")
    for name in ("secret/y", "team/yyy"):
        absent = alice.request("GET", f"/v2/{name}/{path}")
        if "_digestry/tag" in path:
            assert absent.status == hidden.status == 404  # the body has the moment in it
            continue
        assert seen(hidden, "secret/x") == seen(absent, name)


@pytest.mark.parametrize(("method", "path", "words"), WRITES)
def test_writes_are_for_who_may(server: RegistryServer, method: str, path: str, words: str) -> None:
    assert challenge(nobody(server).request(method, f"/v2/team/app/{path}", b"x"))["scope"].startswith(
        "repository:team/app:"
    )
    answers = [
        of(server, "bob").request(method, f"/v2/{name}/{path}", b"x") for name in ("team/app", "no/no")
    ]
    for answer in answers:
        assert (answer.status, answer.code) == (403, "DENIED")
        assert f"bob may not {words}" in answer.body.decode()
    assert server.request("GET", "/v2/public/base/manifests/1").status == 200  # nothing happened to others


def test_the_owner_may(server: RegistryServer) -> None:
    alice = of(server, "alice")
    assert alice.push_image("team/own", "1").status == 201
    assert alice.push_image("team/own", "1", b"moved").status == 201
    assert alice.request("DELETE", "/v2/team/own/manifests/1").status == 202
    answer = alice.request("GET", "/v2/team/own/_digestry/journal")
    assert [entry["actor"] for entry in answer.json()["entries"]] == ["alice"] * 3


def test_moving_a_tag_is_more_than_pushing_one(server: RegistryServer) -> None:
    bob = of(server, "bob")
    assert bob.push_image("bob/tags", "1", b"one").status == 201
    assert bob.push_image("bob/tags", "1", b"one").status == 201  # the same again is no move
    refused = bob.push_image("bob/tags", "1", b"two")
    assert (refused.status, refused.code) == (403, "DENIED")
    assert "bob may not move tag 1 of bob/tags" in refused.body.decode()
    assert bob.push_image("bob/tags", "2", b"two").status == 201
    # Deleting it and pushing it anew would be a move as well: bob may not delete.
    assert bob.request("DELETE", "/v2/bob/tags/manifests/1").status == 403
    digest = bob.request("HEAD", "/v2/bob/tags/manifests/2").headers["docker-content-digest"]
    assert bob.request("PUT", f"/v2/bob/tags/manifests/{digest}?tag=1").status in {400, 403}


def test_anonymous_pull_is_a_rule(server: RegistryServer) -> None:
    assert server.request("GET", "/v2/public/base/manifests/1").status == 200
    assert server.request("GET", f"/v2/public/base/blobs/{Digest.of(b'public/base')}").status == 200
    for name in ("alice", "bob"):  # whoever is known may do at least that
        assert of(server, name).request("GET", "/v2/public/base/manifests/1").status == 200
    assert server.request("PUT", "/v2/public/base/manifests/1", b"{}").status == 401


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        (None, {"public/base"}),
        ("alice", {"public/base", "team/app", "team/own"}),
        ("bob", {"public/base", "team/app", "bob/tool"}),
        ("carol", {"public/base", "team/app", "bob/tool", "secret/x"}),
    ],
)
def test_the_catalog_has_what_may_be_seen(
    server: RegistryServer, who: str | None, expected: set[str]
) -> None:
    asking = nobody(server) if who is None else of(server, who)
    everything = asking.request("GET", "/v2/_catalog").json()["repositories"]
    assert expected - {"team/own"} <= set(everything)
    if who is not None:
        assert who == "carol" or "secret/x" not in everything
    else:
        assert set(everything) == expected
    for size in (1, 2):
        pages = every_page(_with(server, asking), f"/v2/_catalog?n={size}")
        assert joined(pages, "repositories") == everything
        assert all(len(page.json()["repositories"]) == size for page in pages[:-1])


def _with(server: RegistryServer, asking: As) -> RegistryServer:
    class Asked(RegistryServer):
        def request(
            self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
        ) -> Response:
            return asking.request(method, path, body, headers)

    return Asked(server.host, server.process, server.root)


def test_whose_tells_of_what_may_be_seen(server: RegistryServer) -> None:
    carol, image = of(server, "carol"), b"the same image everywhere"
    for name in ("team/app", "bob/tool", "public/base", "secret/x"):
        assert carol.push_image(name, "same", image).status == 201
    digest = carol.request("HEAD", "/v2/secret/x/manifests/same").headers["docker-content-digest"]
    seen = {}
    for who in (None, "alice", "bob", "carol"):
        asking = _with(server, nobody(server) if who is None else of(server, who))
        for size in (1, 100):
            spans = joined(every_page(asking, f"/v2/_digestry/whose/{digest}?n={size}"), "spans")
            seen[who] = [span["repository"] for span in spans]
            assert seen[who] == sorted(
                seen[who], key=["secret/x", "public/base", "bob/tool", "team/app"].index
            )
    assert seen == {
        None: ["public/base"],
        "alice": ["public/base", "team/app"],
        "bob": ["public/base", "bob/tool", "team/app"],
        "carol": ["secret/x", "public/base", "bob/tool", "team/app"],
    }
    narrow = bearer(token(server, "repository:team/app:pull", headers=basic("alice"))["token"])
    refused = server.request("GET", f"/v2/_digestry/whose/{digest}", headers=narrow)
    assert challenge(refused)["scope"] == "registry:catalog:*"


def test_layers_tell_of_what_may_be_seen(server: RegistryServer) -> None:
    """Which images have a layer, and what others attached to it where a user may not look."""
    carol, layer = of(server, "carol"), b"a layer of many images"
    for name in ("team/app", "secret/x"):
        assert carol.push_image(name, "layered", layer).status == 201
    kind = media_types.OCI_MANIFEST
    manifest = json.loads(carol.request("GET", "/v2/secret/x/manifests/layered").body)
    manifest |= {
        "subject": descriptor(media_types.OCI_LAYER, Digest.of(layer), len(layer)),
        "artifactType": media_types.IN_TOTO,
    }
    stated = carol.request(
        "PUT", "/v2/secret/x/manifests/stated", json.dumps(manifest), {"Content-Type": kind}
    )
    assert stated.status == 201, stated.body
    body = b'{"queries": [{"repository": "team/app", "tags": ["layered"]}], "contents": true}'
    seen: dict[str, list[str]] = {}
    for who in ("alice", "bob", "carol"):
        asking = of(server, who)
        listed = asking.request("GET", f"/v2/_digestry/layers/{Digest.of(layer)}").json()["images"]
        seen[who] = sorted(image["repository"] for image in listed)
        (found,) = asking.request("POST", "/v2/_digestry/resolve", body).json()["resolutions"]
        referrers = found.get("partReferrers", [])
        assert [one["repository"] for one in referrers] == (["secret/x"] if who == "carol" else []), who
        assert (b"secret" in json.dumps(found).encode()) == (who == "carol")
    assert seen == {"alice": ["team/app"], "bob": ["team/app"], "carol": ["secret/x", "team/app"]}
    narrow = bearer(token(server, "repository:team/app:pull", headers=basic("alice"))["token"])
    refused = server.request("GET", f"/v2/_digestry/layers/{Digest.of(layer)}", headers=narrow)
    assert challenge(refused)["scope"] == "registry:catalog:*"


def test_mounting_needs_pull_on_the_source(server: RegistryServer) -> None:
    digest = Digest.of(b"secret/x")
    alice = of(server, "alice")
    for query in (f"mount={digest}&from=secret/x", f"mount={digest}&from=secret/y", f"mount={digest}"):
        answer = alice.request("POST", f"/v2/team/mounts/blobs/uploads/?{query}")
        assert answer.status == 202  # as if there were no such blob
        alice.request("DELETE", answer.headers["location"])
    assert alice.request("HEAD", f"/v2/team/mounts/blobs/{digest}").status == 404
    public = Digest.of(b"public/base")
    path = "/v2/team/mounts/blobs/uploads/?mount="
    assert alice.request("POST", f"{path}{public}&from=public/base").status == 201
    # From wherever it is, that is for who may pull everything: what is hidden is not looked through.
    for blob in (digest, public):
        assert alice.request("POST", f"{path}{blob}").status == 202
        assert of(server, "carol").request("POST", f"{path}{blob}").status == 201


def test_one_question_about_many_images(server: RegistryServer) -> None:
    body = (
        b'{"queries": [{"repository": "secret/x", "tags": ["1"]}, {"repository": "team/app", "tags": ["1"]}]}'
    )
    absent = body.replace(b"secret/x", b"secret/y")
    alice = of(server, "alice")
    answer = alice.request("POST", "/v2/_digestry/resolve", body)
    assert answer.status == 200, answer.body
    hidden, seen = answer.json()["resolutions"]
    assert seen["tags"][0]["target"]["digest"].startswith("sha256:")
    nothing = alice.request("POST", "/v2/_digestry/resolve", absent).json()["resolutions"][0]
    assert {**hidden, "repository": ""} == {**nothing, "repository": ""}
    found = challenge(nobody(server).request("POST", "/v2/_digestry/resolve", body))
    assert found["scope"] == "repository:secret/x:pull repository:team/app:pull"


@pytest.mark.parametrize(
    "path",
    [
        "/v2/public/base%2f..%2f..%2fsecret/x/manifests/1",
        "/v2/public/base/../../secret/x/manifests/1",
        "/v2/public/%2e%2e/secret/x/manifests/1",
        "/v2/public//secret/x/manifests/1",
        "/v2/public/base/manifests/../../../secret/x/manifests/1",
        "/v2/public%2fbase/..%2f..%2fsecret%2fx/manifests/1",
        "/v2//secret/x/manifests/1",
        "/v2/secret%2Fx/manifests/1",
        "/v2/secret/x%00/manifests/1",
        "/v2/SECRET/x/manifests/1",
        "/v2/public/base/_digestry/../../../secret/x/_digestry/journal",
        "/v2/public/base/_oci/tag-history/../../secret/x/_oci/tag-history/1",
        "/%76%32/secret/x/manifests/1",
        "/token/../v2/secret/x/manifests/1",
    ],
)
def test_no_way_around_by_odd_names(server: RegistryServer, path: str) -> None:
    for headers in ({}, basic("bob")):
        answer = server.request("GET", path, headers=headers)
        assert answer.status in {400, 401, 404}, answer.body
        if answer.headers["content-type"].startswith("text/html"):
            assert b"here is no page at this address" in answer.body  # the page has the path in a form
            continue
        assert b"secret/x" not in answer.body or answer.code in {
            "UNAUTHORIZED",
            "NAME_UNKNOWN",
            "NAME_INVALID",
            "UNSUPPORTED",
        }


def test_extensions_and_others_ask_too(server: RegistryServer) -> None:
    assert server.request("GET", "/v2/_oci/ext/discover").status == 401
    assert of(server, "bob").request("GET", "/v2/_oci/ext/discover").status == 200
    assert of(server, "bob").request("GET", "/elsewhere").status == 404


def test_what_runs_is_told_by_who_has_a_name_and_may_pull(server: RegistryServer) -> None:
    digests = {
        name: of(server, "carol").request("HEAD", f"/v2/{name}/manifests/1").headers["docker-content-digest"]
        for name in ("team/app", "secret/x", "public/base")
    }

    def body(*names: str) -> bytes:
        entries = [
            {"repository": name, "digest": digests[name], "place": "n1", "containers": 1} for name in names
        ]
        return json.dumps({"sightings": entries}).encode()

    alice = of(server, "alice")
    answer = alice.request("POST", "/v2/_digestry/sightings", body("team/app", "secret/x"))
    assert (answer.status, answer.json()) == (200, {"noted": 1, "unknown": 1})
    # Of what may not be pulled nothing was noted, and nothing is told.
    path = f"/v2/secret/x/_digestry/sightings/{digests['secret/x']}"
    assert of(server, "carol").request("GET", path).json()["places"] == 0
    of(server, "carol").request("POST", "/v2/_digestry/sightings", body("secret/x"))
    assert of(server, "carol").request("GET", path).json()["places"] == 1
    assert alice.request("GET", path).json()["places"] == 0
    challenge(nobody(server).request("GET", path))
    # Everybody may pull this, but what keeps it must have a name.
    assert challenge(nobody(server).request("POST", "/v2/_digestry/sightings", body("public/base")))
    given = token(server, "repository:public/base:pull")["token"]
    answer = server.request("POST", "/v2/_digestry/sightings", body("public/base"), bearer(given))
    assert answer.status == 401
    mine = token(server, "repository:public/base:pull", headers=basic("bob"))["token"]
    answer = server.request("POST", "/v2/_digestry/sightings", body("public/base"), bearer(mine))
    assert answer.json() == {"noted": 1, "unknown": 0}


def test_a_list_reads_nothing_of_what_is_hidden() -> None:
    """So that its time does not tell how much there is: counted by what is looked at, whatever there is."""
    asked: list[str] = []

    class Watched:
        def repositories(self, *, after: str, beginning: str, limit: int) -> list[str]:
            there = [
                f"{start}{n:04}" for start in ("a/", "public/", "secret/", "team/", "z/") for n in range(3000)
            ]
            names = [name for name in there if name > after and name.startswith(beginning)][:limit]
            asked.extend(names)
            return names

    class Stores:
        catalog = Watched()

    class Inside:
        stores = Stores()

    def listed(*rules: Rule, limit: int, after: str = "") -> list[str]:
        asked.clear()
        return tags._visible(cast("Any", Inside()), Principal(Identity("bob"), Rules(rules)), after, limit)

    public = Rule(("anonymous",), ("public/**", "public/0*"), frozenset({"pull"}))
    mine = Rule(("bob",), ("team/0*", "secret/0007", "nothing/**"), frozenset({"pull"}))
    other = Rule(("alice",), ("**",), frozenset({"pull"}))
    assert listed(public, mine, other, limit=1) == ["public/0000"]
    found = listed(public, mine, other, limit=10_000)
    assert found == [
        *(f"public/{n:04}" for n in range(3000)),
        "secret/0007",
        *(f"team/{n:04}" for n in range(1000)),
    ]
    assert asked == found
    assert listed(public, mine, limit=3, after="public/2999") == ["secret/0007", "team/0000", "team/0001"]
    assert listed(mine, limit=5, after="z") == asked == []
    assert len(listed(other, Rule(("bob",), ("**",), frozenset({"pull"})), limit=20_000)) == 15_000
