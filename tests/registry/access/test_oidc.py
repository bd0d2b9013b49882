"""Tokens of outside issuers: whom they stand for, and which are not believed."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey

from digestry.errors import InvalidConfiguration
from digestry.registry.access import issuers, oidc
from digestry.registry.access.oidc import IssuerVerifier, Untrusted
from digestry.registry.toml import Where
from tests.registry.access.support import As, basic, bearer, guarded, of, token
from tests.registry.support import query
from tests.support import RegistryServer

ISSUER = "https://ci.example.com"
AUDIENCE = "registry.example.com"
IDENTITY = [{"pattern": "repo:golf/*:ref:refs/heads/main", "name": "golf-main"}]
EC = ECKey.generate_key("P-256", {"kid": "ec"})
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
PUBLIC = OctKey.import_key(json.dumps(EC.as_dict(private=False)), {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})


def keys(*some: Any) -> dict[str, Any]:
    return dict(KeySet(list(some)).as_dict(private=False))


def issued(key: Any = EC, algorithm: str = "ES256", *, kid: str | None = None, **changes: Any) -> str:
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "repo:golf/track:ref:refs/heads/main",
        "exp": int(time.time()) + 600,
        "iat": int(time.time()),
        **changes,
    }
    claims = {name: value for name, value in claims.items() if value is not None}
    header = {"alg": algorithm, "kid": kid or key.kid}
    return jwt.encode(header, claims, key, algorithms=[algorithm])


def trusted(directory: Path, document: Any, **changes: Any) -> IssuerVerifier:
    (directory / "jwks.json").write_text(json.dumps(document))
    table = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": "jwks.json", "identity": IDENTITY, **changes}
    return IssuerVerifier(issuers.parse(table, Where(directory / "registry.toml", "oidc 1")))


def verify(issuer: IssuerVerifier, secret: str) -> str:
    identity, ends = asyncio.run(issuer.verify(secret))
    assert ends > time.time()
    return identity.name


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_whom_a_token_stands_for(tmp_path: Path) -> None:
    issuer = trusted(tmp_path, keys(EC, RSA, ED), algorithms=["RS256", "ES256", "EdDSA"])
    issuer.check()
    for key, algorithm in ((EC, "ES256"), (RSA, "RS256"), (ED, "EdDSA")):
        assert verify(issuer, issued(key, algorithm)) == "golf-main"
    assert verify(issuer, issued(aud=["other", AUDIENCE])) == "golf-main"
    assert issubclass(SecurityWarning, Warning)


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        (issued(aud="elsewhere"), "not for"),
        (issued(aud=None), "not for"),
        (issued(exp=int(time.time()) - 60), "expired"),
        (issued(exp=None), "expired"),
        (issued(exp="tomorrow"), "expired"),
        (issued(nbf=int(time.time()) + 86_400, exp=int(time.time()) + 90_000), "not valid yet"),
        (issued(sub="repo:evil/track:ref:refs/heads/main"), "does not know"),
        (issued(sub="repo:golf/track:ref:refs/heads/main2"), "does not know"),
        (issued(sub=None), "does not know"),
        (issued(sub=["repo:golf/track:ref:refs/heads/main2", 1, None]), "does not know"),
        (issued(sub={"repo:golf/track:ref:refs/heads/main": 1}), "does not know"),
        (issued(ECKey.generate_key("P-256", {"kid": "ec"})), "not signed"),
        (issued(ED, "Ed25519"), "are not taken"),
        (issued(RSA, "PS256"), "are not taken"),
        (
            issued(OctKey.import_key(json.dumps(EC.as_dict(private=False)), {"kid": "ec"}), "HS256"),
            "are not taken",
        ),
        (issued(RSA, "RS256", kid="ec"), "not signed"),
    ],
)
def test_what_is_not_believed(tmp_path: Path, secret: str, reason: str) -> None:
    issuer = trusted(tmp_path, keys(EC, RSA))
    with pytest.raises(Untrusted, match=reason):
        verify(issuer, secret)


def test_keys_that_are_none(tmp_path: Path) -> None:
    wrong: list[Any] = [{}, {"keys": []}, {"keys": [OctKey.generate_key(256).as_dict()]}, [1], {"keys": [{}]}]
    for document in wrong:
        with pytest.raises(InvalidConfiguration, match="has no keys"):
            trusted(tmp_path, document).check()
    (tmp_path / "jwks.json").unlink()
    table = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": "jwks.json", "identity": IDENTITY}
    with pytest.raises(InvalidConfiguration):
        IssuerVerifier(issuers.parse(table, Where(tmp_path / "registry.toml", "oidc 1"))).check()


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"jwks": "http://ci.example.com/jwks"},
        {"jwks": "https://[ci"},
        {"jwks": "https://ci:port/"},
        {"identity": []},
        {"identity": [{"pattern": "*", "name": "robot$ci"}]},
        {"identity": [{"pattern": "*", "name": "anonymous"}]},
        {"identity": [{"name": "x"}]},
        {"unknown": 1},
    ],
)
def test_configuration_that_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfiguration):
        trusted(tmp_path, keys(EC), **changes)


class Jwks(http.server.BaseHTTPRequestHandler):
    document: Any = None
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        body = json.dumps(type(self).document).encode()
        self.send_response(200 if type(self).document is not None else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def jwks() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Jwks)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Jwks.document, Jwks.asked = None, 0
    yield f"http://127.0.0.1:{server.server_port}/jwks"
    server.shutdown()
    thread.join()
    server.server_close()


def test_keys_of_a_url_are_kept(tmp_path: Path, jwks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = trusted(tmp_path, {}, jwks=jwks)
    issuer.check()
    with pytest.raises(Untrusted, match="cannot be had now"):
        verify(issuer, issued())
    with pytest.raises(Untrusted, match="cannot be had now"):
        verify(issuer, issued())
    assert Jwks.asked == 1  # not again so soon
    monkeypatch.setattr(oidc, "_RETRY_SECONDS", -1.0)
    Jwks.document = keys(EC)
    for _ in range(3):
        assert verify(issuer, issued()) == "golf-main"
    assert Jwks.asked == 2
    Jwks.document = keys(RSA)
    assert verify(issuer, issued(RSA, "RS256")) == "golf-main"  # a key that nobody has heard of may be new
    Jwks.document = None
    with pytest.raises(Untrusted, match="not signed"):
        verify(issuer, issued())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    file = tmp_path_factory.mktemp("oidc") / "jwks.json"
    file.write_text(json.dumps(keys(EC)))
    configuration = f"""
    [[oidc]]
    issuer = "{ISSUER}"
    audience = "{AUDIENCE}"
    jwks = "{file}"
    [[oidc.identity]]
    pattern = "repo:golf/*:ref:refs/heads/main"
    name = "golf-main"
    [[rule]]
    who = "golf-main"
    repository = "golf/**"
    actions = ["pull", "push"]
    """
    with guarded(configuration) as server:
        yield server


def test_at_the_registry(server: RegistryServer) -> None:
    secret = issued()
    for number, headers in enumerate((bearer(secret), basic("oidc", secret))):
        asking = As(server, headers)
        assert asking.push_image("golf/track", str(number)).status == 201
        assert asking.push_image("other/x", "1").status == 403
    given = token(server, "repository:golf/track:pull", headers=basic("oidc", secret), offline_token="true")
    assert "refresh_token" not in given
    path = "/v2/golf/track/manifests/1"
    assert server.request("GET", path, headers=bearer(given["token"])).status == 200
    assert query(server, "SELECT DISTINCT actor FROM journal") == [("golf-main",)]
    assert server.request("GET", path, headers=bearer(issued(aud="x"))).status == 401
    assert server.request("GET", path, headers=bearer(issued(iss="https://evil.example.com"))).status == 401
    assert server.request("GET", path, headers=basic("oidc", issued(sub="x"))).status == 401
    assert of(server, "alice").request("GET", path).status == 404
