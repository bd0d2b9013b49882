"""Tokens: what the endpoint gives, and what an intruder makes of them."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey

from digestry.model.digest import Digest
from digestry.registry.access import untrusted_tokens
from digestry.registry.access.keys import KeyRing
from digestry.registry.access.tokens import ALGORITHM, Tokens
from tests.backends import open_coordination
from tests.registry.access.support import (
    PASSWORDS,
    RULES,
    basic,
    bearer,
    challenge,
    guarded,
    htpasswd,
    of,
    token,
)
from tests.support import RegistryServer, Response, wait_for_line, wait_until

APP = "/v2/team/app/manifests/1"


def get(server: RegistryServer, path: str, secret: str) -> Response:
    return server.request("GET", path, headers=bearer(secret))


def form(server: RegistryServer, **fields: str) -> Response:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return server.request("POST", "/token", urlencode(fields), headers)


def claims(secret: str) -> dict[str, Any]:
    part = secret.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


@pytest.mark.long
def test_a_token_for_what_was_asked(server: RegistryServer) -> None:
    given = token(server, "repository:team/app:pull,push", headers=basic("bob"), service="digestry")
    assert given["token"] == given["access_token"]
    assert given["expires_in"] == 299 or given["expires_in"] == 300
    assert claims(given["token"])["access"] == [
        {"type": "repository", "name": "team/app", "actions": ["pull"]}
    ]
    assert get(server, APP, given["token"]).status == 200
    assert get(server, "/v2/", given["token"]).status == 200


def test_a_token_for_one_repository_used_on_another(server: RegistryServer) -> None:
    secret = token(server, "repository:team/app:pull,push", headers=basic("alice"))["token"]
    found = challenge(get(server, "/v2/team/other/manifests/1", secret))
    assert (found["scope"], found["error"]) == ("repository:team/other:pull", "insufficient_scope")
    assert get(server, "/v2/secret/x/manifests/1", secret).status == 404
    digest = Digest.of(b"bob/tool")
    answer = server.request(
        "POST", f"/v2/team/app/blobs/uploads/?mount={digest}&from=bob/tool", headers=bearer(secret)
    )
    assert answer.status == 202
    assert server.request("DELETE", APP, headers=bearer(secret)).status == 401  # alice may, the token may not


def test_a_token_asked_with_a_star(server: RegistryServer) -> None:
    secret = token(server, "repository:team/star:*", headers=basic("alice"))["token"]
    assert claims(secret)["access"][0]["actions"] == ["pull", "push", "delete"]


def test_the_catalog_needs_its_scope(server: RegistryServer) -> None:
    narrow = token(server, "repository:team/app:pull", headers=basic("alice"))["token"]
    found = challenge(get(server, "/v2/_catalog", narrow))
    assert found["scope"] == "registry:catalog:*"
    wide = token(server, "registry:catalog:*", headers=basic("alice"))["token"]
    assert "team/app" in get(server, "/v2/_catalog", wide).json()["repositories"]
    assert "secret/x" not in get(server, "/v2/_catalog", wide).json()["repositories"]


def test_nobody_gets_a_token_for_what_everybody_may(server: RegistryServer) -> None:
    given = token(server, "repository:public/base:pull,push", "repository:secret/x:pull")
    assert get(server, "/v2/public/base/manifests/1", given["token"]).status == 200
    assert get(server, "/v2/", given["token"]).status == 200
    for path in ("/v2/secret/x/manifests/1", "/v2/secret/y/manifests/1"):
        assert get(server, path, given["token"]).status == 401
    assert "refresh_token" not in token(server, offline_token="true")


@pytest.mark.parametrize(
    "credentials",
    [
        basic("alice", "wrong"),
        basic("nobody", "wrong"),
        basic("alice", ""),
        basic("alice", "\0"),
        basic("alice", "x" * 5000),
        basic("robot$ci", "wrong"),
        basic("robot$", ""),
        basic("oidc", "a.b.c"),
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic"},
        {"Authorization": "Basic " + base64.b64encode(b"alice").decode()},
        {"Authorization": "Basic " + base64.b64encode(b"\xff\xfe:x").decode()},
    ],
)
def test_wrong_passwords(server: RegistryServer, credentials: dict[str, str]) -> None:
    answer = server.request("GET", "/token?service=digestry", headers=credentials)
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
    assert challenge(answer)["scheme"] == "Basic"
    assert server.request("GET", APP, headers=credentials).status == 401


@pytest.mark.parametrize(
    "query",
    [
        "service=other",
        "scope=repository:team/app",
        "scope=repository::pull",
        "scope=repository:UP/x:pull",
        "scope=x",
    ],
)
def test_what_cannot_be_asked(server: RegistryServer, query: str) -> None:
    answer = server.request("GET", f"/token?{query}", headers=basic("alice"))
    assert (answer.status, answer.code) == (400, "UNSUPPORTED")


def test_other_methods(server: RegistryServer) -> None:
    assert server.request("PUT", "/token").status == 405


# -- docker's identity tokens ---------------------------------------------------------------------


def test_a_refresh_token_instead_of_the_password(server: RegistryServer) -> None:
    given = token(server, headers=basic("alice"), offline_token="true", client_id="docker")
    refresh = given["refresh_token"]
    answer = form(
        server,
        grant_type="refresh_token",
        refresh_token=refresh,
        service="digestry",
        client_id="docker",
        scope="repository:team/app:pull,push repository:secret/x:pull",
    )
    assert answer.status == 200, answer.body
    assert answer.json()["refresh_token"] == refresh
    assert get(server, APP, answer.json()["access_token"]).status == 200
    assert get(server, APP, refresh).status == 401  # it is no access token
    assert form(server, grant_type="refresh_token", refresh_token=given["token"]).status == 401
    assert form(server, grant_type="refresh_token", refresh_token="x").status == 401


def test_a_password_in_a_form(server: RegistryServer) -> None:
    fields = {"grant_type": "password", "username": "carol", "password": PASSWORDS["carol"]}
    answer = form(server, **fields, access_type="offline", scope="repository:secret/x:pull")
    assert answer.status == 200, answer.body
    assert get(server, "/v2/secret/x/manifests/1", answer.json()["access_token"]).status == 200
    assert "refresh_token" in answer.json()
    assert form(server, **{**fields, "password": "wrong"}).status == 401
    assert form(server, grant_type="client_credentials").status == 400
    assert server.request("POST", "/token", b"\xff\xff").status == 400
    assert server.request("POST", "/token", b"x" * 100_000).status == 413


# -- forged ---------------------------------------------------------------------------------------


def own(server: RegistryServer) -> Tokens:
    """Signs with the registry's own key, as only it should."""
    keys = KeyRing(open_coordination(server.root).keys)
    keys.refresh()
    return Tokens(keys, "digestry")


def forged(server: RegistryServer, header: dict[str, Any], key: Any, **changes: Any) -> str:
    good = claims(token(server, "repository:team/app:pull", headers=basic("alice"))["token"])
    return jwt.encode(header, {**good, **changes}, key, algorithms=[header["alg"]])


def test_forged_tokens(server: RegistryServer) -> None:
    keys = KeyRing(open_coordination(server.root).keys)
    keys.refresh()
    kid, key = keys.signing()
    real = token(server, "repository:team/app:pull", headers=basic("alice"))["token"]
    assert get(server, APP, real).status == 200
    head, body, signature = real.split(".")
    stranger = OKPKey.generate_key("Ed25519")
    public = OctKey.import_key(json.dumps(key.as_dict(private=False)))
    with pytest.warns(match="EdDSA"):
        old_name = forged(server, {"alg": "EdDSA", "kid": kid}, key)
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": kid}).encode()).decode().rstrip("=")
    more = json.loads(base64.urlsafe_b64decode(body + "=="))
    more["access"][0]["name"] = "secret/x"
    edited = base64.urlsafe_b64encode(json.dumps(more).encode()).decode().rstrip("=")
    tokens = {
        "signed by another": forged(server, {"alg": ALGORITHM, "kid": kid}, stranger),
        "an unknown kid": forged(server, {"alg": ALGORITHM, "kid": "00000000000000000000-00000000"}, key),
        "a kid that is a path": forged(server, {"alg": ALGORITHM, "kid": "../serve.lock"}, key),
        "no kid": forged(server, {"alg": ALGORITHM}, key),
        "the public key as a secret": forged(server, {"alg": "HS256", "kid": kid}, public),
        "another name of the algorithm": old_name,
        "alg none": f"{none}.{body}.",
        "alg none, with the signature": f"{none}.{body}.{signature}",
        "edited": f"{head}.{edited}.{signature}",
        "cut": real[:-4],
        "no signature": f"{head}.{body}.",
        "two parts": f"{head}.{body}",
        "not JSON": f"{head}.AAAA.{signature}",
        "nothing": "...",
        "deep": base64.urlsafe_b64encode(b"[" * 100_000).decode() + ".a.b",
        "expired": forged(server, {"alg": ALGORITHM, "kid": kid}, key, exp=int(time.time()) - 1),
        "never expiring": forged(server, {"alg": ALGORITHM, "kid": kid}, key, exp=None),
        "of the future": forged(server, {"alg": ALGORITHM, "kid": kid}, key, nbf=int(time.time()) + 900),
        "wrong audience": forged(server, {"alg": ALGORITHM, "kid": kid}, key, aud="elsewhere"),
        "wrong issuer": forged(server, {"alg": ALGORITHM, "kid": kid}, key, iss="elsewhere"),
        "of who is no user": forged(server, {"alg": ALGORITHM, "kid": kid}, key, sub="mallory"),
        "of an old password": forged(server, {"alg": ALGORITHM, "kid": kid}, key, credential="0" * 16),
        "with a key of its own": forged(server, {"alg": ALGORITHM, "jwk": stranger.as_dict()}, stranger),
        "a robot's": "dgr_" + "A" * 43,
    }
    for what, secret in tokens.items():
        answer = get(server, APP, secret)
        assert answer.status == 401, (what, answer.body)
        assert challenge(answer)["error"] == "invalid_token", what
    assert get(server, APP, "x" * 300_000).status in {400, 401, 431}
    assert server.request("GET", APP, headers={"Authorization": "Digest x"}).status == 401
    assert get(server, APP, real).status == 200


@pytest.mark.long
def test_a_token_ends_when_it_says(server: RegistryServer) -> None:
    fingerprint = claims(token(server, headers=basic("alice"))["token"])["credential"]
    access = [{"type": "repository", "name": "team/app", "actions": ["pull"]}]
    ends = time.time() + 2
    secret = own(server).sign("alice", "access", credential=fingerprint, ends=ends, access=access)
    assert get(server, APP, secret).status == 200 or time.time() >= int(ends)
    wait_until(lambda: get(server, APP, secret).status == 401, what="the token's end")
    assert time.time() >= int(ends)


# -- what changes while it runs ---------------------------------------------------------------------


@pytest.fixture
def changing() -> Iterator[RegistryServer]:
    with guarded(RULES, "--workers", "2") as server:
        assert of(server, "alice").push_image("team/app", "1").status == 201
        yield server


def many(server: RegistryServer, headers: dict[str, str]) -> set[int]:
    """The statuses of so many requests that each worker surely gets some."""
    return {server.request("GET", APP, headers=headers).status for _ in range(24)}


@pytest.mark.long
def test_users_change_while_it_runs(changing: RegistryServer) -> None:
    users = changing.root.with_name("users")
    before = token(changing, "repository:team/app:pull", headers=basic("alice"), offline_token="true")
    assert many(changing, bearer(before["token"])) == {200}
    users.write_text("not an htpasswd file\n")
    wait_for_line(changing.log, "line 1")
    assert many(changing, basic("alice")) == {200}  # the users stay as they were
    users.write_text(htpasswd({**PASSWORDS, "alice": "new", "dave": "d"}))
    wait_until(lambda: many(changing, basic("alice", "new")) == {200}, what="the new password")
    assert many(changing, basic("alice")) == {401}
    assert many(changing, bearer(before["token"])) == {401}
    assert form(changing, grant_type="refresh_token", refresh_token=before["refresh_token"]).status == 401
    assert many(changing, basic("dave", "d")) == {404}


@pytest.mark.long
def test_keys_change_while_it_runs(changing: RegistryServer) -> None:
    directory = changing.root / "keys"
    assert directory.stat().st_mode & 0o777 == 0o700
    (first,) = directory.iterdir()
    assert first.stat().st_mode & 0o777 == 0o600
    old = token(changing, "repository:team/app:pull", headers=basic("alice"))["token"]
    keys = KeyRing(open_coordination(changing.root).keys)
    kid = keys.rotate()
    new = ""

    def signed_anew() -> bool:
        nonlocal new
        new = token(changing, "repository:team/app:pull", headers=basic("alice"))["token"]
        return untrusted_tokens.header(new).kid == kid

    wait_until(signed_anew, what="signing with the new key")
    assert many(changing, bearer(new)) == {200}  # by the other worker too, at once
    assert many(changing, bearer(old)) == {200}
    keys.rotate(retire=True)
    wait_until(lambda: many(changing, bearer(old)) == {401}, what="the old key's end")
    assert many(changing, bearer(new)) == {401}


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    from digestry.errors import StorageError

    keys = KeyRing(open_coordination(tmp_path).keys)
    keys.ensure()
    keys.ensure()
    (file,) = (tmp_path / "keys").iterdir()
    file.chmod(0o644)
    with pytest.raises(StorageError, match="can be read by others"):
        keys.refresh()
    file.chmod(0o600)
    file.write_bytes(os.urandom(10))
    with pytest.raises(StorageError, match="holds no key"):
        keys.refresh()
