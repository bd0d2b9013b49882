"""Signing in at an outside issuer: the way there and back, and who is not let in."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc.jwk import ECKey

from tests.registry.access.support import RULES, guarded, of
from tests.registry.observability.support import audited
from tests.support import RegistryServer, Response
from tests.web.browser import Browser
from tests.web.issuer import CLIENT, SECRET, USER, FakeIssuer, running_issuer

CONFIGURATION = """
[[oidc]]
issuer = "{url}"
audience = "registry.example.com"
jwks = "{directory}/keys.json"

[[oidc.identity]]
claim = "email"
pattern = "*@example.com"
name = "example-people"

[oidc.sign-in]
client-id = "{client}"
client-secret-file = "{directory}/secret"
title = "Example <b>"

[[rule]]
who = "example-people"
repository = "team/**"
actions = "pull"
"""


@pytest.fixture(scope="module")
def issuer() -> Iterator[FakeIssuer]:
    with running_issuer() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def server(issuer: FakeIssuer) -> Iterator[RegistryServer]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "keys.json").write_text(json.dumps(issuer.keys()))
        (directory / "secret").write_text(f"{SECRET}\n")
        text = CONFIGURATION.format(url=issuer.url, directory=directory, client=CLIENT)
        with guarded(RULES + text) as server:
            assert of(server, "carol").push_image("team/app", "1").status == 201
            yield server


@pytest.fixture(autouse=True)
def usual(issuer: FakeIssuer) -> Iterator[None]:
    yield
    issuer.claims, issuer.broken, issuer.metadata = {}, "", {}


def begun(browser: Browser, path: str = "/") -> str:
    """The issuer's address that the browser is led to."""
    page = browser.text(f"/sign-in?next={path}")
    way = re.search(r'href="(/sign-in/at\?[^"]+)"', page)
    assert way
    assert "Sign in with Example &lt;b&gt;" in page
    answer = browser.request("GET", way[1].replace("&amp;", "&"))
    assert answer.status == 303
    return answer.headers["location"]


def come_back(browser: Browser, path: str) -> Response:
    return browser.request("GET", path, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")


@pytest.mark.long
def test_who_signs_in_at_the_issuer_has_a_session(server: RegistryServer, issuer: FakeIssuer) -> None:
    browser = Browser(server)
    address = begun(browser, "/r/team/app")
    assert address.startswith(f"{issuer.url}/authorize?")
    answer = come_back(browser, issuer.authorize(address))
    assert answer.status == 200
    assert b'content="0; url=/r/team/app"' in answer.body  # no redirect: its request would lack the cookie
    assert "example-people" in browser.text("/r/team/app")
    assert "digestry-sign-in" not in browser.cookies
    assert issuer.asked[-1]["grant_type"] == "authorization_code"
    line = [line for line in audited(server) if line["action"] == "sign-in"][-1]
    assert (line["user"], line["issuer"], line["status"]) == ("example-people", issuer.url, 200)


def test_the_cookie_of_the_way_comes_back_from_elsewhere_and_has_no_secret_of_ours(
    server: RegistryServer,
) -> None:
    browser = Browser(server)
    page = browser.request("GET", "/sign-in/at?issuer=0")
    line = page.headers["set-cookie"]
    assert "samesite=lax" in line.lower()
    assert "httponly" in line.lower()
    assert SECRET not in line
    query = parse_qs(urlsplit(page.headers["location"]).query)
    assert "code_verifier" not in query
    assert len(query["state"][0]) >= 32
    assert len(query["nonce"][0]) >= 32


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"nonce": "another"}, "of another sign-in"),
        ({"nonce": None}, "of another sign-in"),
        ({"nonce": ["x"]}, "of another sign-in"),
        ({"aud": "registry.example.com"}, "is not for pages"),
        ({"aud": [CLIENT, "other"], "azp": "other"}, "another program"),
        ({"iss": "https://elsewhere.example.com"}, "is not for pages"),
        ({"exp": 1}, "has expired"),
        ({"email": "eve@example.net"}, "does not know"),
        ({"email": None}, "does not know"),
    ],
)
def test_a_token_that_is_not_believed_begins_no_session(
    server: RegistryServer, issuer: FakeIssuer, claims: dict[str, object], reason: str
) -> None:
    issuer.claims = claims
    browser = Browser(server)
    answer = come_back(browser, issuer.authorize(begun(browser)))
    assert answer.status == 403
    assert reason in answer.body.decode()
    assert "digestry-session" not in browser.cookies


def test_a_token_of_another_key_is_not_believed(server: RegistryServer, issuer: FakeIssuer) -> None:
    browser = Browser(server)
    way = issuer.authorize(begun(browser))
    own, issuer.key = issuer.key, ECKey.generate_key("P-256", {"kid": "k"})
    try:
        assert come_back(browser, way).status == 403
    finally:
        issuer.key = own


def test_the_way_back_needs_the_state_of_the_same_browser(server: RegistryServer, issuer: FakeIssuer) -> None:
    browser, other = Browser(server), Browser(server)
    way = issuer.authorize(begun(browser))
    begun(other)
    asked = len(issuer.asked)
    assert come_back(other, way).status == 403
    assert come_back(Browser(server), way).status == 403
    assert come_back(browser, way + "x").status == 403
    assert len(issuer.asked) == asked
    assert come_back(browser, way).status == 200
    assert come_back(browser, way).status == 403  # once alone


def test_a_code_needs_the_verifier_of_the_same_sign_in(server: RegistryServer, issuer: FakeIssuer) -> None:
    victim, attacker = Browser(server), Browser(server)
    stolen = re.search(r"code=([^&]+)", issuer.authorize(begun(victim)))
    own = issuer.authorize(begun(attacker))
    assert stolen
    answer = come_back(attacker, re.sub(r"code=[^&]+", f"code={stolen[1]}", own))
    assert answer.status == 502
    assert "digestry-session" not in attacker.cookies


def test_an_issuer_that_refuses_or_answers_nonsense(server: RegistryServer, issuer: FakeIssuer) -> None:
    browser = Browser(server)
    state = re.search(r"state=([^&]+)", begun(browser))
    assert state
    answer = come_back(browser, f"/sign-in/return?error=access_denied&state={state[1]}")
    assert (answer.status, b"did not let you in" in answer.body) == (403, True)
    way = issuer.authorize(begun(browser))
    issuer.broken = '{"id_token": 7}'
    assert come_back(browser, way).status == 502
    issuer.broken = ""
    way = issuer.authorize(begun(browser))
    issuer.broken = '{"id_token": "a.b.c"}'
    assert come_back(browser, way).status == 403


def test_an_answer_of_another_issuer_is_refused(server: RegistryServer, issuer: FakeIssuer) -> None:
    browser = Browser(server)
    way = issuer.authorize(begun(browser)) + "&iss=https%3A%2F%2Fevil.example.com"
    assert come_back(browser, way).status == 403


def test_strange_cookies_and_issuers(server: RegistryServer) -> None:
    for value in ("", "x", "e30", "bnVsbA", "%", "a" * 4000):
        browser = Browser(server)
        browser.cookies["digestry-sign-in"] = value
        assert come_back(browser, "/sign-in/return?state=&code=x").status == 403
    for number in ("1", "-1", "x", "", "99999999999", "%D9%A1"):
        assert Browser(server).request("GET", f"/sign-in/at?issuer={number}").status == 404


@pytest.mark.long
def test_the_session_of_an_issuers_user_holds_longer_than_the_token(
    server: RegistryServer, issuer: FakeIssuer
) -> None:
    issuer.claims = {"exp": int(time.time()) + 1}
    browser = Browser(server)
    assert come_back(browser, issuer.authorize(begun(browser))).status == 200
    time.sleep(1.1)
    assert browser.request("GET", "/r/team/app").status == 200
    assert USER not in browser.text("/r/team/app")
