"""A minimum age of what tags resolve to, over HTTP: own repositories and mirrors, as clients see it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import bcrypt
import pytest

from digestry.backend import open_backend
from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.journal import Origin
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from tests.client.liar import Reply
from tests.registry.pull_through.support import Upstream, upstream
from tests.support import (
    RegistryServer,
    Response,
    descriptor,
    running_registry,
    start_registry,
    wait_until,
)

DAY = 86400 * clock.SECOND
HOUR = 3600 * clock.SECOND
ORIGIN = Origin("tester", "127.0.0.1", "pytest")

RULES = """
[[min-age]]
tag = "edge"
age = "off"

[[min-age]]
repository = ["app", "team/**"]
age = "7d"
"""


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry whose tags have a minimum age, but edge, with two worker processes."""
    file = tmp_path_factory.mktemp("rules") / "registry.toml"
    file.write_text(RULES)
    with running_registry("--config", str(file), "--workers", "2") as server:
        yield server


@contextmanager
def catalog_at(server: RegistryServer, now: int) -> Iterator[Catalog]:
    """The catalog of a running server, by a clock that stands at ``now``."""
    catalog = open_backend(server.root, now=lambda: now).open_catalog()
    try:
        yield catalog
    finally:
        catalog.close()


def tag_at(server: RegistryServer, name: str, tag: str, digest: Digest, ago: int) -> None:
    """Point a tag at what the repository has, as if it had been ``ago`` microseconds ago."""
    raw = server.request("GET", f"/v2/{name}/blobs/{digest}").body
    with catalog_at(server, clock.now() - ago) as catalog:
        catalog.put_manifest(name, Manifest.parse(raw), tag_names=[tag], origin=ORIGIN)


def pull(server: RegistryServer, name: str, tag: str, method: str = "GET") -> Response:
    return server.request(method, f"/v2/{name}/manifests/{tag}")


def fields(response: Response) -> dict[str, str]:
    """The header about the age, by its keys."""
    word, *rest = response.headers["digestry-age"].split("; ")
    return {"": word, **dict(part.split("=", 1) for part in rest)}


def message(response: Response) -> str:
    return str(json.loads(response.body)["errors"][0]["message"])


def image(server: RegistryServer, name: str, salt: str) -> Digest:
    """An image of the repository, under no tag."""
    document: dict[str, Any] = server.image(name, salt.encode())
    return server.push_manifest(name, str(Digest.of(json.dumps(document).encode())), document)


@pytest.mark.long
def test_the_answer_about_many_says_what_a_pull_gets(gated: RegistryServer) -> None:
    old, new = image(gated, "team/many", "old"), image(gated, "team/many", "new")
    for tag in ("1.5", "edge"):
        tag_at(gated, "team/many", tag, old, 30 * DAY)
        tag_at(gated, "team/many", tag, new, 3 * HOUR)
    tag_at(gated, "team/many", "young", new, 2 * HOUR)
    body = json.dumps({"queries": [{"repository": "team/many", "tags": ["1.5", "edge", "young"]}]})
    answer = gated.request("POST", "/v2/_digestry/resolve", body, {"Content-Type": "application/json"})
    tags = {one["tag"]: one for one in answer.json()["resolutions"][0]["tags"]}
    assert {tag: one["target"]["digest"] for tag, one in tags.items()} == dict.fromkeys(tags, str(new))
    assert {tag: one.get("served") for tag, one in tags.items()} == {
        "1.5": str(old),
        "edge": None,
        "young": None,
    }


@pytest.mark.long
def test_a_tag_is_answered_with_the_newest_digest_that_has_stood(gated: RegistryServer) -> None:
    old, new = image(gated, "app", "old"), image(gated, "app", "new")
    tag_at(gated, "app", "1.5", old, 30 * DAY)
    tag_at(gated, "app", "1.5", new, 3 * HOUR)
    for method in ("GET", "HEAD"):
        answer = pull(gated, "app", "1.5", method)
        assert (answer.status, answer.headers["docker-content-digest"]) == (200, str(old))
        found = fields(answer)
        assert (found[""], found["least"], found["newer"]) == ("older", str(7 * 86400), str(new))
        assert 0 <= int(found["newer-stood"]) - 3 * 3600 < 60
        assert found["since"] < found["until"]
        assert f"the newer {new} stood for 3 hours" in answer.headers["warning"]
    assert Digest.of(pull(gated, "app", "1.5").body) == old
    again = gated.request("GET", "/v2/app/manifests/1.5", headers={"If-None-Match": f'"{old}"'})
    assert again.status == 304


def test_nothing_old_enough_is_refused_with_the_reason(gated: RegistryServer) -> None:
    digest = image(gated, "team/young", "one")
    tag_at(gated, "team/young", "1", digest, 2 * DAY)
    answer = pull(gated, "team/young", "1")
    assert (answer.status, answer.code) == (403, "DENIED")
    assert "has stood under this tag for 7 days" in message(answer)
    assert f"{digest} did longest, for 2 days" in message(answer)
    assert "the present one will have at" in message(answer)
    assert pull(gated, "team/young", "1", "HEAD").headers["digestry-age"].startswith("refused; ")
    assert pull(gated, "team/young", "2").status == 404
    gated.push_manifest("team/young", "edge", gated.request("GET", f"/v2/team/young/blobs/{digest}").body)
    assert pull(gated, "team/young", "edge").status == 200
    assert "digestry-age" not in pull(gated, "team/young", "edge").headers


def test_another_repository_has_no_gate(gated: RegistryServer) -> None:
    gated.push_image("free", "latest")
    answer = pull(gated, "free", "latest")
    assert answer.status == 200
    assert "digestry-age" not in answer.headers


# -- by digest ---------------------------------------------------------------------------------

USERS = """
[auth]
htpasswd = "users"

[[rule]]
who = "pusher"
actions = ["pull", "push"]

[[rule]]
who = "mover"
actions = ["pull", "push", "move-tag"]

[[rule]]
who = "reader"
actions = ["pull"]

[[rule]]
who = "other-reader"
actions = ["pull"]

[[min-age]]
age = "7d"
"""
HEADERS = {
    name: {"Authorization": "Basic " + base64.b64encode(f"{name}:secret".encode()).decode()}
    for name in ("pusher", "mover", "reader", "other-reader")
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry with users, all of whose tags have a minimum age."""
    directory = tmp_path_factory.mktemp("users")
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4))
    (directory / "users").write_bytes(b"\n".join(name.encode() + b":" + hashed for name in HEADERS) + b"\n")
    (directory / "registry.toml").write_text(USERS)
    with running_registry("--config", str(directory / "registry.toml")) as server:
        yield server


class Pushed(NamedTuple):
    """An image in a registry with users."""

    raw: bytes
    digest: Digest
    layer: Digest


def push(server: RegistryServer, name: str, layer: bytes, tag: str = "", **extra: Any) -> Pushed:
    """An image, pushed by its digest, or by a tag."""
    found = []
    for content in (b"{}", layer):
        digest = Digest.of(content)
        path = f"/v2/{name}/blobs/uploads/?digest={digest}"
        assert server.request("POST", path, content, HEADERS["pusher"]).status == 201
        found.append(digest)
    raw = json.dumps({
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": descriptor(media_types.OCI_CONFIG, found[0], 2),
        "layers": [descriptor(media_types.OCI_LAYER, found[1], len(layer))],
        **extra,
    }).encode()  # fmt: skip
    return Pushed(raw, put(server, name, raw, tag), found[1])


def put(server: RegistryServer, name: str, raw: bytes, tag: str = "") -> Digest:
    digest = Digest.of(raw)
    kind = {"Content-Type": json.loads(raw)["mediaType"]}
    path = f"/v2/{name}/manifests/{tag or digest}"
    assert server.request("PUT", path, raw, HEADERS["pusher"] | kind).status == 201
    return digest


def age(server: RegistryServer, name: str, tag: str, raw: bytes, ago: int) -> None:
    """Point a tag at a manifest, as if it had been ``ago`` microseconds ago."""
    with catalog_at(server, clock.now() - ago) as catalog:
        catalog.put_manifest(name, Manifest.parse(raw), tag_names=[tag], origin=ORIGIN)


def ask(server: RegistryServer, who: str, method: str, path: str, body: Any = None) -> Response:
    return server.request(method, path, body, HEADERS[who])


@pytest.mark.long
def test_what_is_too_young_cannot_be_pulled_by_digest_either(shared: RegistryServer) -> None:
    old, young = push(shared, "young", b"old"), push(shared, "young", b"young")
    age(shared, "young", "1", old.raw, 30 * DAY)
    age(shared, "young", "1", young.raw, HOUR)
    for kind, refused, served in (
        ("manifests", young.digest, old.digest),
        ("blobs", young.layer, old.layer),
        ("blobs", young.digest, old.digest),
    ):
        for method in ("GET", "HEAD"):
            assert ask(shared, "reader", method, f"/v2/young/{kind}/{refused}").status == 403
            assert ask(shared, "reader", method, f"/v2/young/{kind}/{served}").status == 200
            # A push asks what is there.
            assert ask(shared, "pusher", method, f"/v2/young/{kind}/{refused}").status == 200
    # The empty config is both's: what is shared is served.
    assert ask(shared, "reader", "GET", f"/v2/young/blobs/{Digest.of(b'{}')}").status == 200
    answer = ask(shared, "reader", "GET", f"/v2/young/blobs/{young.layer}")
    assert answer.code == "DENIED"
    assert f"{young.layer} is too young: what it belongs to has not been under a tag for 7 days" in message(
        answer
    )
    assert f"the newer {young.digest} stood for 1 hour" in message(answer)
    # Lists stay.
    assert ask(shared, "reader", "GET", "/v2/young/tags/list").json()["tags"] == ["1"]
    # Who may push gets the aged digest by the tag, too.
    for who in ("reader", "pusher"):
        answer = ask(shared, who, "GET", "/v2/young/manifests/1")
        assert answer.headers["docker-content-digest"] == str(old.digest)


@pytest.mark.long
def test_children_go_with_their_index_and_referrers_with_their_subject(shared: RegistryServer) -> None:
    name = "index"
    children = [push(shared, name, f"{number}".encode()) for number in range(3)]

    def index(*some: Pushed) -> bytes:
        return json.dumps({
            "schemaVersion": 2,
            "mediaType": media_types.OCI_INDEX,
            "manifests": [descriptor(media_types.OCI_MANIFEST, one.digest, len(one.raw)) for one in some],
        }).encode()  # fmt: skip

    old, young = index(*children[:2]), index(*children[1:])
    for raw in (old, young):
        put(shared, name, raw)
    subject = descriptor(media_types.OCI_MANIFEST, children[2].digest, len(children[2].raw))
    signature = push(shared, name, b"signature", subject=subject)
    age(shared, name, "1", old, 8 * DAY)
    age(shared, name, "1", young, HOUR)
    tag = str(children[2].digest).replace(":", "-") + ".sig"
    cosign = push(shared, name, b"cosign", tag)

    def status(target: Digest | str, kind: str = "manifests") -> int:
        return ask(shared, "reader", "GET", f"/v2/{name}/{kind}/{target}").status

    # The second child is in both indexes, the third and its signatures in the young one alone.
    assert [status(one.digest) for one in children] == [200, 200, 403]
    assert [status(one.layer, "blobs") for one in children] == [200, 200, 403]
    assert [status(signature.digest), status(cosign.digest), status(tag)] == [403, 403, 403]
    with catalog_at(shared, clock.now()) as catalog:
        catalog.age_overrides.allow(
            name, digest=Digest.of(young), origin=Origin("alice", reason="CVE-2026-1 is fixed in it")
        )
    wait_until(lambda: status(children[2].digest) == 200, what="the override to hold")
    wait_until(lambda: status(tag) == 200, what="its signatures to be served")
    assert [status(signature.digest), status(cosign.digest)] == [200, 200]


def test_what_never_had_a_tag_is_served(shared: RegistryServer) -> None:
    untagged = push(shared, "untagged", b"by digest")
    for target in (f"manifests/{untagged.digest}", f"blobs/{untagged.layer}"):
        assert ask(shared, "reader", "GET", f"/v2/untagged/{target}").status == 200


def test_a_mount_copies_nothing_that_is_too_young(shared: RegistryServer) -> None:
    young = push(shared, "source", b"to be mounted", "1")
    for who, status in (("reader", 403), ("pusher", 201)):
        path = f"/v2/target/blobs/uploads/?mount={young.layer}&from=source"
        assert ask(shared, who, "POST", path).status == status


def test_a_push_that_goes_back_is_not_taken_for_done(shared: RegistryServer) -> None:
    """containerd leaves out a manifest whose tag has its digest already, and so must hear of the true one."""
    old, young = push(shared, "back", b"old"), push(shared, "back", b"young")
    age(shared, "back", "1", old.raw, 30 * DAY)
    age(shared, "back", "1", young.raw, HOUR)
    pushing = {"Accept": f"{media_types.OCI_MANIFEST}, */*"}
    pulling = {"Accept": f"{media_types.OCI_MANIFEST}, {media_types.OCI_INDEX}, */*"}
    for accepted, digest in ((pushing, young.digest), (pulling, old.digest)):
        answer = shared.request("HEAD", "/v2/back/manifests/1", headers=HEADERS["pusher"] | accepted)
        assert answer.headers["docker-content-digest"] == str(digest)
    answer = shared.request("HEAD", "/v2/back/manifests/1", headers=HEADERS["reader"] | pushing)
    assert answer.headers["docker-content-digest"] == str(old.digest)


def test_who_pushes_may_sign_and_verify_with_a_token_for_pulling(shared: RegistryServer) -> None:
    name = "signing"
    made = push(shared, name, b"to be signed", "1")
    signature = f"sha256-{made.digest.encoded}.sig"
    push(shared, name, b"a signature of it", signature)
    for who, status in (("pusher", 200), ("reader", 403)):
        query = f"/token?scope=repository:{name}:pull"
        token = shared.request("GET", query, headers=HEADERS[who]).json()["token"]
        bearer = {"Authorization": f"Bearer {token}"}
        for target in (str(made.digest), signature):
            answer = shared.request("GET", f"/v2/{name}/manifests/{target}", headers=bearer)
            assert answer.status == status, (who, target)
        assert shared.request("GET", f"/v2/{name}/manifests/1", headers=bearer).status == 403


# -- overrides ---------------------------------------------------------------------------------


@pytest.mark.long
def test_an_override_is_a_journalled_act_with_a_reason(shared: RegistryServer) -> None:
    name = "urgent"
    old, young = push(shared, name, b"old"), push(shared, name, b"young")
    age(shared, name, "1", old.raw, 30 * DAY)
    age(shared, name, "1", young.raw, HOUR)
    path = f"/v2/{name}/_digestry/age-overrides"
    wanted = json.dumps({"tag": "1", "reason": "CVE-2026-1 is fixed in it"})
    # Of a reader who was refused often in this minute, the audit log has no line each any more.
    assert ask(shared, "other-reader", "POST", path, wanted).status == 403
    assert ask(shared, "pusher", "POST", path, wanted).status == 403
    for wrong in (
        "{}",
        '{"tag": "1", "reason": ""}',
        '{"reason": "all of it"}',
        '{"tag": "2", "reason": "x"}',
        "[",
    ):
        assert ask(shared, "mover", "POST", path, wrong).status in {400, 404}
    made = ask(shared, "mover", "POST", path, wanted)
    assert made.status == 200, made.body
    # It is of the digest that the tag had then, and of no later one.
    assert (made.json()["tag"], made.json()["digest"]) == ("1", str(young.digest))

    def served() -> str:
        return ask(shared, "reader", "GET", f"/v2/{name}/manifests/1").headers["docker-content-digest"]

    wait_until(lambda: served() == str(young.digest), what="the override to hold")
    answer = ask(shared, "reader", "GET", f"/v2/{name}/manifests/1")
    assert fields(answer)[""] == "allowed"
    assert "is let through: CVE-2026-1 is fixed in it" in answer.headers["warning"]
    assert ask(shared, "reader", "GET", f"/v2/{name}/manifests/{young.digest}").status == 200
    listed = ask(shared, "reader", "GET", path).json()["overrides"]
    assert [(entry["number"], entry["reason"]) for entry in listed] == [
        (made.json()["number"], "CVE-2026-1 is fixed in it")
    ]
    assert "actor" not in listed[0]
    end = f"{path}/{made.json()['number']}?reason=it+is+worse"
    assert ask(shared, "pusher", "DELETE", end).status == 403
    assert ask(shared, "mover", "DELETE", end).status == 200
    assert ask(shared, "mover", "DELETE", end).status == 404
    wait_until(lambda: served() == str(old.digest), what="the override to end")
    with catalog_at(shared, clock.now()) as catalog:
        acts = [event for event in catalog.journal(name, limit=10) if event.event in {"allowed", "revoked"}]
        assert [(act.event, act.tag, str(act.from_digest), act.reason, act.actor) for act in acts] == [
            ("revoked", "@1", str(young.digest), "it is worse", "mover"),
            ("allowed", "@1", str(young.digest), "CVE-2026-1 is fixed in it", "mover"),
        ]
        assert catalog.verify_journal() is None
    lines = [json.loads(line) for line in (shared.root / "audit.log").read_text().splitlines()]
    mine = [line for line in lines if line.get("repository") == name]
    actions = [line["action"] for line in mine]
    assert actions.count("serve-aged") >= 1
    assert [line["status"] for line in mine if line["action"] == "allow-young"][:2] == [403, 403]
    assert "revoke-young" in actions
    assert any(line["action"] == "allow-young" and line.get("newest") for line in mine)


def test_a_key_that_an_override_does_not_have_is_refused(shared: RegistryServer) -> None:
    """``untill`` would let it through for ever."""
    push(shared, "typed", b"typed")
    path = "/v2/typed/_digestry/age-overrides"
    wanted = json.dumps({"tag": "1", "reason": "an urgent fix", "untill": "2040-01-01T00:00:00Z"})
    answer = ask(shared, "mover", "POST", path, wanted)
    assert answer.status == 400
    assert "untill" in answer.json()["errors"][0]["message"]
    assert ask(shared, "reader", "GET", path).json()["overrides"] == []


def test_the_answer_about_an_age(shared: RegistryServer) -> None:
    old, young = push(shared, "asked", b"old"), push(shared, "asked", b"young")
    age(shared, "asked", "1", old.raw, 30 * DAY)
    age(shared, "asked", "1", young.raw, 3 * HOUR)

    def found(query: str) -> Any:
        answer = ask(shared, "reader", "GET", f"/v2/asked/_digestry/age/1{query}")
        assert answer.status == 200, answer.body
        return answer.json()

    assert found("")["stood"]["digest"] == str(old.digest)  # by the rule
    assert found("?min-age=1h")["stood"]["digest"] == str(young.digest)
    whole = found("?min-age=14d")
    assert whole["leastSeconds"] == 14 * 86400
    assert whole["stood"]["count"] == 1
    assert whole["current"] == str(young.digest)
    assert whole["newer"][0]["digest"] == str(young.digest)
    assert 0 <= whole["newer"][0]["seconds"] - 3 * 3600 < 60
    assert found("?min-age=100d")["refusal"] == "young"
    assert ask(shared, "reader", "GET", "/v2/asked/_digestry/age/2?min-age=7d").status == 404
    for wrong in ("x", "-1", "7y", "99999999d"):
        assert ask(shared, "reader", "GET", f"/v2/asked/_digestry/age/1?min-age={wrong}").status == 400


# -- mirrors -----------------------------------------------------------------------------------


@contextmanager
def gated_mirror(upstream: Upstream, tmp_path: Path, extra: str = "") -> Iterator[RegistryServer]:
    file = tmp_path / "registry.toml"
    file.write_text(
        f'[mirror."docker.io"]\nurl = "{upstream.url}"\nmin-age = "7d"\ntag-ttl = 0\ndefault = true\n{extra}'
    )
    with running_registry("--config", str(file)) as server:
        yield server


def observe(server: RegistryServer, tag: str, digest: Digest, first: int, last: int) -> None:
    """Observations of a tag of ``docker.io/team/app``, from and to so many microseconds ago."""
    now = clock.now()
    with catalog_at(server, now) as catalog:
        name = "docker.io/team/app"
        catalog.observations.seen(name, tag, digest, interval=first - last + 1, at=now - first)
        catalog.observations.seen(name, tag, digest, interval=first - last + 1, at=now - last)


@pytest.mark.long
@pytest.mark.parametrize("path", ["docker.io/team/app", "team/app", "team/app?ns=docker.io"])
def test_a_mirror_serves_what_it_saw_for_long_enough(tmp_path: Path, path: str) -> None:
    """By each of a mirror's names."""
    name, _, query = path.partition("?")

    def get(server: RegistryServer, kind: str, target: object, method: str = "GET") -> Response:
        return server.request(method, f"/v2/{name}/{kind}/{target}{'?' if query else ''}{query}")

    with upstream() as other, gated_mirror(other, tmp_path) as server:
        old = other.image("team/app", "1", layer=b"old")
        first = get(server, "manifests", "1")
        assert (first.status, first.code) == (403, "DENIED")
        assert "has been seen under this tag for 7 days" in message(first)
        observe(server, "1", old, 30 * DAY, HOUR)
        young = other.image("team/app", "1", layer=b"young")
        wait_until(lambda: get(server, "manifests", "1").status == 200, what="an age")
        answer = get(server, "manifests", "1")
        assert answer.headers["docker-content-digest"] == str(old)
        assert fields(answer)[""] == "older"
        assert answer.headers["digestry-upstream"].startswith("current; ")
        assert f"the newer {young} was seen for" in answer.headers["warning"]
        for digest, status in ((old, 200), (young, 403), (Digest.of(b"never seen"), 403)):
            assert get(server, "manifests", digest).status == status
        for layer, status in ((b"old", 200), (b"young", 403), (b"never seen", 403)):
            assert get(server, "blobs", Digest.of(layer)).status == status
            # To a push, which may go to this name, the default mirror has nothing that it does not serve.
            pushed = 404 if status == 403 and path == "team/app" else status
            assert get(server, "blobs", Digest.of(layer), "HEAD").status == pushed
        asked = [line for line in other.asked("team/app") if line.startswith("GET blobs")]
        assert asked == [f"GET blobs/{Digest.of(b'old')}"]  # what is refused is not fetched either


@pytest.mark.long
def test_an_aged_digest_is_fetched_if_it_is_not_here(tmp_path: Path) -> None:
    with upstream() as other, gated_mirror(other, tmp_path) as server:
        old = other.image("team/app", layer=b"old")
        young = other.image("team/app", "1", layer=b"young")
        observe(server, "1", old, 30 * DAY, DAY)
        observe(server, "1", young, HOUR, HOUR)
        answer = server.request("GET", "/v2/docker.io/team/app/manifests/1")
        assert (answer.status, answer.headers["docker-content-digest"]) == (200, str(old))
        # Deleted there: nothing.
        del other.tags["team/app", "1"]
        assert server.request("GET", "/v2/docker.io/team/app/manifests/1").status == 404


@pytest.mark.long
def test_an_aged_digest_that_is_gone_everywhere_is_not_replaced(tmp_path: Path) -> None:
    with upstream() as other, gated_mirror(other, tmp_path) as server:
        gone = Digest.of(b"gone")
        observe(server, "1", gone, 30 * DAY, DAY)
        other.image("team/app", "1", layer=b"young")
        answer = server.request("GET", "/v2/docker.io/team/app/manifests/1")
        assert answer.status == 403
        assert f"resolves to {gone}" in message(answer)


@pytest.mark.long
def test_a_restart_forgets_nothing_and_an_outage_takes_nothing_away(tmp_path: Path) -> None:
    file = tmp_path / "registry.toml"
    with upstream() as other:
        file.write_text(f'[mirror."docker.io"]\nurl = "{other.url}"\nmin-age = "7d"\ntag-ttl = 0\n')
        root = tmp_path / "root"
        server = start_registry(root, "--config", str(file))
        try:
            old = other.image("team/app", "1", layer=b"old")
            server.request("GET", "/v2/docker.io/team/app/manifests/1")
            observe(server, "1", old, 8 * DAY, DAY)
            young = other.image("team/app", "1", layer=b"young")
            server.request("GET", "/v2/docker.io/team/app/manifests/1")
            server.kill()
            server = start_registry(root, "--config", str(file))
            for _ in range(2):
                answer = server.request("GET", "/v2/docker.io/team/app/manifests/1")
                assert (answer.status, answer.headers["docker-content-digest"]) == (200, str(old))
                assert str(young) in answer.headers["digestry-age"]
                other.troubles["team/app"] = lambda _: Reply(500)
        finally:
            server.kill()


@pytest.mark.long
def test_an_override_of_a_mirrors_repository(tmp_path: Path) -> None:
    with upstream() as other, gated_mirror(other, tmp_path) as server:
        young = other.image("team/app", "1", layer=b"young")
        assert server.request("GET", "/v2/docker.io/team/app/manifests/1").status == 403
        body = json.dumps({"digest": str(young), "reason": "looked at by hand"})
        path = "/v2/docker.io/team/app/_digestry/age-overrides"
        assert server.request("POST", path, body).status == 200
        wait_until(
            lambda: server.request("GET", "/v2/docker.io/team/app/manifests/1").status == 200,
            what="the override to hold",
        )
        assert server.request("GET", f"/v2/docker.io/team/app/blobs/{Digest.of(b'young')}").status == 200


@pytest.mark.long
def test_a_tag_that_is_asked_for_is_observed(tmp_path: Path) -> None:
    """No observation, no age: the first request makes it a tag that is looked at, and so it gets one."""
    observed = '[observe."docker.io/team/other"]\ntags = "2"\nevery = "1s"\n'
    with upstream() as other, gated_mirror(other, tmp_path, observed) as server:
        other.image("team/app", "1", layer=b"one")
        other.image("team/other", "1", layer=b"other")
        for name in ("app", "other"):
            assert server.request("GET", f"/v2/docker.io/team/{name}/manifests/1").status == 403

        def scheduled() -> set[tuple[str, str]]:
            with catalog_at(server, clock.now()) as catalog:
                plan = catalog.observation_plan
                return {(name, tag) for name in plan.repositories() for tag in plan.tags(name) if tag}

        wanted = {("docker.io/team/app", "1"), ("docker.io/team/other", "1"), ("docker.io/team/other", "2")}
        wait_until(lambda: scheduled() == wanted, what="the tags to be observed")
        # A tag that upstream does not have is not.
        assert server.request("GET", "/v2/docker.io/team/app/manifests/nothing").status == 404
        with catalog_at(server, clock.now()) as catalog:
            assert [rule.tags for rule in catalog.observation_plan.rules()] == [("1",), ("1",)]
