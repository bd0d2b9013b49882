"""Who did what, from where, and what runs where: a right of its own, and never part of a pull."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from digestry.catalog.journal_export import verify_lines
from digestry.errors import ContentError
from digestry.model.digest import Digest
from tests.registry.access.support import As, basic, bearer, challenge, guarded, nobody, of, token
from tests.support import RegistryServer, Response, run_digestry

RULES = """
[[rule]]
who = "anonymous"
repository = "public/**"
actions = "pull"
[[rule]]
who = "bob"
repository = ["public/**", "secret/**"]
actions = ["pull", "push", "move-tag", "delete"]
[[rule]]
who = "alice"
repository = "public/**"
actions = ["pull", "audit"]
[[rule]]
who = "carol"
actions = "admin"
"""
MOVES = 5
_TOLD_TO_AUDITORS = {"actor", "address", "client", "sequence", "hash", "previousHash"}


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with guarded(RULES) as server:
        bob = of(server, "bob")
        for number in range(MOVES):
            assert bob.push_image("public/app", "1", b"%d" % number).status == 201
            for _ in range(number):
                assert bob.push_image("secret/x", "1", os.urandom(4)).status == 201
        entry = {
            "repository": "public/app",
            "digest": str(digest(server)),
            "place": "prod/payments",
            "containers": 3,
        }
        body = json.dumps({"sightings": [entry]}).encode()
        assert of(server, "bob").request("POST", "/v2/_digestry/sightings", body).json()["noted"] == 1
        yield server


def digest(server: RegistryServer) -> Digest:
    answer = nobody(server).request("HEAD", "/v2/public/app/manifests/1")
    return Digest.parse(answer.headers["docker-content-digest"])


def without(server: RegistryServer) -> list[As]:
    """Who may pull, and no more: nobody, with and without a token, and bob, who may even push."""
    given = token(server, "repository:public/app:pull")["token"]
    return [nobody(server), As(server, bearer(given)), of(server, "bob")]


def auditors(server: RegistryServer) -> list[As]:
    given = token(server, "repository:public/app:pull", headers=basic("alice"))["token"]
    return [of(server, "alice"), As(server, bearer(given)), of(server, "carol")]


def entries(who: As, query: str = "") -> list[dict[str, Any]]:
    answer = who.request("GET", f"/v2/public/app/_digestry/journal{query}")
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = answer.json()["entries"]
    return found


@pytest.mark.long
def test_the_journal_is_told_without_who_and_where_from(server: RegistryServer) -> None:
    for who in without(server):
        found = entries(who)
        assert len(found) == MOVES
        for entry in found:
            assert not _TOLD_TO_AUDITORS & entry.keys()
            assert entry["withheld"] is True
            assert entry["toDigest"]
    for who in auditors(server):
        for entry in entries(who):
            assert entry.keys() >= _TOLD_TO_AUDITORS - {"client"}
            assert (entry["actor"], entry["address"]) == ("bob", "127.0.0.1")
            assert "withheld" not in entry


def routes(server: RegistryServer) -> list[tuple[str, str, bytes | None]]:
    one = digest(server)
    query = {
        "queries": [{"repository": "public/app", "digests": [str(one)], "tags": ["1"]}],
        "contents": True,
    }
    paths = ["journal", "journal?tag=1", "tag/1", "tags", f"whose/{one}", f"holders/{one}", "advisories"]
    return [
        *(("GET", f"/v2/public/app/_digestry/{path}", None) for path in paths),
        ("GET", "/v2/public/app/_oci/tag-history/1", None),
        ("GET", f"/v2/_digestry/whose/{one}", None),
        ("POST", "/v2/_digestry/resolve", json.dumps(query).encode()),
        ("GET", f"/v2/public/app/_digestry/sightings/{one}", None),
        ("GET", "/v2/public/app/tags/list", None),
        ("GET", f"/v2/public/app/manifests/{one}", None),
    ]


def test_no_route_tells_it(server: RegistryServer) -> None:
    for who in without(server):
        for method, path, body in routes(server):
            answer = who.request(method, path, body)
            # A token that is for one repository alone lists no others.
            assert answer.status == 200 or "sightings" in path or answer.status == 401, (path, answer.body)
            for secret in (b"payments", b'bob"', b"127.0.0.1", b"Python", b'"sequence"', b'ash":'):
                assert secret not in answer.body, (path, answer.body)


def test_a_move_of_ones_own_tells_no_number(server: RegistryServer) -> None:
    before, now = [entry["toDigest"] for entry in entries(of(server, "bob"))][1::-1]
    for to in (before, now):
        answer = of(server, "bob").request("POST", f"/v2/public/app/_digestry/restore/1?to={to}", b"")
        assert answer.status == 200
        assert answer.json()["event"]["withheld"] is True
        assert not _TOLD_TO_AUDITORS & answer.json()["event"].keys()


def test_numbers_cannot_be_asked_for(server: RegistryServer) -> None:
    """Whoever could ask for all before a number would find out an entry's by trying."""
    one = digest(server)
    for path in ("/v2/public/app/_digestry/journal", f"/v2/public/app/_digestry/whose/{one}"):
        for who in without(server):
            assert who.request("GET", f"{path}?before=5").status == 400
        for who in auditors(server):
            assert who.request("GET", f"{path}?before=5").status == 200
    everywhere = f"/v2/_digestry/whose/{one}?before=5"
    assert nobody(server).request("GET", everywhere).status == 400
    assert of(server, "alice").request("GET", everywhere).status == 400  # of others she may not audit
    assert of(server, "carol").request("GET", everywhere).status == 200


@pytest.mark.parametrize(
    "path", ["public/app/_digestry/journal", "public/app/_digestry/whose/{}", "_digestry/whose/{}"]
)
def test_pages_lead_on_for_everybody(server: RegistryServer, path: str) -> None:
    def listed(who: As, size: int) -> list[Any]:
        found: list[Any] = []
        link: str | None = f"/v2/{path.format(digest(server))}?n={size}"
        while link is not None:
            answer = who.request("GET", link)
            assert answer.status == 200, answer.body
            document = answer.json()
            found += document.get("entries", document.get("spans"))
            header = answer.headers.get("link")
            link = None if header is None else header.partition("<")[2].partition(">")[0]
        return [(one.get("at", one.get("since")), one.get("toDigest", one.get("digest"))) for one in found]

    for who in (nobody(server), of(server, "bob"), of(server, "alice"), of(server, "carol")):
        assert listed(who, 1) == listed(who, 1000) != []
    assert listed(nobody(server), 2) == listed(of(server, "carol"), 3)


def test_where_images_ran_is_refused_as_of_what_is_not_there(server: RegistryServer) -> None:
    def asked(who: As, name: str, of_what: Digest) -> Response:
        return who.request("GET", f"/v2/{name}/_digestry/sightings/{of_what}")

    one, other = digest(server), Digest.of(b"never seen")
    for name in ("public/app", "public/none"):
        assert "scope" in challenge(asked(nobody(server), name, one))
        for what in (one, other):
            refused = asked(of(server, "bob"), name, what)
            assert (refused.status, refused.code) == (403, "DENIED")
    for who in auditors(server):
        assert asked(who, "public/app", one).json()["sightings"][0]["place"] == "prod/payments"
        assert asked(who, "public/app", other).json()["places"] == 0


def test_the_chain_is_proved_by_who_has_the_right_alone(server: RegistryServer) -> None:
    def lines(who: As, name: str) -> list[bytes]:
        found = who.request("GET", f"/v2/{name}/_digestry/journal?n=1000").json()["entries"]
        return [json.dumps(entry).encode() for entry in found]

    every = [*lines(of(server, "carol"), "public/app"), *lines(of(server, "carol"), "secret/x")]
    every.sort(key=lambda line: int(json.loads(line)["sequence"]))
    verdict = verify_lines(every)
    assert verdict.broken is None
    assert verdict.entries == len(every) >= MOVES
    with pytest.raises(ContentError, match="withheld"):
        verify_lines(lines(nobody(server), "public/app"))


def test_without_rules_nothing_is_withheld(registry: RegistryServer) -> None:
    registry.push_image("audit/right", "1", b"x")
    entry = registry.request("GET", "/v2/audit/right/_digestry/journal").json()["entries"][0]
    assert entry.keys() >= _TOLD_TO_AUDITORS - {"client"}


def test_with_users_and_no_rules_every_user_may() -> None:
    with guarded("") as server:
        assert of(server, "alice").push_image("a/b", "1").status == 201
        answer = of(server, "bob").request("GET", "/v2/a/b/_digestry/journal")
        assert answer.json()["entries"][0]["actor"] == "alice"


# -- what the commands make of it ------------------------------------------------------------------------


def run(home: Path, *arguments: str, user: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DIGESTRY_")}
    environment |= {"DIGESTRY_HOME": str(home), "DOCKER_CONFIG": str(home)}
    home.mkdir(exist_ok=True)
    if user is not None:
        host = next(argument for argument in arguments if "127.0.0.1" in argument).partition("/")[0]
        pair = basic(user)["Authorization"].partition(" ")[2]
        (home / "config.json").write_text(json.dumps({"auths": {host: {"auth": pair}}}))
    done = run_digestry(*arguments, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def rows(done: subprocess.CompletedProcess[str]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = json.loads(done.stdout)
    return found


def test_log_says_what_is_withheld(server: RegistryServer, tmp_path: Path) -> None:
    name = f"{server.host}/public/app"
    done = run(tmp_path / "nobody", "log", f"{name}:1", "--format", "json")
    assert "only to users who may audit" in done.stderr
    assert len(rows(done)) >= MOVES
    for row in rows(done):
        assert row["withheld"] is True
        assert row["actor"] is row["address"] is row["client"] is row["sequence"] is None
    done = run(tmp_path / "alice", "log", f"{name}:1", "--format", "json", user="alice")
    assert done.stderr == ""
    assert {(row["withheld"], row["actor"]) for row in rows(done)} == {(False, "bob")}
    done = run(tmp_path / "alice", "log", f"{name}:1", user="alice")
    assert "bob (127.0.0.1)" in done.stdout


def test_whose_says_what_is_withheld(server: RegistryServer, tmp_path: Path) -> None:
    name = f"{server.host}/public/app@{digest(server)}"
    done = run(tmp_path / "bob", "whose", name, "--format", "json", user="bob")
    assert "only to users who may audit public/app" in done.stderr
    assert [row["seen"] for row in rows(done)] == [None] * len(rows(done))
    done = run(tmp_path / "nobody", "whose", name)
    assert "only to users who may audit public/app" in done.stderr
    assert "payments" not in done.stdout
    done = run(tmp_path / "alice", "whose", name, "--format", "json", user="alice")
    assert done.stderr == ""
    assert rows(done)[0]["seen"][0]["place"] == "prod/payments"


@pytest.mark.long
def test_an_audit_finds_the_same_without_what_is_withheld(server: RegistryServer, tmp_path: Path) -> None:
    reference = f"{server.host}/public/app:1"
    ran = [entry["toDigest"] for entry in entries(of(server, "carol"))]
    fleet = [
        {"host": f"h{n}", "name": f"c{n}", "reference": reference, "digest": each}
        for n, each in enumerate(ran)
    ]
    fleet.append({"host": "h", "name": "never", "reference": reference, "digest": str(Digest.of(b"never"))})
    (tmp_path / "fleet.json").write_text(json.dumps(fleet))

    def audited(user: str | None) -> list[tuple[str, Any, Any]]:
        arguments = ("audit", "--source", f"file:{tmp_path / 'fleet.json'}", "--format", "json")
        home = tmp_path / str(user)
        home.mkdir()
        if user is not None:
            pair = basic(user)["Authorization"].partition(" ")[2]
            (home / "config.json").write_text(json.dumps({"auths": {server.host: {"auth": pair}}}))
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DIGESTRY_")}
        environment |= {"DIGESTRY_HOME": str(home), "DOCKER_CONFIG": str(home)}
        done = run_digestry(*arguments, env=environment)
        assert "Traceback" not in done.stderr
        found = json.loads(done.stdout)["containers"]
        return sorted((one["name"], one["tag_state"], one["reasons"]) for one in found)

    told = audited(None)
    assert len(told) == len(fleet)
    assert len({state for _, state, _ in told}) > 1
    assert audited("bob") == audited("carol") == told
