"""Signing in and out: sessions, their cookies, their ends, and forms of other pages."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.registry.access.support import PASSWORDS, guarded, htpasswd, of
from tests.registry.observability.support import lines
from tests.support import PATIENCE, RegistryServer, run_digestry, wait_until
from tests.web.browser import FORM, Browser, signed_in


def sessions(server: RegistryServer) -> int:
    with closing(sqlite3.connect(server.root / "catalog.db", timeout=PATIENCE)) as connection:
        return int(connection.execute("SELECT count(*) FROM web_sessions").fetchone()[0])


def change(server: RegistryServer, statement: str) -> None:
    with closing(sqlite3.connect(server.root / "catalog.db", timeout=PATIENCE)) as connection, connection:
        connection.execute(statement)


@pytest.fixture
def own_server() -> Iterator[RegistryServer]:
    with guarded() as server:
        assert of(server, "carol").push_image("team/app", "1").status == 201
        yield server


@pytest.mark.long
def test_who_signs_in_sees_what_they_may_read_and_nothing_else(guarded_server: RegistryServer) -> None:
    alice = signed_in(guarded_server, "alice")
    page = alice.text("/")
    assert "team/app" in page
    assert "public/base" in page  # anonymous may
    assert "bob/tool" not in page
    assert "secret/x" not in page
    assert ">alice<" in page


def test_a_page_of_what_one_may_not_read_is_that_of_what_does_not_exist(
    guarded_server: RegistryServer,
) -> None:
    alice = signed_in(guarded_server, "alice")
    hidden, missing = alice.get("/r/secret/x"), alice.get("/r/secret/y")
    assert hidden.status == missing.status == 404
    assert hidden.body.replace(b"secret/x", b"secret/y") == missing.body


def test_a_visitor_without_a_session_is_asked_to_sign_in_and_led_on(guarded_server: RegistryServer) -> None:
    browser = Browser(guarded_server)
    for path in ("/r/team/app", "/r/team/none"):
        answer = browser.request("GET", path)
        assert (answer.status, answer.headers["location"]) == (
            303,
            f"/sign-in?next={path.replace('/', '%2F')}",
        )
    answer = browser.sign_in("alice", path="/r/team/app")
    assert answer.headers["location"] == "/r/team/app"
    assert "Filter tags" in browser.text("/r/team/app")


def test_the_cookie_is_for_this_host_and_no_script(guarded_server: RegistryServer) -> None:
    browser = Browser(guarded_server)
    answer = browser.sign_in("bob")
    line = re.search(r"digestry-session=.*", answer.headers["set-cookie"])
    assert line
    attributes = {part.strip().lower() for part in line[0].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= attributes
    assert not any(part.startswith("domain") for part in attributes)
    assert PASSWORDS["bob"] not in line[0]
    assert "no-store" in browser.request("GET", "/sign-in").headers["cache-control"]


@pytest.mark.long
def test_behind_a_proxy_with_https_the_cookie_is_secure_and_of_this_host_alone(tmp_path: Path) -> None:
    with guarded('[proxy]\ntrusted = "127.0.0.1"\n') as server:
        browser = Browser(server, X_Forwarded_Proto="https")
        answer = browser.sign_in("bob")
        line = re.search(r"__Host-digestry-session=.*", answer.headers["set-cookie"])
        assert line
        assert "secure" in line[0].lower()
        assert ">bob<" in browser.text("/")


def test_a_wrong_password_and_an_unknown_user_get_the_same_answer(guarded_server: RegistryServer) -> None:
    first = Browser(guarded_server).sign_in("alice", "wrong")
    second = Browser(guarded_server).sign_in("mallory", "wrong")
    assert first.status == second.status == 403
    assert "digestry-session" not in first.headers.get("set-cookie", "")
    assert b"is wrong" in first.body
    assert re.sub(rb'value="[^"]*"', b"", first.body) == re.sub(rb'value="[^"]*"', b"", second.body)


def test_each_sign_in_has_a_secret_of_its_own_and_ends_the_one_before(own_server: RegistryServer) -> None:
    browser = signed_in(own_server, "alice")
    before = dict(browser.cookies)
    assert browser.sign_in("bob").status == 303
    assert browser.cookies["digestry-session"] != before["digestry-session"]
    assert sessions(own_server) == 1
    browser.cookies = before
    assert ">alice<" not in browser.text("/sign-in")


@pytest.mark.long
def test_a_secret_that_the_visitor_brings_is_not_taken_for_a_session(own_server: RegistryServer) -> None:
    browser = Browser(own_server)
    browser.cookies["digestry-session"] = "A" * 43
    assert browser.sign_in("alice").status == 303
    assert browser.cookies["digestry-session"] != "A" * 43


@pytest.mark.long
def test_signing_out_ends_the_session_on_the_server(own_server: RegistryServer) -> None:
    browser = signed_in(own_server, "alice")
    kept = dict(browser.cookies)
    assert browser.send(browser.text("/"), "/sign-out", {}).status == 303
    assert "digestry-session" not in browser.cookies
    assert sessions(own_server) == 0
    browser.cookies = kept
    assert browser.request("GET", "/r/team/app").status == 303


@pytest.mark.long
@pytest.mark.parametrize(
    "ended",
    [
        "UPDATE web_sessions SET expires_at = 1",
        "UPDATE web_sessions SET used_at = 1",
        "UPDATE web_sessions SET credential = 'another'",
        "UPDATE web_sessions SET identity = 'mallory'",
    ],
)
def test_a_session_ends_with_its_time_with_disuse_and_with_the_credential(
    own_server: RegistryServer, ended: str
) -> None:
    browser = signed_in(own_server, "alice")
    assert browser.request("GET", "/r/team/app").status == 200
    change(own_server, ended)
    assert browser.request("GET", "/r/team/app").status == 303
    assert sessions(own_server) == 0


@pytest.mark.long
def test_a_changed_password_ends_the_sessions_that_it_began(own_server: RegistryServer) -> None:
    browser = signed_in(own_server, "alice")
    users = next(own_server.root.parent.rglob("users"))
    users.write_text(htpasswd({**PASSWORDS, "alice": "another one"}))
    wait_until(lambda: browser.request("GET", "/r/team/app").status == 303, what="the end of the session")


@pytest.mark.long
def test_a_robots_token_signs_in_until_it_is_revoked(own_server: RegistryServer) -> None:
    made = run_digestry("token", "create", "ci-web", "--root", str(own_server.root))
    secret = made.stdout.strip().splitlines()[-1]
    browser = Browser(own_server)
    assert browser.sign_in("robot$ci-web", secret).status == 303
    assert "robot$ci-web" in browser.text("/r/team/app")
    assert run_digestry("token", "revoke", "ci-web", "--root", str(own_server.root)).returncode == 0
    wait_until(lambda: browser.request("GET", "/r/team/app").status == 303, what="the end of the session")


@pytest.mark.long
def test_an_agents_token_does_not_sign_in(own_server: RegistryServer) -> None:
    made = run_digestry("token", "create", "a1", "--agent", "cluster", "--root", str(own_server.root))
    answer = Browser(own_server).sign_in("robot$a1", made.stdout.strip().splitlines()[-1])
    assert answer.status == 403
    assert b"reports what runs" in answer.body


@pytest.mark.long
def test_a_form_without_its_token_does_nothing(own_server: RegistryServer) -> None:
    browser = signed_in(own_server, "alice")
    other = signed_in(own_server, "bob").text("/")
    stolen = re.search(r'name="csrf" value="([^"]+)"', other)
    assert stolen
    for body in (b"", b"csrf=", b"csrf=x", f"csrf={stolen[1]}".encode()):
        assert browser.request("POST", "/sign-out", body, **FORM).status == 403
    assert browser.request("GET", "/r/team/app").status == 200
    fresh = Browser(own_server)
    assert fresh.request("POST", "/sign-in", b"name=alice&password=wonder+land&csrf=", **FORM).status == 403
    assert fresh.request("POST", "/sign-in", b"name=alice&password=wonder+land&csrf=x", **FORM).status == 403


@pytest.mark.long
def test_a_page_elsewhere_cannot_send_a_form(own_server: RegistryServer) -> None:
    browser = signed_in(own_server, "alice")
    token = re.search(r'name="csrf" value="([^"]+)"', browser.text("/"))
    assert token
    body = f"csrf={token[1]}".encode()
    for headers in (
        {"Origin": "https://example.com"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ):
        assert browser.request("POST", "/sign-out", body, **FORM, **headers).status == 403
    assert browser.request("GET", "/r/team/app").status == 200


@pytest.mark.long
def test_who_comes_from_a_page_elsewhere_is_led_to_the_same_page_again(own_server: RegistryServer) -> None:
    browser = Browser(own_server)
    came: dict[str, Any] = {
        "Sec_Fetch_Site": "cross-site",
        "Sec_Fetch_Mode": "navigate",
        "Sec_Fetch_Dest": "document",
    }
    first = browser.request("GET", "/r/team/app?filter=%22x", **came)
    assert first.status == 200
    assert b'content="0; url=/r/team/app?filter=%22x"' in first.body
    assert b"Filter tags" not in first.body
    assert browser.request("GET", "/r/team/app", **came).status == 303  # once alone


def test_a_name_and_a_way_on_of_any_form_are_shown_as_text(own_server: RegistryServer) -> None:
    browser = Browser(own_server)
    page = browser.text("/sign-in?next=%22%3E%3Cscript%3E")
    assert "<script>" not in page
    answer = browser.send(page, "/sign-in", {"name": '"><img src=x onerror=x>', "password": "x"})
    assert b"<img src=x" not in answer.body
    for way in ("//example.com", "https://example.com", "/\\example.com", "javascript:x"):
        page = browser.text(f"/sign-in?next={way}")
        assert (
            browser.send(page, "/sign-in", {"name": "bob", "password": "builder"}).headers["location"] == "/"
        )


def test_a_registry_without_users_has_no_sign_in(registry: RegistryServer) -> None:
    browser = Browser(registry)
    assert "Sign in" not in browser.text("/")
    assert browser.request("GET", "/sign-in").status == 404


@pytest.mark.long
def test_the_audit_log_has_sign_ins_and_refused_ones_without_secrets(own_server: RegistryServer) -> None:
    assert Browser(own_server).sign_in("alice").status == 303
    assert Browser(own_server).sign_in("alice", "a wrong password").status == 403
    (done,) = (line for line in lines(own_server.root / "audit.log") if line["action"] == "sign-in")
    assert (done["user"], done["address"], done["status"]) == ("alice", "127.0.0.1", 303)
    (refused,) = lines(own_server.root / "audit-refused.log")
    assert (refused["action"], refused["status"], refused["path"]) == ("sign-in", 403, "/sign-in")
    assert refused["error"]
    logs = [(own_server.root / name).read_text() for name in ("audit.log", "audit-refused.log")]
    assert not any(secret in log for log in logs for secret in ("a wrong password", PASSWORDS["alice"]))
