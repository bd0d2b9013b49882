"""Manifests and tags of another registry, as this one has and tells them."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.client.liar import Reply, Request
from tests.registry.pull_through.support import KIND, Upstream, get, get_blob, moves, state
from tests.registry.support import query
from tests.stores import blob_file
from tests.support import RegistryServer, descriptor, wait_until


def test_a_tag_is_fetched_kept_as_it_is_and_journalled(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    digest = hub.image(name, "1", annotations={"kept": "ü  "})
    answer = get(mirror, f"asking.test/{name}", "1")
    assert answer.status == 200
    assert answer.body == hub.manifests[name, str(digest)]
    assert answer.headers["docker-content-digest"] == str(digest)
    assert answer.headers["content-type"] == KIND
    assert state(answer) == "current"
    assert "registry=asking.test; checked=20" in answer.headers["digestry-upstream"]
    assert moves(mirror, f"asking.test/{name}", "1") == [("created", None, str(digest), "mirror:asking.test")]
    assert hub.asked(name) == ["HEAD manifests/1", f"GET manifests/{digest}"]


def test_what_has_not_changed_costs_upstream_one_head(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    hub.image(name, "1")
    get(mirror, f"asking.test/{name}", "1")
    hub.liar.seen.clear()
    for method in ("GET", "HEAD"):
        assert get(mirror, f"asking.test/{name}", "1", method).status == 200
    assert hub.asked(name) == ["HEAD manifests/1"] * 2


def test_a_fresh_tag_is_not_asked_for_again(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    first = hub.image(name, "1")
    get(mirror, f"fresh.test/{name}", "1")
    hub.image(name, "1", layer=b"other")
    asked = hub.asked(name)
    for _ in range(6):  # of both workers
        assert get(mirror, f"fresh.test/{name}", "1").headers["docker-content-digest"] == str(first)
    assert hub.asked(name) == asked


def test_a_tag_that_moved_upstream_moves_here_and_the_old_image_stays(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    here = f"asking.test/{name}"
    first = hub.image(name, "1.5")
    get(mirror, here, "1.5")
    second = hub.image(name, "1.5", layer=b"fixed")
    assert get(mirror, here, "1.5", "HEAD").headers["docker-content-digest"] == str(second)
    by = "mirror:asking.test"
    assert moves(mirror, here, "1.5") == [
        ("created", None, str(first), by),
        ("moved", str(first), str(second), by),
    ]
    hub.manifests.clear()  # upstream has neither any more
    assert get(mirror, here, str(first)).status == 200
    whose = mirror.request("GET", f"/v2/{here}/_digestry/whose/{first}").json()
    assert [span["tag"] for span in whose["spans"]] == ["1.5"]


def test_a_tag_that_moved_back_is_not_fetched_again(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    here = f"asking.test/{name}"
    first = hub.image(name, "1")
    get(mirror, here, "1")
    hub.image(name, "1", layer=b"other")
    get(mirror, here, "1")
    hub.tags[name, "1"] = str(first)
    hub.liar.seen.clear()
    assert get(mirror, here, "1").headers["docker-content-digest"] == str(first)
    assert hub.asked(name) == ["HEAD manifests/1"]
    assert [move[0] for move in moves(mirror, here, "1")] == ["created", "moved", "moved"]


def test_a_tag_that_is_gone_upstream_is_gone_here(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    here = f"asking.test/{name}"
    digest = hub.image(name, "1")
    get(mirror, here, "1")
    del hub.tags[name, "1"]
    answer = get(mirror, here, "1")
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
    assert moves(mirror, here, "1")[-1] == ("deleted", str(digest), None, "mirror:asking.test")
    assert get(mirror, here, str(digest)).status == 200


def lost(request: Request) -> Reply:
    """What a proxy says that does not find the registry behind it."""
    return Reply(404, b"<html>no such service</html>", {"Content-Type": "text/html"})


def no_token(request: Request) -> Reply:
    """A registry whose token server is not where it says."""
    if request.path.endswith("/blobs/token"):
        return Reply(404, b'{"errors":[{"code":"NOT_FOUND","message":"no such page"}]}')
    realm = f"http://{request.headers['Host']}{request.path.rsplit('/', 2)[0]}/blobs/token"
    return Reply(401, b"{}", {"WWW-Authenticate": f'Bearer realm="{realm}",service="it"'})


@pytest.mark.parametrize("trouble", [lost, no_token])
def test_a_404_that_is_not_the_registrys_own_takes_no_tag_away(
    mirror: RegistryServer, hub: Upstream, name: str, trouble: Callable[[Request], Reply]
) -> None:
    host = f"trouble{13 if trouble is lost else 14}.test"
    here = f"{host}/{name}"
    digest = hub.image(name, "1")
    get(mirror, here, "1")
    hub.troubles[name] = trouble
    for _ in range(4):  # of both workers
        answer = get(mirror, here, "1")
        assert (answer.status, state(answer)) == (200, "failing")
        assert answer.headers["docker-content-digest"] == str(digest)
    listed = mirror.request("GET", f"/v2/{here}/tags/list")
    assert (listed.json()["tags"], state(listed)) == (["1"], "failing")
    assert [move[0] for move in moves(mirror, here, "1")] == ["created"]
    del hub.troubles[name]  # and if the registry asks for no token any more, that is noticed
    wait_until(
        lambda: {state(get(mirror, here, "1")) for _ in range(6)} == {"current"},
        what="both workers ask again",
    )


def test_a_registry_that_answers_no_head(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    here = f"asking.test/{name}"
    hub.image(name, "1")
    get(mirror, here, "1")
    moved = hub.image(name, "1", layer=b"other")
    hub.troubles[name] = lambda request: Reply(404) if request.method == "HEAD" else None
    answer = get(mirror, here, "1")
    assert (answer.headers["docker-content-digest"], state(answer)) == (str(moved), "current")


def test_a_head_that_is_not_up_to_date(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    here = f"asking.test/{name}"
    hub.image(name, "1")
    get(mirror, here, "1")
    moved = hub.image(name, "1", layer=b"other")

    def old(request: Request) -> Reply | None:
        said = {"Content-Type": KIND, "Docker-Content-Digest": f"sha256:{'a' * 64}"}
        return Reply(200, b"{}", said) if request.method == "HEAD" else None

    hub.troubles[name] = old
    answer = get(mirror, here, "1")
    assert (answer.headers["docker-content-digest"], state(answer)) == (str(moved), "current")
    del hub.manifests[name, str(moved)]
    answer = get(mirror, here, "1")  # what neither has is no reason to take away what is here
    assert answer.headers["docker-content-digest"] == str(moved)


def test_a_rule_can_hold_a_tag_where_it_is(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    here = f"held.test/{name}"
    first = hub.image(name, "1")
    assert state(get(mirror, here, "1")) == "current"
    hub.image(name, "1", layer=b"other")
    for _ in range(2):
        answer = get(mirror, here, "1")
        assert answer.headers["docker-content-digest"] == str(first)
        assert state(answer) == "held"
    del hub.tags[name, "1"]
    assert get(mirror, here, "1").headers["docker-content-digest"] == str(first)
    assert len(moves(mirror, here, "1")) == 1


def test_the_images_of_an_index_come_when_they_are_wanted(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    children = [hub.image(name, layer=f"layer {number}".encode()) for number in range(3)]
    entries = [descriptor(KIND, child, len(hub.manifests[name, str(child)])) for child in children]
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}
    hub.manifest(name, index, "1")
    here = f"fresh.test/{name}"
    assert get(mirror, here, "1").headers["content-type"] == media_types.OCI_INDEX
    assert not [asked for asked in hub.asked(name) if str(children[1]) in asked]
    assert get(mirror, here, str(children[1])).status == 200
    assert get(mirror, here, str(children[1])).status == 200
    assert hub.asked(name).count(f"GET manifests/{children[1]}") == 1
    assert not [asked for asked in hub.asked(name) if str(children[0]) in asked]


def test_many_at_once_ask_upstream_once(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    digest = hub.image(name, "1")
    here = f"fresh.test/{name}"
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda _: get(mirror, here, "1"), range(24)))
    assert {answer.headers["docker-content-digest"] for answer in answers} == {str(digest)}
    assert hub.asked(name) == ["HEAD manifests/1", f"GET manifests/{digest}"]


def test_a_manifest_that_is_not_what_its_digest_says(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    here = f"asking.test/{name}"
    digest = hub.image(name, "1", annotations={"of": name})
    good = hub.manifests[name, str(digest)]
    hub.manifests[name, str(digest)] = good.replace(b"amd64", b"arm64") + b" "
    for target in ("1", str(digest)):
        answer = get(mirror, here, target)
        assert (answer.status, answer.code) == (502, "UNKNOWN")
    assert query(mirror, "SELECT 1 FROM manifests WHERE digest = ?", str(digest)) == []
    assert moves(mirror, here, "1") == []
    hub.manifests[name, str(digest)] = good
    assert get(mirror, here, "1").body == good


def test_a_wrong_new_manifest_does_not_displace_the_old_one(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    here = f"asking.test/{name}"
    first = hub.image(name, "1")
    get(mirror, here, "1")
    second = hub.image(name, "1", layer=b"other")
    hub.manifests[name, str(second)] += b"\n"
    answer = get(mirror, here, "1")
    assert answer.headers["docker-content-digest"] == str(first)
    assert state(answer) == "failing"


@pytest.mark.parametrize("body", [b"not JSON", b"[]", b'{"schemaVersion": 1}', b'{"schemaVersion": 2}'])
def test_a_document_that_is_no_manifest(
    mirror: RegistryServer, hub: Upstream, name: str, body: bytes
) -> None:
    hub.troubles[name] = lambda _: Reply(200, body, {"Content-Type": KIND})
    assert get(mirror, f"asking.test/{name}", "1").status == 502


def test_what_upstream_does_not_have(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    here = f"asking.test/{name}"
    answer = get(mirror, here, "1")
    assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")
    hub.image(name, "1")
    get(mirror, here, "1")
    answer = get(mirror, here, "2")
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
    assert get(mirror, here, "sha256:" + "a" * 64).code == "MANIFEST_UNKNOWN"
    assert get(mirror, here, "-no-tag").status == 404
    assert get(mirror, here, "sha256:short").status == 400


def test_what_upstream_refuses(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    hub.troubles[name] = lambda _: Reply(401, b"{}", {"WWW-Authenticate": 'Basic realm="x"'})
    answer = get(mirror, f"asking.test/{name}", "1")
    assert (answer.status, answer.code) == (403, "DENIED")
    assert "www-authenticate" not in answer.headers


# -- which names are whose ------------------------------------------------------------------------


def test_docker_asks_without_a_prefix_and_containerd_says_which_registry(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    digest = hub.image(name, "1")
    asked = [name, f"{name}?ns=other.test", f"docker.io/{name}"]
    for path in (f"{name}/manifests/1", f"{name}/manifests/1?ns=docker.io", f"docker.io/{name}/manifests/1"):
        answer = mirror.request("GET", f"/v2/{path}")
        assert answer.headers["docker-content-digest"] == str(digest), asked
        assert "registry=docker.io" in answer.headers["digestry-upstream"]
    answer = mirror.request("GET", f"/v2/{name}/manifests/1?ns=fresh.test")
    assert "registry=fresh.test" in answer.headers["digestry-upstream"]


def test_an_image_of_one_registry_never_comes_from_another(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    digest = hub.image(name, "1")
    layer = hub.blob(name, b"layer")
    # A registry that this one is no mirror of: what docker.io has by that name is something else.
    for path in ("manifests/1", f"manifests/{digest}", f"blobs/{layer}", "tags/list"):
        assert mirror.request("GET", f"/v2/{name}/{path}?ns=quay.io").status == 404, path
    assert hub.asked(name) == []
    ours = mirror.push_image(name, "1", b"ours")
    answer = mirror.request("GET", f"/v2/{name}/manifests/1?ns=quay.io")
    assert answer.headers["docker-content-digest"] == str(ours)


def resolved(server: RegistryServer, repository: str) -> tuple[str, set[str]]:
    """What the bulk question knows of tag 1: the repository that it names, and the digests."""
    body = json.dumps({"queries": [{"repository": repository, "tags": ["1"]}]}).encode()
    answer = server.request("POST", "/v2/_digestry/resolve", body)
    (found,) = answer.json()["resolutions"]
    return found["repository"], {node["digest"] for node in found.get("nodes", [])}


def test_the_history_of_the_default_mirror_is_known_by_the_name_without_the_prefix(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    digest = hub.image(name, "1", annotations={"of": name})
    for known in (False, True):
        events = [("created", None, str(digest), "mirror:docker.io")] if known else []
        assert moves(mirror, name, "1") == events
        history = mirror.request("GET", f"/v2/{name}/_oci/tag-history/1").json()["manifests"]
        assert [entry["digest"] for entry in history] == [str(digest)] * known
        assert resolved(mirror, name) == (name, {str(digest)} if known else set())
        get(mirror, f"docker.io/{name}", "1")
    assert hub.asked(name) == ["HEAD manifests/1", f"GET manifests/{digest}"]
    # What changes something wants the whole name, and a name of one's own is one's own.
    assert mirror.request("POST", f"/v2/{name}/_digestry/restore/1?to={digest}").status == 404
    ours = mirror.push_image(name, "1", b"ours")
    assert [move[2] for move in moves(mirror, name, "1")] == [str(ours)]
    assert str(digest) not in resolved(mirror, name)[1]
    assert resolved(mirror, f"docker.io/{name}") == (f"docker.io/{name}", {str(digest)})


def test_names_of_one_part_are_in_library_at_docker_io(mirror: RegistryServer, hub: Upstream) -> None:
    digest = hub.image("library/onepart", "1")
    for path in ("onepart", "docker.io/onepart", "library/onepart", "docker.io/library/onepart"):
        assert get(mirror, path, "1").headers["docker-content-digest"] == str(digest)
    listed = mirror.request("GET", "/v2/_catalog").json()["repositories"]
    assert "docker.io/library/onepart" in listed
    assert not {"onepart", "library/onepart", "docker.io/onepart"} & set(listed)


def test_a_repository_of_ones_own_goes_before_the_default(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    theirs = hub.image(name, "1")
    assert get(mirror, name, "1").headers["docker-content-digest"] == str(theirs)
    ours = mirror.push_image(name, "1", b"ours")
    answer = get(mirror, name, "1")
    assert answer.headers["docker-content-digest"] == str(ours)
    assert "digestry-upstream" not in answer.headers
    assert get(mirror, name, str(theirs)).status == 404
    assert get(mirror, f"docker.io/{name}", "1").headers["docker-content-digest"] == str(theirs)


def test_a_push_may_leave_out_what_the_default_mirror_has(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    content = b"layer of " + name.encode()
    layer = hub.blob(name, content)
    assert get_blob(mirror, name, layer, "HEAD").headers["content-length"] == str(len(content))
    image = mirror.image(name)
    image["layers"].append(descriptor(media_types.OCI_LAYER, layer, len(content)))
    assert get_blob(mirror, name, layer, "HEAD").status == 404  # by now the name is ours
    digest = mirror.push_manifest(name, "1", image)
    assert get(mirror, name, "1").headers["docker-content-digest"] == str(digest)
    assert get_blob(mirror, name, layer).body == content


def test_what_nobody_has_is_missing_in_a_push(mirror: RegistryServer, name: str) -> None:
    image = mirror.image(name)
    image["layers"].append(descriptor(media_types.OCI_LAYER, Digest.of(name.encode()), 9))
    answer = mirror.request(
        "PUT", f"/v2/{name}/manifests/1", json.dumps(image).encode(), {"Content-Type": KIND}
    )
    assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")


def test_a_push_goes_on_though_the_default_mirror_does_not_answer(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    hub.troubles[name] = lambda _: Reply(403, b"{}")
    layer = hub.blob(name, b"layer")
    assert get_blob(mirror, f"docker.io/{name}", layer, "HEAD").status == 403
    assert get_blob(mirror, name, layer, "HEAD").status == 404
    digest = mirror.push_image(name, "1", b"layer")
    assert get(mirror, name, "1").headers["docker-content-digest"] == str(digest)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "manifests/1"),
        ("POST", "blobs/uploads/"),
        ("POST", "blobs/uploads"),
        ("PATCH", "blobs/uploads/some"),
        ("POST", "_digestry/restore/1"),
    ],
)
def test_nothing_is_pushed_into_a_copy(mirror: RegistryServer, method: str, path: str) -> None:
    answer = mirror.request(method, f"/v2/asking.test/pushed/{path}", b"{}")
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")
    assert answer.headers["allow"] == "GET, HEAD, DELETE"
    assert "asking.test" in answer.json()["errors"][0]["message"]
    assert query(mirror, "SELECT 1 FROM repositories WHERE name LIKE '%/pushed'") == []


def test_what_is_here_can_be_deleted_and_comes_again(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    here = f"fresh.test/{name}"
    digest = hub.image(name, "1")
    get(mirror, here, "1")
    assert mirror.request("DELETE", f"/v2/{here}/manifests/{digest}").status == 202
    assert get(mirror, here, "1").status == 200
    assert hub.asked(name).count(f"GET manifests/{digest}") == 2
    assert [(event, by) for event, _, _, by in moves(mirror, here, "1")] == [
        ("created", "mirror:fresh.test"),
        ("deleted", "anonymous"),
        ("created", "mirror:fresh.test"),
    ]


def test_only_what_the_patterns_allow_is_fetched(mirror: RegistryServer, hub: Upstream) -> None:
    hub.image("allowed/one", "1")
    hub.image("refused/one", "1")
    assert get(mirror, "some.test/allowed/one", "1").status == 200
    for path in ("manifests/1", f"blobs/{hub.blob('refused/one', b'layer')}", "tags/list"):
        assert mirror.request("GET", f"/v2/some.test/refused/one/{path}").status == 404
    assert hub.asked("refused/one") == []
    assert mirror.request("PUT", "/v2/some.test/refused/one/manifests/1", b"{}").status == 405


def test_a_prefix_of_several_parts(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    digest = hub.image(name, "1")
    assert get(mirror, f"deep/in/here/{name}", "1").headers["docker-content-digest"] == str(digest)


def test_a_manifest_that_is_here_and_cannot_be_read_is_fetched_again(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    """It is damaged, and nobody has found that out yet; or collection takes it in this moment."""
    here = f"asking.test/{name}"
    first = hub.image(name, "1")
    get(mirror, here, "1")
    hub.image(name, "1", layer=b"other")
    get(mirror, here, "1")
    file = blob_file(mirror.root, first)
    whole = file.read_bytes()
    file.unlink()
    hub.image(name, "1")
    answer = get(mirror, here, "1")
    assert (answer.status, answer.body) == (200, whole)
    assert state(answer) == "current"
    assert file.read_bytes() == whole
