"""Tokens and keys as anybody may write them: refused for what they are, and never the registry's defect."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey

from digestry.registry.access import fetch as fetching
from digestry.registry.access import key_sets, oidc, untrusted_tokens
from digestry.registry.access.rules import matches_name
from tests.registry.access.support import bearer, guarded
from tests.registry.access.test_oidc import AUDIENCE, EC, ISSUER, RSA, issued, keys, trusted
from tests.support import RegistryServer

HUGE = "1" + "0" * 400
DEEP = "[" * 20_000 + "]" * 20_000


def encoded(text: str | bytes) -> str:
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def made(header: str | bytes, claims: str | bytes, signature: str = "AAAA") -> str:
    return f"{encoded(header)}.{encoded(claims)}.{signature}"


VALUES = [
    "[]",
    "{}",
    '["https://ci.example.com"]',
    "null",
    "true",
    "1",
    "1e999",
    HUGE,
    '"\\ud800"',
    "NaN",
    DEEP,
]
HEADER = '{"alg":"ES256","kid":"ec"}'
CLAIMS = '{"iss":"https://ci.example.com"}'
ODD = [
    *(made(HEADER, f'{{"iss":{value}}}') for value in VALUES),
    *(made(f'{{"alg":{value},"kid":"ec"}}', CLAIMS) for value in VALUES),
    *(made(f'{{"alg":"ES256","kid":{value}}}', CLAIMS) for value in VALUES),
    *(made(f'{{"alg":"Ed25519","kid":{value}}}', "{}") for value in VALUES),
    *(made(f'{{"alg":"ES256","crit":{value}}}', CLAIMS) for value in VALUES),
    *(made(value, CLAIMS) for value in VALUES),
    *(made(HEADER, value) for value in VALUES),
    made('{"alg":"none"}', CLAIMS, ""),
    made('{"alg":"HS256","kid":"ec"}', CLAIMS),
    made('{"alg":"ES256","kid":"ec","b64":false,"crit":["b64"]}', CLAIMS),
    made(HEADER, CLAIMS, "\u00e9"),
    made(HEADER, CLAIMS, "A" * 20_000),
    made('{"alg":"ES256","kid":"' + "k" * 20_000 + '"}', CLAIMS),
    made(HEADER, b"\xff\xfe"),
    made(b"\xff\xfe", CLAIMS),
    "..",
    ".",
    "a.b.c.d.e",
    "." * 1000,
    "dgr_",
    "dgr_\u00e9",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    file = tmp_path_factory.mktemp("oidc") / "jwks.json"
    file.write_text(json.dumps(keys(EC)))
    issuer = f'[[oidc]]\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\njwks = "{file}"\n'
    with guarded(f'{issuer}[[oidc.identity]]\npattern = "*"\nname = "ci"') as server:
        yield server


def test_an_odd_token_is_a_401(server: RegistryServer) -> None:
    for token in ODD:
        if len(token) > 30_000 or not token.isascii():
            continue  # the server itself refuses such a head
        answer = server.request("GET", "/v2/", headers=bearer(token))
        assert answer.status == 401, (answer.status, token[:200])
        pair = base64.b64encode(f"oidc:{token}".encode()).decode()
        if len(token) < 20_000:
            answer = server.request("GET", "/token", headers={"Authorization": f"Basic {pair}"})
            assert answer.status == 401, (answer.status, token[:200])
    assert "Traceback" not in server.log.read_text()


def test_an_odd_token_is_refused_however_long_it_is() -> None:
    for token in ODD:
        for read in (untrusted_tokens.header, untrusted_tokens.issuer):
            with contextlib.suppress(untrusted_tokens.InvalidToken):
                read(token)


def signed(claims: str) -> str:
    """A token of the trusted issuer's with whatever claims."""
    return jws.serialize_compact({"alg": "ES256", "kid": "ec"}, claims, EC, algorithms=["ES256"])


@pytest.mark.parametrize(
    "value", [value for value in VALUES if value != "1e999"] + ['"1"', "-1e300", "1e999"]
)
@pytest.mark.parametrize("claim", ["exp", "nbf", "aud", "iss", "sub"])
def test_claims_of_any_type(tmp_path: Path, claim: str, value: str) -> None:
    now = int(time.time())
    claims = {
        "iss": json.dumps(ISSUER),
        "aud": json.dumps(AUDIENCE),
        "sub": '"x"',
        "exp": str(now + 60),
        "nbf": str(now),
    }
    claims[claim] = value
    text = ",".join(f'"{name}":{each}' for name, each in claims.items())
    issuer = trusted(tmp_path, keys(EC), identity=[{"pattern": "x", "name": "ci"}])
    issuer.check()
    if claim == "nbf" and value in {"1", "-1e300"}:
        return  # long ago: it holds
    with pytest.raises(oidc.Untrusted):
        asyncio.run(issuer.verify(signed(f"{{{text}}}")))
    issuer.close()


def test_an_identity_by_one_member_of_a_list(tmp_path: Path) -> None:
    identity = [
        {"claim": "groups", "pattern": "platform-*", "name": "platform"},
        {"claim": "groups", "pattern": "staff", "name": "staff"},
    ]
    issuer = trusted(tmp_path, keys(EC), identity=identity)
    cases: list[tuple[Any, str]] = [
        (["staff", "platform-eu"], "platform"),  # the first identity, not the first member
        ([None, 3, {"x": 1}, ["platform-eu"], "staff"], "staff"),
        ("platform-eu", "platform"),
    ]
    for groups, name in cases:
        found, _ = asyncio.run(issuer.verify(issued(groups=groups)))
        assert found.name == name
    others: list[Any] = [[], ["platform"], {"platform-eu": True}, [["platform-eu"]], True, 5, None]
    for groups in others:
        with pytest.raises(oidc.Untrusted, match="does not know"):
            asyncio.run(issuer.verify(issued(groups=groups)))
    issuer.close()


def test_patterns_take_no_time_whatever_a_claim_says() -> None:
    """Counted, not timed: four times as long a claim is four times the work, not 256 times."""
    pattern = "repo:*/*:ref:refs/heads/*-release"

    def work(length: int) -> int:
        name = Counting("repo:" + "/:ref:refs/heads/" * length + "x")
        assert not matches_name(pattern, name)
        return name.asked

    assert work(2000) == work(500) <= 10
    for text, found in (
        ("repo:a/b:ref:refs/heads/x-release", True),
        ("repo:a/b:ref:refs/heads/x-released", False),
    ):
        assert matches_name(pattern, text) is found
    assert matches_name("a*a", "aa")
    assert not matches_name("a*a", "a")
    assert matches_name("**", "")
    assert matches_name("x*", "x\ny")
    assert not matches_name("*ab*ba*", "aba")


class Counting(str):
    """A text that counts how often it is searched."""

    __slots__ = ("asked",)

    def __init__(self, _: str) -> None:
        self.asked = 0

    def find(self, *arguments: Any) -> int:
        self.asked += 1
        return super().find(*arguments)


# -- key sets ------------------------------------------------------------------------------------------


def public(key: Any, **changes: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), **changes}


BAD: list[Any] = [
    public(EC, crv="P-999"),
    {"kty": "EC", "crv": "secp256k1", "x": "AAAA", "y": "AAAA", "kid": "k1"},
    {"kty": "EC", "kid": "no-members"},
    public(EC, x="!!!"),
    public(EC, x=public(EC)["y"]),
    public(ECKey.generate_key("P-384")),
    {"kty": "OKP", "crv": "X25519", "x": "AAAA"},
    {"kty": "oct", "k": "AAAA"},
    {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"},
    {"kty": ["EC"]},
    {"kty": 1},
    {},
    {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
    {"kty": "RSA", "n": "A" * 40_000, "e": "AQAB"},
    {"kty": "RSA", "n": public(RSA)["n"], "e": "A" * 400},
    {"kty": "RSA", "n": public(RSA)["n"], "e": "AA"},
    {"kty": "RSA", "n": 5, "e": "AQAB"},
    public(RSA, use="enc"),
    public(RSA, use=["sig"]),
    public(RSA, alg="RSA-OAEP"),
    public(RSA, key_ops=["encrypt"]),
    public(EC, kid=["ec"]),
    [],
    "key",
    None,
    1e300,
]


def test_a_key_that_nobody_knows_beside_good_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    document = {"keys": [*BAD, public(RSA), public(EC), *BAD]}
    issuer = trusted(tmp_path, document)
    with caplog.at_level(logging.WARNING):
        issuer.check()
    assert "left out" in caplog.text
    assert "P-999" in caplog.text
    for secret in (issued(EC, "ES256"), issued(RSA, "RS256")):
        assert asyncio.run(issuer.verify(secret))[0].name == "golf-main"
    issuer.close()


@pytest.mark.parametrize("bad", BAD, ids=[str(number) for number in range(len(BAD))])
def test_what_is_no_key_is_left_out(bad: Any) -> None:
    found = key_sets.parse(json.dumps({"keys": [bad, public(EC)]}).encode())
    assert [key.kid for key in found.keys] == ["ec"]
    assert len(found.left_out) == 1
    with pytest.raises(ValueError, match="no keys that can be used"):
        key_sets.parse(json.dumps({"keys": [bad]}).encode())


def test_a_private_half_that_was_published_is_not_read() -> None:
    leaked = OKPKey.generate_key("Ed25519", {"kid": "leaked"})
    found = key_sets.parse(json.dumps({"keys": [leaked.as_dict(private=True)]}).encode())
    assert found.keys[0].key.is_private is False


def test_a_token_that_does_not_name_its_key(tmp_path: Path) -> None:
    many = [ECKey.generate_key("P-256") for _ in range(3)]
    token = jws.serialize_compact(
        {"alg": "ES256"},
        json.dumps({"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": int(time.time()) + 60}),
        many[2],
        algorithms=["ES256"],
    )
    identity = [{"pattern": "x", "name": "ci"}]
    issuer = trusted(tmp_path, keys(*many), identity=identity)
    assert asyncio.run(issuer.verify(token))[0].name == "ci"
    issuer.close()
    issuer = trusted(
        tmp_path, keys(*many, *(ECKey.generate_key("P-256") for _ in range(20))), identity=identity
    )
    with pytest.raises(oidc.Untrusted, match="does not say which"):
        asyncio.run(issuer.verify(token))
    issuer.close()


# -- issuers that do not answer as they should -----------------------------------------------------------


@contextlib.contextmanager
def hostile(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that treats each connection so; its URL."""
    ending = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(20) as pool:
        listener.settimeout(0.05)

        def one(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.settimeout(20)
                connection.recv(4096)
                talk(connection)

        def accept() -> None:
            while not ending.is_set():
                with contextlib.suppress(TimeoutError):
                    pool.submit(one, listener.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/jwks"
        finally:
            ending.set()
            thread.join()


def drips(start: bytes, drop: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.sendall(start)
        for _ in range(400):
            connection.sendall(drop)
            if select.select([connection], [], [], 0.05)[0]:
                return  # it has gone: it sends nothing after its request

    return talk


def sends(content: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(content)


OK = b"HTTP/1.1 200 OK\r\n"
SLOW = {
    "status line": drips(b"", b"H"),
    "headers": drips(OK, b"X-A: b\r\n"),
    "one header": drips(OK + b"X-A: ", b"b"),
    "continue": drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": drips(OK + b"Content-Length: 100000\r\n\r\n", b" "),
    "chunks": drips(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "trailers": drips(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: b\r\n"),
    "nothing": drips(b"", b""),
}


@pytest.mark.parametrize("talk", SLOW.values(), ids=SLOW)
def test_an_answer_has_a_time_for_all_of_it(talk: Callable[[socket.socket], None]) -> None:
    with hostile(talk) as url:
        began = time.monotonic()
        with pytest.raises((OSError, ValueError)):
            fetching.fetch(url, seconds=0.4, most=1000)
        assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    "content",
    [
        OK + b"Content-Length: 2000000000\r\n\r\n" + b"x" * 200_000,
        OK + b"\r\n" + b"x" * 200_000,
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"Content-Length: 10\r\n\r\nshort",
        OK + b"X: y\r\n" * 1000,
        b"",
    ],
)
def test_an_answer_that_is_none(content: bytes) -> None:
    with hostile(sends(content)) as url, pytest.raises((OSError, ValueError)):
        fetching.fetch(url, seconds=5, most=100_000)


@pytest.mark.long
def test_one_issuer_does_not_stop_the_others(tmp_path: Path) -> None:
    """Two issuers drip their keys, and 60 requests wait for them: the third issuer's tokens, passwords and
    what needs no login are answered meanwhile, and the 60 are when the time is up."""
    (tmp_path / "jwks.json").write_text(json.dumps(keys(EC)))
    with hostile(SLOW["body"]) as first, hostile(SLOW["headers"]) as second:
        tables = "".join(
            f'[[oidc]]\nissuer = "{name}"\naudience = "{AUDIENCE}"\njwks = "{jwks}"\n'
            f'[[oidc.identity]]\npattern = "*"\nname = "ci"\n'
            for name, jwks in (
                ("https://one.test", first),
                ("https://two.test", second),
                (ISSUER, tmp_path / "jwks.json"),
            )
        )
        with guarded(f'{tables}\n[[rule]]\nwho = "authenticated"\nactions = "admin"') as server:
            waiting = [
                bearer(issued(iss=f"https://{name}.test", jti=str(n)))
                for n in range(30)
                for name in ("one", "two")
            ]
            with ThreadPoolExecutor(60) as pool:
                asked = [pool.submit(server.request, "GET", "/v2/", headers=headers) for headers in waiting]
                time.sleep(0.3)
                began = time.monotonic()
                for number in range(10):
                    assert (
                        server.request("GET", "/v2/", headers=bearer(issued(jti=str(number)))).status == 200
                    )
                assert time.monotonic() - began < oidc.FETCH_SECONDS / 2
                assert {each.result().status for each in asked} == {401}
            assert "Traceback" not in server.log.read_text()


def test_cached_keys_are_used_while_new_ones_are_awaited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "_RETRY_SECONDS", -1.0)
    document = json.dumps(keys(EC)).encode()
    answers = [sends(OK + b"Content-Length: %d\r\n\r\n" % len(document) + document)]

    def talk(connection: socket.socket) -> None:
        (answers.pop() if answers else SLOW["body"])(connection)

    with hostile(talk) as url:
        issuer = trusted(tmp_path, {}, jwks=url, **{"jwks-seconds": 10})

        async def scene() -> None:
            assert (await issuer.verify(issued()))[0].name == "golf-main"
            issuer._read_at -= 3600
            began = time.monotonic()
            for _ in range(20):
                assert (await issuer.verify(issued()))[0].name == "golf-main"
            assert time.monotonic() - began < oidc.FETCH_SECONDS / 2
            assert issuer._reading is not None

        asyncio.run(scene())
        issuer.close()
