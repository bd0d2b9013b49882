"""Logging in: challenges, tokens, docker's config.json and its helpers."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from digestry.client import challenges
from digestry.client.connection import Connection
from digestry.client.credentials import Credential, DockerCredentials, StaticCredentials
from digestry.client.options import ClientOptions, podman_files
from digestry.client.repository import Repository
from digestry.client.responses import Response
from digestry.client.session import Session
from digestry.client.transport import Call, Transport
from digestry.errors import InvalidConfiguration, ProtocolViolation, RemoteNotFound, Unauthorized
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.client.liar import Liar, Reply, Request


def write_config(directory: Path, document: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(
        document if isinstance(document, str) else json.dumps(document), encoding="utf-8"
    )
    return directory


def basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


# -- challenges -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        (
            'Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"',
            [("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:a/b:pull,push"})],
        ),
        ('bearer Realm = "a\\"b" , service=plain', [("bearer", {"realm": 'a"b', "service": "plain"})]),
        (
            'Negotiate, Basic realm="x", Bearer realm="y"',
            [("negotiate", {}), ("basic", {"realm": "x"}), ("bearer", {"realm": "y"})],
        ),
        ("", []),
        ('"""', []),
        ('Bearer realm="unended', [("bearer", {})]),
    ],
)
def test_challenges(value: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    found = [(c.scheme, c.parameters) for c in challenges.parse([value])]
    assert found[: len(expected)] == expected


def test_a_challenge_of_a_megabyte_does_not_take_long() -> None:
    begun = time.process_time()
    challenges.parse(['Bearer realm="' + "\\" * 1_000_000, "a=" * 500_000, "a" * 1_000_000])
    assert time.process_time() - begun < 10  # if it took the square of that, it would be hours


# -- docker's config.json -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("localhost:5000", "localhost:5000"),
        ("https://registry.example", "registry.example"),
        ("https://registry.example/v2/", "registry.example"),
        ("registry.example/v1/", "registry.example"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("docker.io", "docker.io"),
    ],
)
def test_names_of_registries(tmp_path: Path, key: str, host: str) -> None:
    write_config(tmp_path, {"auths": {"other.example": {}, key: {"auth": basic("ann", "a:b")}}})
    credentials = DockerCredentials(tmp_path)
    assert credentials.get(host) == Credential("ann", "a:b")
    assert credentials.get("stranger.example") is None
    assert credentials.get("registry.example:444") is None


def test_tokens_in_the_file(tmp_path: Path) -> None:
    write_config(tmp_path, {"auths": {"a": {"identitytoken": "id"}, "b": {"registrytoken": "rt"}, "c": {}}})
    credentials = DockerCredentials(tmp_path)
    assert credentials.get("a") == Credential(identity_token="id")
    assert credentials.get("b") == Credential(registry_token="rt")
    assert credentials.get("c") is None


def test_without_a_file(tmp_path: Path) -> None:
    assert DockerCredentials(None).get("a") is None
    assert DockerCredentials(tmp_path / "nowhere").get("a") is None


@pytest.mark.parametrize(
    "document",
    [
        "not json",
        "[]",
        '{"auths": []}',
        '{"auths": {"a": 1}}',
        '{"auths": {"a": {"auth": "%%%"}}}',
        '{"auths": {"a": {"auth": "bm9jb2xvbg=="}}}',
        '{"auths": {"a": {"identitytoken": 7}}}',
        '{"credHelpers": []}',
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, document: str) -> None:
    write_config(tmp_path, document)
    with pytest.raises(InvalidConfiguration, match=r"config\.json"):
        DockerCredentials(tmp_path).get("a")


def test_a_secret_is_in_no_representation() -> None:
    assert "s3cret" not in repr(Credential("ann", "s3cret", "s3cret", "s3cret"))


def test_ends_of_lines_in_a_login_do_not_count(tmp_path: Path) -> None:
    # As Go's decoder of base64 reads them: `base64` of a shell ends its output with one.
    encoded = basic("ann", "s3cret")
    text = f"{encoded[:8]}\r\n{encoded[8:]}\n"
    credentials = DockerCredentials(write_config(tmp_path, {"auths": {"a.example": {"auth": text}}}))
    assert credentials.get("a.example") == Credential("ann", "s3cret")


# -- helpers --------------------------------------------------------------------------------------


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes ``docker-credential-test``, a shell script, and puts it on the PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def write(script: str, config: Mapping[str, Any] | None = None, **more: Any) -> DockerCredentials:
        path = tmp_path / "docker-credential-test"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        write_config(tmp_path / "docker", config or {"credsStore": "test"})
        return DockerCredentials(tmp_path / "docker", **more)

    return write


ECHO = """read server; echo "{\\"Username\\":\\"$1\\",\\"Secret\\":\\"$server\\"}" """


def test_a_helper_is_asked_for_the_host(helper: Any) -> None:
    assert helper(ECHO).get("a.example:5000") == Credential("get", "a.example:5000")
    assert helper(ECHO).get("docker.io") == Credential("get", "https://index.docker.io/v1/")


def test_a_helper_for_one_host(helper: Any) -> None:
    credentials = helper(ECHO, {"credHelpers": {"a": "test"}, "auths": {"b": {"auth": basic("u", "p")}}})
    assert credentials.get("a") == Credential("get", "a")
    assert credentials.get("b") == Credential("u", "p")


def test_an_identity_token_from_a_helper(helper: Any) -> None:
    script = 'cat >/dev/null; echo \'{"Username":"<token>","Secret":"id"}\''
    assert helper(script).get("a") == Credential(identity_token="id")


def test_a_helper_that_has_nothing(helper: Any) -> None:
    credentials = helper(
        "cat >/dev/null; echo credentials not found in native keychain; exit 1",
        {"credsStore": "test", "auths": {"a": {"auth": basic("u", "p")}}},
    )
    assert credentials.get("a") == Credential("u", "p")
    assert credentials.get("b") is None


@pytest.mark.parametrize(
    "script", ["cat >/dev/null; echo locked; exit 1", "exit 3", "echo nonsense", "echo '{\"Username\":1}'"]
)
def test_a_helper_that_fails(helper: Any, script: str) -> None:
    told: list[str] = []
    credentials = helper(f"cat >/dev/null; {script}", tell=told.append)
    # A public image needs nobody's name; who is refused hears why nobody was logged in.
    assert credentials.get("a") is None
    assert "docker-credential-test" in credentials.problem("a")
    assert len(told) == 1
    assert credentials.problem("b") == ""


def test_a_helper_that_leaves_an_agent_behind_is_not_waited_for(
    helper: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As gpg's agent does: it holds the outputs of the helper open.
    monkeypatch.setattr("digestry.client.credential_helpers._TIMEOUT", 5.0)
    assert helper(f"sleep 7 & {ECHO}").get("a") == Credential("get", "a")


def test_an_entry_that_is_null_keeps_nothing(tmp_path: Path) -> None:
    write_config(tmp_path, {"auths": {"a": None, "b": {"auth": basic("u", "p")}}})
    assert DockerCredentials(tmp_path).get("a") is None
    assert DockerCredentials(tmp_path).get("b") == Credential("u", "p")


def test_a_helper_that_hangs(helper: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("digestry.client.credential_helpers._TIMEOUT", 0.1)
    credentials = helper("exec sleep 5")
    assert credentials.get("a") is None
    assert "did not answer within" in credentials.problem("a")


# -- tokens ---------------------------------------------------------------------------------------


class TokenRegistry:
    """A registry with a token server, both the liar's."""

    def __init__(self, liar: Liar) -> None:
        self.liar = liar
        self.given = 0
        self.expires: Any = 300
        self.refuse_tokens = False
        liar.answer = self.answer

    def answer(self, request: Request) -> Reply:
        if request.path == "/token":
            return self.token(request)
        if request.headers.get("Authorization") == f"Bearer t{self.given}" and self.given:
            if self.refuse_tokens:
                self.refuse_tokens = False
                return self.challenge()
            return Reply(404)
        return self.challenge()

    def challenge(self) -> Reply:
        realm = f'Bearer realm="http://{self.liar.host}/token",service="reg",scope="repository:extra:pull"'
        return Reply(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', {"WWW-Authenticate": realm})

    def token(self, _: Request) -> Reply:
        self.given += 1
        return Reply(200, json.dumps({"token": f"t{self.given}", "expires_in": self.expires}).encode())

    def tokens(self) -> list[Request]:
        return [request for request in self.liar.seen if request.path == "/token"]


@pytest.fixture
def tokens(liar: Liar) -> TokenRegistry:
    return TokenRegistry(liar)


def test_a_token_is_fetched_once_a_scope(tokens: TokenRegistry, hostile: Repository) -> None:
    for _ in range(3):
        with pytest.raises(RemoteNotFound):
            hostile.pull_manifest("latest")
    (request,) = tokens.tokens()
    assert request.query == {
        "service": ["reg"],
        "scope": ["repository:team/app:pull", "repository:extra:pull"],
    }
    assert "Authorization" not in request.headers
    with pytest.raises(RemoteNotFound):
        hostile.push_manifest(
            b'{"schemaVersion":2,"manifests":[]}', "application/vnd.oci.image.index.v1+json"
        )
    assert tokens.tokens()[1].query["scope"][0] == "repository:team/app:pull,push"
    with pytest.raises(RemoteNotFound):
        hostile.delete("latest")
    assert tokens.tokens()[2].query["scope"][0] == "repository:team/app:delete"


def test_a_token_that_has_ended_is_not_used(tokens: TokenRegistry, hostile: Repository) -> None:
    tokens.expires = 0.2
    for _ in range(2):
        with pytest.raises(RemoteNotFound):
            hostile.pull_manifest("latest")
        time.sleep(0.15)
    assert len(tokens.tokens()) == 2
    # The second was fetched before it was asked for, not after a refusal.
    assert [r.path for r in tokens.liar.seen].count("/v2/team/app/manifests/latest") == 3


def test_a_token_that_is_refused_is_replaced_once(tokens: TokenRegistry, hostile: Repository) -> None:
    with pytest.raises(RemoteNotFound):
        hostile.pull_manifest("latest")
    tokens.refuse_tokens = True
    with pytest.raises(RemoteNotFound):
        hostile.pull_manifest("latest")
    assert len(tokens.tokens()) == 2


def test_a_registry_that_refuses_every_token(liar: Liar, hostile: Repository) -> None:
    registry = TokenRegistry(liar)
    liar.answer = lambda r: registry.token(r) if r.path == "/token" else registry.challenge()
    with pytest.raises(Unauthorized):
        hostile.pull_manifest("latest")
    assert len(liar.seen) < 6


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"token":""}', b'{"token":7}', b'{"token":"a b"}', b'{"token":"a\\r\\nX: y"}'],
)
def test_a_token_server_that_sends_no_token(liar: Liar, hostile: Repository, body: bytes) -> None:
    registry = TokenRegistry(liar)
    liar.answer = lambda r: Reply(200, body) if r.path == "/token" else registry.challenge()
    with pytest.raises(ProtocolViolation):
        hostile.pull_manifest("latest")


def test_a_token_server_that_refuses(liar: Liar, hostile: Repository) -> None:
    registry = TokenRegistry(liar)
    liar.answer = lambda r: Reply(401, b"wrong password") if r.path == "/token" else registry.challenge()
    with pytest.raises(Unauthorized, match="wrong password"):
        hostile.pull_manifest("latest")


def test_a_404_of_the_token_server_is_not_the_registrys(liar: Liar, hostile: Repository) -> None:
    registry = TokenRegistry(liar)
    liar.answer = lambda r: Reply(404, b"no such page") if r.path == "/token" else registry.challenge()
    with pytest.raises(ProtocolViolation, match="get a token"):
        hostile.pull_manifest("latest")


def test_a_token_server_that_has_moved_is_found_again(liar: Liar, hostile: Repository) -> None:
    place = "old"

    def answer(request: Request) -> Reply:
        if request.path.startswith("/token/"):
            here = request.path.removeprefix("/token/") == place
            return Reply(200, b'{"token":"t"}') if here else Reply(404, b"no such page")
        if "Authorization" in request.headers:
            return Reply(404)
        realm = f'Bearer realm="http://{liar.host}/token/{place}",service="reg"'
        return Reply(401, b"{}", {"WWW-Authenticate": realm})

    liar.answer = answer
    with pytest.raises(RemoteNotFound):
        hostile.pull_manifest("latest")
    place = "new"
    with pytest.raises(ProtocolViolation):
        hostile.delete("latest")  # which wants another token
    with pytest.raises(RemoteNotFound):
        hostile.delete("latest")


def test_tokens_that_are_kept_are_bounded(
    tokens: TokenRegistry, liar: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("digestry.client.auth._MOST_TOKENS", 3)
    with Session() as session:

        def ask(name: str) -> None:
            with pytest.raises(RemoteNotFound):
                session.repository(Reference(liar.host, name)).pull_manifest("latest")

        for number in range(5):
            ask(f"a{number}")
        assert len(tokens.tokens()) == 5
        ask("a4")
        assert len(tokens.tokens()) == 5
        ask("a0")
        assert len(tokens.tokens()) == 6


@pytest.mark.parametrize("expires", [None, -5, "soon", 1e300])
def test_strange_lifetimes(tokens: TokenRegistry, hostile: Repository, expires: Any) -> None:
    tokens.expires = expires
    with pytest.raises(RemoteNotFound):
        hostile.pull_manifest("latest")


def test_the_password_goes_to_the_token_server_only(tokens: TokenRegistry, tmp_path: Path) -> None:
    host = tokens.liar.host
    write_config(tmp_path, {"auths": {host: {"auth": basic("ann", "s3cret")}}})
    with Session(ClientOptions(docker_config=tmp_path)) as session, pytest.raises(RemoteNotFound):
        session.repository(Reference(host, "a")).pull_manifest("latest")
    (request,) = tokens.tokens()
    assert request.headers["Authorization"] == f"Basic {basic('ann', 's3cret')}"
    assert request.query["account"] == ["ann"]
    others = [r.headers.get("Authorization", "") for r in tokens.liar.seen if r.path != "/token"]
    assert not any(value.startswith("Basic") for value in others)


def test_an_identity_token_is_traded_in(tokens: TokenRegistry, tmp_path: Path) -> None:
    host = tokens.liar.host
    write_config(tmp_path, {"auths": {host: {"identitytoken": "refresh"}}})
    with Session(ClientOptions(docker_config=tmp_path)) as session, pytest.raises(RemoteNotFound):
        session.repository(Reference(host, "a")).pull_manifest("latest")
    (request,) = tokens.tokens()
    assert request.method == "POST"
    form = parse_qs(request.body.decode())
    assert form["grant_type"] == ["refresh_token"]
    assert form["refresh_token"] == ["refresh"]
    assert form["scope"] == ["repository:a:pull repository:extra:pull"]


def test_a_password_is_not_sent_over_plain_http(liar: Liar, tmp_path: Path) -> None:
    realm = 'Bearer realm="http://tokens.example/token",service="reg"'
    liar.answer = lambda _: Reply(401, headers={"WWW-Authenticate": realm})
    write_config(tmp_path, {"auths": {liar.host: {"auth": basic("ann", "s3cret")}}})
    with Session(ClientOptions(docker_config=tmp_path)) as session:
        repository = session.repository(Reference(liar.host, "a"))
        with pytest.raises(ProtocolViolation, match="was not sent"):
            repository.pull_manifest("latest")


def test_a_realm_that_is_no_address(liar: Liar, hostile: Repository) -> None:
    liar.answer = lambda _: Reply(401, headers={"WWW-Authenticate": 'Bearer realm="file:///etc/passwd"'})
    with pytest.raises(ProtocolViolation, match="token server"):
        hostile.pull_manifest("latest")


def test_basic(liar: Liar, tmp_path: Path) -> None:
    wanted = f"Basic {basic('ann', 's3cret')}"
    liar.answer = lambda r: (
        Reply(404)
        if r.headers.get("Authorization") == wanted
        else Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    )
    write_config(tmp_path, {"auths": {liar.host: {"auth": basic("ann", "s3cret")}}})
    with Session(ClientOptions(docker_config=tmp_path)) as session:
        repository = session.repository(Reference(liar.host, "a"))
        for _ in range(2):
            with pytest.raises(RemoteNotFound):
                repository.pull_manifest("latest")
    assert len(liar.seen) == 3  # only the first was refused


def test_a_challenge_that_another_thread_met_meanwhile(liar: Liar) -> None:
    """The first request to a registry of this machine has no login, whatever is known when it is answered."""
    wanted = f"Basic {basic('ann', 's3cret')}"
    liar.answer = lambda request: (
        Reply(200)
        if request.headers.get("Authorization") == wanted
        else Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    )
    options = ClientOptions()
    statuses: list[int] = []

    def ask() -> None:
        call = Call("GET", f"http://{liar.host}/v2/a/manifests/1")
        with connection.send(liar.host, call, ()) as response:
            statuses.append(response.status)

    class Overtaken(Transport):
        def send_first(self, host: str, call: Call) -> Response | None:
            response = super().send_first(host, call)
            if response is not None:
                ask()
            return response

    connection = Connection(
        options,
        credentials=StaticCredentials({liar.host: Credential("ann", "s3cret")}),
        transport=Overtaken(options),
    )
    ask()
    connection.close()
    assert statuses == [200, 200]


def test_wrong_credentials_end_at_once(liar: Liar, tmp_path: Path) -> None:
    liar.answer = lambda _: Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    write_config(tmp_path, {"auths": {liar.host: {"auth": basic("ann", "wrong")}}})
    with Session(ClientOptions(docker_config=tmp_path)) as session:
        repository = session.repository(Reference(liar.host, "a"))
        with pytest.raises(Unauthorized):
            repository.pull_manifest("latest")
        with pytest.raises(Unauthorized):
            repository.pull_manifest("latest")
    assert len(liar.seen) == 3


def test_no_credentials_where_some_are_wanted(liar: Liar, hostile: Repository) -> None:
    liar.answer = lambda _: Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    with pytest.raises(Unauthorized) as caught:
        hostile.pull_manifest("latest")
    assert caught.value.hint.endswith(f"digestry login {liar.host}")


def test_who_is_logged_in_is_not_told_to_log_in_as_if_nobody_were(liar: Liar, tmp_path: Path) -> None:
    """Also not to the token server, which is another host."""
    denied = json.dumps({"errors": [{"code": "DENIED", "message": "ann may not push"}]}).encode()
    write_config(tmp_path, {"auths": {liar.host: {"auth": basic("ann", "right")}}})

    def answer(request: Request) -> Reply:
        if "Authorization" not in request.headers:
            return Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return Reply(403, denied)

    liar.answer = answer
    with Session(ClientOptions(docker_config=tmp_path)) as session, pytest.raises(Unauthorized) as caught:
        session.repository(Reference(liar.host, "a")).pull_manifest("latest")
    assert caught.value.hint.startswith("the account ann is known there and may not")

    def refuse(request: Request) -> Reply:
        if request.path == "/token":
            return Reply(401, b"incorrect username or password")
        realm = f'Bearer realm="http://{liar.host}/token",service="s"'
        return Reply(401, headers={"WWW-Authenticate": realm})

    liar.answer = refuse
    with Session(ClientOptions(docker_config=tmp_path)) as session, pytest.raises(Unauthorized) as caught:
        session.repository(Reference(liar.host, "a")).pull_manifest("latest")
    assert f"digestry login {liar.host}" in caught.value.hint
    assert "the account ann" in caught.value.hint


# -- keys with paths, other files -----------------------------------------------------------------


def entry(user: str) -> dict[str, str]:
    return {"auth": basic(user, "p")}


@pytest.mark.parametrize(
    ("repository", "user"),
    [("team/app", "app"), ("team/app/sub", "app"), ("team/apple", "team"), ("other", "host"), ("", "host")],
)
def test_the_longest_path_wins(tmp_path: Path, repository: str, user: str) -> None:
    auths = {"r.example": entry("host"), "r.example/team": entry("team"), "r.example/team/app": entry("app")}
    credentials = DockerCredentials(write_config(tmp_path, {"auths": auths}))
    assert credentials.get("r.example", repository) == Credential(user, "p")


def test_a_path_is_not_for_the_whole_host(tmp_path: Path) -> None:
    auths = {"r.example/team": entry("team"), "docker.io/library/nginx": entry("nginx")}
    credentials = DockerCredentials(write_config(tmp_path, {"auths": auths}))
    assert credentials.get("r.example", "other") is None
    assert credentials.get("docker.io", "library/alpine") is None
    assert credentials.get("docker.io", "library/nginx") == Credential("nginx", "p")
    assert credentials.get("registry-1.docker.io", "library/nginx") == Credential("nginx", "p")


def test_a_helper_for_a_path(helper: Any) -> None:
    credentials = helper(
        ECHO, {"credHelpers": {"r.example/team": "test"}, "auths": {"r.example": entry("host")}}
    )
    assert credentials.get("r.example", "team/app") == Credential("get", "r.example/team")
    assert credentials.get("r.example", "other") == Credential("host", "p")


def test_docker_goes_before_podman(tmp_path: Path) -> None:
    docker = write_config(tmp_path / "docker", {"auths": {"a": entry("docker")}})
    podman = write_config(tmp_path / "podman", {"auths": {"a": entry("podman"), "b": entry("podman")}})
    given = json.dumps({"auths": {"c": entry("given")}})
    credentials = DockerCredentials(docker, more=[podman / "config.json", tmp_path / "none"], given=given)
    assert [credentials.get(host) for host in "abcd"] == [
        Credential("docker", "p"),
        Credential("podman", "p"),
        Credential("given", "p"),
        None,
    ]


def test_another_programs_file_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "auth.json").write_text("{")
    told: list[str] = []
    credentials = DockerCredentials(None, more=[tmp_path / "auth.json"], tell=told.append)
    assert credentials.get("a") is None
    assert "auth.json" in told[0]


def test_a_variable_that_cannot_be_used() -> None:
    with pytest.raises(InvalidConfiguration, match="DOCKER_AUTH_CONFIG"):
        DockerCredentials(None, given="nonsense").get("a")


@pytest.mark.parametrize(
    ("environment", "files"),
    [
        ({"REGISTRY_AUTH_FILE": "/x", "XDG_RUNTIME_DIR": "/run", "HOME": "/h"}, ["/x"]),
        (
            {"XDG_RUNTIME_DIR": "/run", "HOME": "/h"},
            ["/run/containers/auth.json", "/h/.config/containers/auth.json"],
        ),
        ({"XDG_CONFIG_HOME": "/c", "HOME": "/h"}, ["/c/containers/auth.json"]),
        ({}, []),
    ],
)
def test_where_podman_keeps_them(environment: dict[str, str], files: list[str]) -> None:
    assert [str(file) for file in podman_files(environment)] == files


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_token_server_without_post(tokens: TokenRegistry, tmp_path: Path, status: int) -> None:
    liar, given = tokens.liar, tokens.liar.answer
    liar.answer = lambda request: Reply(status) if request.method == "POST" else given(request)
    config = write_config(tmp_path, {"auths": {liar.host: {"identitytoken": "id"}}})
    with Session(ClientOptions(docker_config=config)) as session:
        session.repository(Reference(liar.host, "team/app")).has_blob(Digest.of(b""))
    assert [r.method for r in liar.seen if r.path == "/token"] == ["POST", "GET"]


def test_the_repository_s_own_login_is_sent(liar: Liar, tmp_path: Path) -> None:
    liar.answer = lambda request: (
        Reply(404)
        if "Authorization" in request.headers
        else Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    )
    auths = {liar.host: entry("host"), f"{liar.host}/team": entry("team")}
    config = write_config(tmp_path, {"auths": auths})
    with Session(ClientOptions(docker_config=config)) as session:
        for name in ("team/app", "other", "team/app"):
            session.repository(Reference(liar.host, name)).has_blob(Digest.of(b""))
    sent = [r.headers["Authorization"] for r in liar.seen if "Authorization" in r.headers]
    assert sent == [f"Basic {basic(user, 'p')}" for user in ("team", "host", "team")]


def test_a_refusal_names_the_helper_that_failed(liar: Liar, tmp_path: Path) -> None:
    liar.answer = lambda _: Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    config = write_config(tmp_path, {"credsStore": "surely-not-installed"})
    with (
        Session(ClientOptions(docker_config=config)) as session,
        pytest.raises(Unauthorized, match="docker-credential-surely-not-installed"),
    ):
        session.repository(Reference(liar.host, "team/app")).pull_manifest("1")
