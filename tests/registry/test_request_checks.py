"""A browser is a client too: pages of others, names that lead here by a trick, and those that may."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.errors import InvalidConfiguration
from digestry.registry import cors
from digestry.registry.hosts import Host, parse_host
from digestry.registry.toml import Where
from tests.registry.access.support import basic, guarded, of
from tests.registry.support import events, raw_exchange, statuses
from tests.support import RegistryServer, Response, running_registry

INDEX = "application/vnd.oci.image.index.v1+json"
UI = "https://ui.example"
WRITES = [
    ("POST", "/v2/x/app/_digestry/restore/1?to=sha256:" + "0" * 64),
    ("POST", "/v2/x/app/blobs/uploads/"),
    ("PUT", "/v2/x/app/manifests/2"),
    ("DELETE", "/v2/x/app/manifests/1"),
    ("POST", "/v2/_digestry/sightings"),
]
READS = [
    ("GET", "/v2/_catalog"),
    ("GET", "/v2/x/app/manifests/1"),
    ("HEAD", "/v2/x/app/manifests/1"),
    ("GET", "/v2/x/app/tags/list"),
    ("GET", "/metrics"),
    ("POST", "/v2/_digestry/resolve"),
]
FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
    {"Origin": "file://"},
    {"Origin": "garbage"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "whatever"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"},
]


def put_index(server: RegistryServer, tag: str, **headers: str) -> Response:
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": {"n": tag}})
    return server.request("PUT", f"/v2/x/app/manifests/{tag}", body, {"Content-Type": INDEX, **headers})


def configured(tmp_path: Path, text: str) -> tuple[str, str]:
    file = tmp_path / "registry.toml"
    file.write_text(text)
    return "--config", str(file)


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    """On loopback, without a login, with one tag."""
    with running_registry() as server:
        assert put_index(server, "1").status == 201
        yield server


@pytest.mark.parametrize("headers", FOREIGN, ids=range(len(FOREIGN)))
def test_a_page_of_another_origin_does_nothing_here(server: RegistryServer, headers: dict[str, str]) -> None:
    before = events(server, "x/app")
    for method, path in WRITES + READS:
        answer = server.request(method, path, None, headers)
        assert answer.status == 403, (method, path, answer.body)
        if method != "HEAD":
            assert (answer.code, "[cors]" in answer.json()["errors"][0]["message"]) == ("DENIED", True)
        assert "access-control-allow-origin" not in answer.headers
    assert events(server, "x/app") == before


def test_what_the_registry_itself_shows_and_what_somebody_typed_is_answered(server: RegistryServer) -> None:
    for headers in (
        {"Origin": f"http://{server.host}", "Sec-Fetch-Site": "same-origin"},
        {"Origin": f"http://localhost:{server.port}", "Host": f"LOCALHOST:{server.port}"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ):
        assert server.request("GET", "/v2/_catalog", headers=headers).status == 200, headers
    visit = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert server.request("POST", "/v2/x/app/blobs/uploads/", headers=visit).status == 403


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:5000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.localhost.example",
        "registry.local",
        "host.docker.internal.evil.example",
        "evil.internal",
    ],
)
def test_a_name_that_somebody_lets_lead_here_is_refused(server: RegistryServer, host: str) -> None:
    for method, path in WRITES + READS:
        headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        for sent in ({"Host": host}, headers):
            answer = server.request(method, path, None, sent)
            assert answer.status == 403, (method, path, sent, answer.body)
    assert "hosts" in server.request("GET", "/v2/", headers={"Host": host}).body.decode()


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost.:5000",
        "registry.localhost",
        "127.0.0.1:1",
        "[::1]:5000",
        "10.0.2.2:5000",
        "kind-registry:5000",
        "host.docker.internal:5000",
        "host.containers.internal",
    ],
)
def test_names_that_nobody_can_own_are_answered(server: RegistryServer, host: str) -> None:
    assert server.request("GET", "/v2/", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "lines",
    [
        b"Host: localhost\r\nHost: localhost\r\n",
        b"Host: localhost\r\nHost: evil.example\r\n",
        b"Host: evil.example\r\nhost: localhost\r\n",
        b"",
        b"Host:\r\n",
        b"Host: a b\r\n",
        b"Host: localhost/x\r\n",
        b"Host: user@localhost\r\n",
        b"Host: localhost:port\r\n",
        b"Host: localhost:99999\r\n",
        b"Host: localhost:0\r\n",
        b"Host: [::1\r\n",
        b"Host: [localhost]\r\n",
        b"Host: ::1\r\n",
        b"Host: localhost, evil.example\r\n",
        b"Host: loc\xe4lhost\r\n",
        b'Host: "localhost"\r\n',
        b"Host: " + b"a" * 5000 + b"\r\n",
    ],
)
def test_a_host_that_cannot_be_is_refused(server: RegistryServer, lines: bytes) -> None:
    for path in (b"/v2/", b"/livez", b"/v2/x/app/tags/list"):
        request = b"GET " + path + b" HTTP/1.1\r\nConnection: close\r\n" + lines + b"\r\n"
        assert statuses(raw_exchange(server, request)) == [400]


def test_before_http_1_1_a_host_need_not_be(server: RegistryServer) -> None:
    for request in (b"GET /livez HTTP/1.0\r\n\r\n", b"GET /v2/ HTTP/1.0\r\nHost: localhost\r\n\r\n"):
        assert b" 200 OK" in raw_exchange(server, request).partition(b"\r\n")[0]


def test_every_answer_of_the_api_is_no_page(server: RegistryServer) -> None:
    digest = server.push_blob("x/app", b"<script>alert(1)</script>")
    for path in (f"/v2/x/app/blobs/{digest}", "/v2/x/app/manifests/1", "/v2/", "/v2/none/tags/list"):
        headers = server.request("GET", path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in headers["content-security-policy"]


def test_a_registry_has_names_of_its_own(tmp_path: Path) -> None:
    names = configured(tmp_path, 'hosts = ["registry.local", "*.lan.example"]')
    with running_registry(*names) as server:
        for host in ("registry.local:5000", "a.lan.example", "A.B.lan.example.", "localhost", "127.0.0.1"):
            assert server.request("GET", "/v2/", headers={"Host": host}).status == 200, host
        for host in ("lan.example", "evil.example", "xlan.example", "registry.local.example"):
            assert server.request("GET", "/v2/", headers={"Host": host}).status == 403, host
        own = {"Host": "registry.local:5000", "Origin": "http://registry.local:5000"}
        assert put_index(server, "1", **own).status == 201


def test_open_to_a_network_a_page_writes_only_from_a_name_of_the_registry(tmp_path: Path) -> None:
    options = configured(tmp_path, "allow-anonymous = true")
    with running_registry(*options, "--listen", "0.0.0.0:0") as server:
        # The name of a network: whoever is in it may use it. Whether a page may, nobody knows.
        assert put_index(server, "1", Host="registry.lan.example").status == 201
        rebound = {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}
        refused = put_index(server, "2", **rebound)
        assert refused.status == 403
        assert b"hosts in registry.toml" in refused.body  # for it may be the registry's own name
        assert put_index(server, "2", Host="10.0.0.5", Origin="http://10.0.0.5").status == 201
        refused = put_index(server, "3", Host="10.0.0.5", Origin="http://evil.example")
        assert refused.status == 403
        assert b"[cors]" in refused.body


def test_rules_that_let_anybody_write_are_no_login() -> None:
    with guarded(
        '[[rule]]\nwho = "anonymous"\nactions = ["pull", "push"]\n', auth='realm = "https://r.example/token"'
    ) as server:
        assert put_index(server, "1").status == 201
        assert put_index(server, "2", Host="r.example").status == 201
        for headers in (
            {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
            {"Host": "evil.example"},
            {"Origin": "https://evil.example"},
        ):
            assert put_index(server, "3", **headers).status == 403
            assert server.request("GET", "/v2/x/app/tags/list", headers=headers).status == 403


BROWSERS = [
    {"Accept-Language": "en"},  # over plain HTTP a page that reads its own host sends no more
    {"Accept-Language": ""},
    {"Sec-Fetch-Site": "same-origin"},
    {"Origin": "http://evil.example:5000", "Accept-Language": "en"},
    {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
]


@pytest.mark.long
def test_a_page_does_not_read_on_loopback_what_needs_no_login(tmp_path: Path) -> None:
    """A registry with users, part of which anybody may pull, behind a name that somebody lets lead here."""
    with guarded() as server:
        assert of(server, "carol").push_image("public/app", "1").status == 201
        read = [("GET", "/v2/public/app/manifests/1"), ("HEAD", "/v2/public/app/manifests/1")]
        read += [("GET", "/v2/public/app/tags/list"), ("GET", "/token?scope=repository:public/app:pull")]
        read += [("POST", "/v2/_digestry/resolve"), ("GET", "/v2/_catalog")]
        for headers in BROWSERS:
            for method, path in read:
                answer = server.request(method, path, None, {"Host": "evil.example:5000", **headers})
                assert answer.status == 403, (headers, method, path)
        # Every other client reads by any name: a proxy on this machine keeps the one that was asked for.
        for host in ("registry.example.com", "evil.example:5000", "localhost:5000"):
            assert server.request("GET", read[0][1], headers={"Host": host}).status == 200
        assert server.request("GET", read[0][1], headers=BROWSERS[0]).status == 200
    file = tmp_path / "registry.toml"
    (tmp_path / "users").write_text("")
    file.write_text(
        f'hosts = "registry.example.com"\n[auth]\nhtpasswd = "users"\n[cors]\norigins = "{UI}"\n'
        '[[rule]]\nwho = "anonymous"\nactions = "pull"\n',
        encoding="utf-8-sig",  # as editors of Windows write it
    )
    with running_registry("--config", str(file)) as server:
        for more in ({}, {"Origin": UI}):
            headers = {"Host": "registry.example.com", "Accept-Language": "en", **more}
            assert server.request("GET", "/v2/x/tags/list", headers=headers).status == 404


@pytest.mark.long
def test_with_a_login_pages_read_nothing_and_write_nothing() -> None:
    with guarded("") as server:
        alice = basic("alice")
        foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
        # A browser that somebody typed a password into sends it along.
        assert put_index(server, "1", **alice, **foreign).status == 403
        assert put_index(server, "1", **alice, Host="registry.example.com").status == 201
        answer = server.request("GET", "/v2/x/app/tags/list", headers={**alice, **foreign})
        assert (answer.status, "access-control-allow-origin" in answer.headers) == (200, False)


# -- a user interface in a browser --------------------------------------------------------------

ASKS = {
    "Origin": UI,
    "Access-Control-Request-Method": "GET",
    "Access-Control-Request-Headers": "authorization",
}


@pytest.mark.long
def test_a_page_that_may_is_answered() -> None:
    with guarded(f'[cors]\norigins = ["{UI}/", "http://LOCALHOST:80"]\n') as server:
        for path in ("/v2/_catalog", "/v2/a/blobs/x", "/token", "/v2/"):
            answer = server.request("OPTIONS", path, headers=ASKS)
            assert (answer.status, answer.body) == (204, b"")
            assert answer.headers["access-control-allow-origin"] == UI
            assert answer.headers["access-control-allow-methods"] == "GET, HEAD"
            assert "authorization" in answer.headers["access-control-allow-headers"].lower()
            assert answer.headers["access-control-max-age"] == "600"
            assert "Origin" in answer.headers["vary"]
            assert "access-control-allow-credentials" not in answer.headers
        asked = server.request("GET", "/v2/", headers={"Origin": UI})
        assert (asked.status, asked.headers["access-control-allow-origin"]) == (401, UI)
        exposed = asked.headers["access-control-expose-headers"]
        for name in ("Docker-Content-Digest", "Link", "WWW-Authenticate", "ETag", "Range", "Location"):
            assert name in exposed
        read = server.request("GET", "/v2/_catalog", headers={"Origin": UI, **basic("alice")})
        assert (read.status, read.headers["access-control-allow-origin"]) == (200, UI)
        assert put_index(server, "1", Origin=UI, **basic("alice")).status == 403  # not one of its methods
        local = server.request("GET", "/v2/", headers={"Origin": "http://localhost"})
        assert local.headers["access-control-allow-origin"] == "http://localhost"
        for origin in (
            "https://evil.example",
            "https://ui.example.evil.example",
            "null",
            UI.upper(),
            UI + ":444",
        ):
            other = server.request("OPTIONS", "/v2/_catalog", headers={**ASKS, "Origin": origin})
            assert other.status in {401, 403}
            assert "access-control-allow-origin" not in other.headers
            assert other.headers["vary"] == "Origin"
        assert server.request("GET", "/v2/", headers={}).headers["vary"] == "Origin"


@pytest.mark.long
def test_a_page_that_may_write_writes(tmp_path: Path) -> None:
    text = f'[cors]\norigins = "{UI}"\nmethods = ["GET", "HEAD", "put"]\ncredentials = true\nmax-age = 0'
    with running_registry(*configured(tmp_path, text)) as server:
        answer = put_index(server, "1", Origin=UI, **{"Sec-Fetch-Site": "cross-site"})
        assert (answer.status, answer.headers["access-control-allow-credentials"]) == (201, "true")
        assert server.request("DELETE", "/v2/x/app/manifests/1", headers={"Origin": UI}).status == 403


def test_every_page_may_read_what_needs_no_login(tmp_path: Path) -> None:
    with running_registry(*configured(tmp_path, '[cors]\norigins = "*"')) as server:
        answer = server.request("GET", "/v2/_catalog", headers={"Origin": "https://anybody.example"})
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "*")
        assert put_index(server, "1", Origin="https://anybody.example").status == 403
        assert server.request("GET", "/v2/_catalog", headers={"Origin": "null"}).status == 403


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"origins": []},
        {"origins": "null"},
        {"origins": "ui.example"},
        {"origins": "https://ui.example/path"},
        {"origins": "https://*.example"},
        {"origins": "https://user@ui.example"},
        {"origins": "ftp://ui.example"},
        {"origins": "https://ui.example?"},
        {"origins": "https://[::1"},
        {"origins": "*", "credentials": True},
        {"origins": UI, "methods": ["TRACE"]},
    ],
)
def test_cors_that_cannot_be(table: object) -> None:
    with pytest.raises(InvalidConfiguration):
        cors.parse({"cors": table}, Where(Path("registry.toml")))


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Localhost:5000", Host("localhost", 5000)),
        ("[::1]", Host("::1")),
        ("[0:0:0:0:0:0:0:1]:1", Host("::1", 1)),
        ("a_b.example.", Host("a_b.example.")),
        ("[1.2.3.4]", None),
        ("-x", None),
        ("a:", None),
        ("", None),
    ],
)
def test_hosts(text: str, host: Host | None) -> None:
    assert parse_host(text) == host
