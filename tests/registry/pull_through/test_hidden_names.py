"""Behind a default mirror: a name that must not be seen is answered as one that is not there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from digestry.model.digest import Digest
from tests.registry.access.support import As, basic, bearer, challenge, guarded, nobody, of, token
from tests.registry.pull_through.support import Upstream
from tests.support import RegistryServer, Response

_RULES = """
[mirror."docker.io"]
url = "{url}"
default = true
[[rule]]
who = "anonymous"
repository = "docker.io/**"
actions = "pull"
[[rule]]
who = "alice"
actions = "admin"
[[rule]]
who = "bob"
repository = "bob/*"
actions = ["pull", "push"]
"""
_ONE = Digest.of(b"one")
_READS = [
    "manifests/1",
    f"manifests/{_ONE}",
    "manifests/no:digest",
    "manifests/..",
    f"blobs/{_ONE}",
    "blobs/x",
    "tags/list",
    "tags/list?n=1&last=x",
    f"referrers/{_ONE}",
    f"referrers/{_ONE}?artifactType=x",
    "_oci/tag-history/1",
    "_oci/ext/discover",
    "_digestry/journal",
    f"_digestry/holders/{_ONE}",
    f"_digestry/layers/{_ONE}",
    "_digestry/advisories",
    "_digestry/tag/1?at=2026-01-01T00:00:00Z",
    "_digestry/tags?at=2026-01-01T00:00:00Z",
    f"_digestry/whose/{_ONE}",
    "_digestry/digests/0123456",
    f"_digestry/sightings/{_ONE}",
    "_digestry/none",
    "blobs/uploads/00000000-0000-0000-0000-000000000000",
]
_WRITES = [
    ("PUT", "manifests/1"),
    ("PUT", f"manifests/{_ONE}?tag=1"),
    ("DELETE", "manifests/1"),
    ("DELETE", f"manifests/{_ONE}"),
    ("POST", "manifests/1"),
    ("DELETE", f"blobs/{_ONE}"),
    ("POST", "blobs/uploads/"),
    ("POST", f"blobs/uploads/?mount={_ONE}&from=bob/a"),
    ("PATCH", "blobs/uploads/00000000-0000-0000-0000-000000000000"),
    ("PUT", f"blobs/uploads/00000000-0000-0000-0000-000000000000?digest={_ONE}"),
    ("DELETE", "blobs/uploads/00000000-0000-0000-0000-000000000000"),
    ("POST", f"_digestry/restore/1?to={_ONE}"),
    ("OPTIONS", "manifests/1"),
]
_OF_EACH = {"date", "x-request-id", "content-length"}
_MOMENT = re.compile(rb"2[0-9]{3}-[0-9-]{5}T[0-9:.]{8,15}Z")


@pytest.fixture(scope="module")
def server(hub: Upstream) -> Iterator[RegistryServer]:
    with guarded(_RULES.format(url=hub.url)) as server:
        for name in ("hidden", "team/hidden"):
            assert of(server, "alice").push_image(name, "1", b"secret").status == 201
        yield server


def askers(server: RegistryServer) -> list[As]:
    """Nobody without and with a token; bob by his password, and by a token for the very names."""
    scopes = [f"repository:{name}:pull,push" for name in ("hidden", "absent", "team/hidden", "team/absent")]
    anonymous = token(server, *scopes)["token"]
    bobs = token(server, *scopes, headers=basic("bob"))["token"]
    return [nobody(server), As(server, bearer(anonymous)), of(server, "bob"), As(server, bearer(bobs))]


def seen(answer: Response, name: str) -> tuple[int, bytes, dict[str, str]]:
    """All that an answer tells, but for the name that was asked for, and the moment."""
    headers = {
        key: value.replace(name, "NAME") for key, value in answer.headers.items() if key not in _OF_EACH
    }
    return answer.status, _MOMENT.sub(b"NOW", answer.body.replace(name.encode(), b"NAME")), headers


@pytest.mark.parametrize("pair", [("hidden", "absent"), ("team/hidden", "team/absent")])
@pytest.mark.parametrize(
    ("method", "path"), [*(("GET", path) for path in _READS), *(("HEAD", path) for path in _READS), *_WRITES]
)
def test_no_answer_tells_it(server: RegistryServer, method: str, path: str, pair: tuple[str, str]) -> None:
    for who in askers(server):
        answers = [seen(who.request(method, f"/v2/{name}/{path}"), name) for name in pair]
        assert answers[0] == answers[1]
        assert answers[0][0] < 500


@pytest.mark.parametrize("pair", [("hidden", "absent"), ("team/hidden", "team/absent")])
def test_no_bulk_answer_and_no_list_tells_it(server: RegistryServer, pair: tuple[str, str]) -> None:
    def asked(who: As, name: str) -> list[object]:
        query = {"queries": [{"repository": name, "digests": [str(_ONE)], "tags": ["1"]}]}
        told = {"sightings": [{"repository": name, "digest": str(_ONE), "place": "x", "containers": 1}]}
        return [
            seen(who.request("POST", "/v2/_digestry/resolve", json.dumps(query).encode()), name),
            seen(who.request("POST", "/v2/_digestry/sightings", json.dumps(told).encode()), name),
            who.request("POST", f"/v2/bob/a/blobs/uploads/?mount={_ONE}&from={name}").status,
        ]

    for who in askers(server):
        assert asked(who, pair[0]) == asked(who, pair[1])
        for path in ("_catalog", f"_digestry/whose/{_ONE}", "_digestry/digests/0123456"):
            assert pair[0].encode() not in who.request("GET", f"/v2/{path}").body


def test_upstream_is_asked_for_both(server: RegistryServer, hub: Upstream) -> None:
    """The time of an answer is that of the same work."""

    def work(who: As, name: str, path: str) -> list[str]:
        before = len(hub.liar.seen)
        assert who.request("GET", f"/v2/{name}/{path}").status in {401, 404}
        return [f"{request.method} {request.path.count('/')}" for request in hub.liar.seen[before:]]

    for who in askers(server)[:3]:  # the last one's token is not for the mirror's repositories
        for path in ("manifests/77", "tags/list", f"blobs/{Digest.of(b'seventy-seven')}"):
            assert work(who, "hidden", path) == work(who, "absent", path) != []


def test_upstream_is_not_told_a_private_name_by_who_has_not_logged_in_yet(
    server: RegistryServer, hub: Upstream
) -> None:
    """Clients that know a password ask without it first, and are asked for it."""
    for name in ("hidden", "team/hidden"):
        before = len(hub.liar.seen)
        found = challenge(nobody(server).request("HEAD", f"/v2/{name}/manifests/1"))
        assert found["scope"] == f"repository:{name}:pull"
        told = [request.path for request in hub.liar.seen[before:]]
        assert told
        assert not any("hidden" in path for path in told)


@pytest.mark.parametrize("path", ["manifests/1", "blobs/{}", "tags/list", "referrers/{}", "manifests/{}"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_strangers_image_is_not_given_for_it(
    server: RegistryServer, hub: Upstream, method: str, path: str
) -> None:
    """Upstream has an image of the name, too: who may not see ours gets neither."""
    digest = hub.image("team/both", "1", layer=b"a stranger's")
    of(server, "alice").push_image("team/both", "1", b"ours")
    for who in askers(server):
        answer = who.request(method, f"/v2/team/both/{path.format(digest)}")
        absent = who.request(method, f"/v2/team/neither/{path.format(digest)}")
        assert seen(answer, "team/both") == seen(absent, "team/neither")
        assert b"stranger" not in answer.body
    assert of(server, "alice").request("GET", "/v2/team/both/manifests/1").status == 200


def test_who_may_see_it_gets_it(server: RegistryServer, hub: Upstream) -> None:
    alice = of(server, "alice")
    before = len(hub.liar.seen)
    answer = alice.request("GET", "/v2/hidden/manifests/1")
    assert answer.status == 200
    assert "digestry-upstream" not in answer.headers
    assert len(hub.liar.seen) == before
    # By a token too, which the client asks for after the challenge to who did not log in.
    scope = challenge(nobody(server).request("GET", "/v2/hidden/manifests/1"))["scope"]
    given = token(server, scope, headers=basic("alice"))["token"]
    assert As(server, bearer(given)).request("GET", "/v2/hidden/manifests/1").status == 200
    assert As(server, bearer(given)).request("GET", "/v2/absent/manifests/1").status == 401


def test_everybody_gets_what_is_upstreams_alone(server: RegistryServer, hub: Upstream) -> None:
    digest = str(hub.image("library/nginx", "1"))
    for who in askers(server)[:3]:  # the last one's token is for other names
        for name in ("nginx", "library/nginx", "docker.io/library/nginx"):
            answer = who.request("GET", f"/v2/{name}/manifests/1")
            assert answer.headers["docker-content-digest"] == digest


@pytest.mark.long
def test_what_the_mirror_keeps_is_not_told_to_who_may_not_see_it(hub: Upstream) -> None:
    rules = f"""
    [mirror."docker.io"]
    url = "{hub.url}"
    default = true
    [[rule]]
    who = "alice"
    actions = "admin"
    """
    hub.image("library/kept", "1")
    with guarded(rules) as server:
        assert of(server, "alice").request("GET", "/v2/docker.io/library/kept/manifests/1").status == 200
        for who in (nobody(server), of(server, "bob")):
            for path in _READS:
                kept, other = (
                    seen(who.request("GET", f"/v2/{name}/{path}"), name) for name in ("kept", "nope")
                )
                assert kept == other, path
