"""The frame of the pages: headers, static files, conditional requests, errors, and turning them off."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import RegistryServer, running_registry

PAGES = ["/", "/no-such-page", "/r/no/such/repository"]


@pytest.mark.parametrize("path", PAGES)
def test_every_page_allows_nothing_inline_and_no_other_host(registry: RegistryServer, path: str) -> None:
    answer = registry.request("GET", path)
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    body = answer.body.decode()
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=|javascript:", body)
    assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", body)


def test_static_files_have_their_hash_in_the_address_and_are_cached_for_ever(
    registry: RegistryServer,
) -> None:
    body = registry.request("GET", "/").body.decode()
    addresses = set(re.findall(r'"(/static/[^"]+)"', body))
    assert {address.rpartition(".")[2] for address in addresses} == {"css", "js", "svg"}
    for address in addresses:
        answer = registry.request("GET", address)
        assert answer.status == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert registry.request("GET", "/static/style.css").status == 404
    assert registry.request("GET", "/static/../app.py").status == 404


def test_a_page_that_did_not_change_is_not_sent_again(registry: RegistryServer) -> None:
    first = registry.request("GET", "/?filter=nothing-has-this-name")
    assert "no-cache" in first.headers["cache-control"]
    again = registry.request(
        "GET", "/?filter=nothing-has-this-name", headers={"If-None-Match": first.headers["etag"]}
    )
    assert (again.status, again.body) == (304, b"")


def test_head_has_the_length_and_no_body(registry: RegistryServer) -> None:
    shown = registry.request("GET", "/no-such-page")
    asked = registry.request("HEAD", "/no-such-page")
    assert (asked.status, asked.body) == (404, b"")
    assert asked.headers["content-length"] == shown.headers["content-length"]


def test_other_methods_are_refused(registry: RegistryServer) -> None:
    assert registry.request("DELETE", "/").status == 405
    assert registry.request("POST", "/").status == 404


def test_the_api_answers_as_before(registry: RegistryServer) -> None:
    answer = registry.request("GET", "/v2/no/such/manifests/1")
    assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")
    assert registry.request("GET", "/v2/").json() == {}


@pytest.mark.long
def test_the_configuration_turns_the_pages_off(tmp_path: Path) -> None:
    file = tmp_path / "registry.toml"
    file.write_text("[web]\nenabled = false\n")
    with running_registry("--config", str(file)) as server:
        answer = server.request("GET", "/")
        assert answer.status == 404
        assert answer.headers["content-type"] == "application/json"


def test_the_theme_is_kept_in_a_cookie_and_the_way_back_stays_here(registry: RegistryServer) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = registry.request("POST", "/theme", b"theme=dark&back=%2F%3Ffilter%3Dx", kind)
    assert (answer.status, answer.headers["location"]) == (303, "/?filter=x")
    cookie = answer.headers["set-cookie"].partition(";")[0]
    assert b'data-theme="dark"' in registry.request("GET", "/", headers={"Cookie": cookie}).body
    for elsewhere in (b"//example.com", b"https://example.com", b"/%5Cexample.com", b"%0d%0aX:1", b""):
        answer = registry.request("POST", "/theme", b"theme=dark&back=" + elsewhere, kind)
        assert answer.headers["location"] == "/"
    assert "set-cookie" not in registry.request("POST", "/theme", b"theme=%22%3E", kind).headers
    assert registry.request("POST", "/theme", b"a" * 70_000, kind).status == 400
