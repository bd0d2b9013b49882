"""Which addresses an upstream may lead to, and which token servers are asked."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from digestry.errors import RedirectRefused
from digestry.upstream.ssrf_guard import SSRFGuard

PUBLIC = "93.184.216.34"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names lead to; as numbers, all of them lead where they say."""
    known: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def look_up(host: str, port: int, **kwargs: Any) -> list[Any]:
        if host in known:
            return [found for address in known[host] for found in real(address, port, **kwargs)]
        return real(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


def led(guard: SSRFGuard, host: str, port: int = 443) -> list[str]:
    return [address for _, (address, _) in guard.resolve(host, port)]


INSIDE = [
    "127.0.0.1",
    "127.0.0.2",
    "::1",
    "localhost",
    "0.0.0.0",  # noqa: S104
    "::",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.1",
    "10.0.0.1",
    "172.20.0.1",
    "192.168.0.1",
    "100.64.1.1",
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "2852039166",
    "169.254.0.1",
    "fe80::1",
    "fd00::1",
    "fd00:ec2::254",
    "168.63.129.16",
    "224.0.0.1",
]


@pytest.mark.parametrize("host", INSIDE)
def test_an_upstream_of_the_world_leads_only_to_the_world(names: dict[str, list[str]], host: str) -> None:
    names["localhost"] = ["127.0.0.1", "::1"]
    names["storage.test"] = [host] if host != "localhost" else ["127.0.0.1"]
    guard = SSRFGuard("hub.test", "https://hub.test")
    assert led(guard, PUBLIC) == [PUBLIC]
    for name in (host, "storage.test"):
        with pytest.raises(RedirectRefused) as refused:
            guard.resolve(name, 443)
        assert "internal" in refused.value.hint


def test_of_several_addresses_those_inside_are_left_out(names: dict[str, list[str]]) -> None:
    names["both.test"] = ["127.0.0.1", PUBLIC, "10.0.0.1", "::1"]
    assert led(SSRFGuard("hub.test", "https://hub.test"), "both.test") == [PUBLIC]


def test_an_upstream_at_an_address_leads_to_itself(names: dict[str, list[str]]) -> None:
    guard = SSRFGuard("a.test", "http://127.0.0.1:5001")
    assert led(guard, "127.0.0.1", 5001) == led(guard, "127.0.0.1", 9000) == ["127.0.0.1"]
    names["localhost"] = ["127.0.0.1", "::1"]
    assert led(guard, "localhost") == ["127.0.0.1"]
    for host in ("127.0.0.2", "::1", "10.0.0.1", "169.254.169.254"):
        with pytest.raises(RedirectRefused):
            guard.resolve(host, 443)


def test_an_upstream_of_a_private_network_leads_to_others_there(names: dict[str, list[str]]) -> None:
    names["registry.corp.test"] = ["10.1.0.5"]
    names["minio.corp.test"] = ["10.1.0.6"]
    guard = SSRFGuard("registry.corp.test", "https://registry.corp.test")
    with pytest.raises(RedirectRefused):
        guard.resolve("minio.corp.test", 443)  # nobody knows yet where it is itself
    assert led(guard, "registry.corp.test") == ["10.1.0.5"]
    assert led(guard, "minio.corp.test") == ["10.1.0.6"]
    for host in ("127.0.0.1", "169.254.169.254", "fd00:ec2::254", "100.100.100.200"):
        with pytest.raises(RedirectRefused):
            guard.resolve(host, 443)


def test_a_name_that_led_to_the_world_does_not_lead_inside_later(names: dict[str, list[str]]) -> None:
    guard = SSRFGuard("hub.test", "https://hub.test")
    names["hub.test"] = [PUBLIC]
    assert led(guard, "hub.test") == [PUBLIC]
    for inside in ("10.0.0.1", "127.0.0.1", "169.254.169.254"):
        names["hub.test"] = [inside]
        with pytest.raises(RedirectRefused):
            guard.resolve("hub.test", 443)
    names["hub.test"] = ["1.1.1.1"]
    assert led(guard, "hub.test") == ["1.1.1.1"]


@pytest.mark.parametrize("inside", ["127.0.0.1", "169.254.169.254", "0.0.0.0", "::1"])  # noqa: S104
def test_an_upstream_by_name_is_not_this_machine(names: dict[str, list[str]], inside: str) -> None:
    names["hub.test"] = [inside]
    with pytest.raises(RedirectRefused):
        SSRFGuard("hub.test", "https://hub.test").resolve("hub.test", 443)


def test_localhost_is(names: dict[str, list[str]]) -> None:
    names["localhost"] = ["127.0.0.1"]
    assert led(SSRFGuard("a.test", "http://localhost:5001"), "localhost", 5001) == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("entry", "host", "port", "asked"),
    [
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.minio.test", 443, True),
        ("10.0.0.0/8", "192.168.0.1", 443, False),
        ("127.0.0.2", "127.0.0.2", 80, True),
        ("127.0.0.2", "127.0.0.3", 80, False),
        ("[::1]", "::1", 80, True),
        ("11.minio.test", "11.minio.test", 80, True),
        ("11.minio.test:9000", "11.minio.test", 9000, True),
        ("11.minio.test:9000", "11.minio.test", 80, False),
        ("11.minio.test", "10.0.0.7", 80, False),
        ("169.254.0.0/16", "169.254.1.1", 80, True),
        ("169.254.0.0/16", "169.254.169.254", 80, False),
        ("169.254.169.254", "169.254.169.254", 80, True),
        ("metadata.test", "metadata.test", 80, False),
    ],
)
def test_what_is_configured_is_asked(
    names: dict[str, list[str]], entry: str, host: str, port: int, asked: bool
) -> None:
    names["11.minio.test"] = ["10.0.0.7"]
    names["metadata.test"] = ["169.254.169.254"]
    guard = SSRFGuard("hub.test", "https://hub.test", internal=[entry])
    if asked:
        assert led(guard, host, port)
    else:
        with pytest.raises(RedirectRefused):
            guard.resolve(host, port)


def test_through_a_proxy_what_can_be_known_is_looked_at(names: dict[str, list[str]]) -> None:
    guard = SSRFGuard("hub.test", "https://hub.test")
    names["intern.test"] = ["10.0.0.1"]
    for host in (
        "127.0.0.1",
        "2130706433",
        "localhost",
        "a.localhost",
        "::1",
        "169.254.169.254",
        "intern.test",
    ):
        with pytest.raises(RedirectRefused):
            guard.check_proxied(host, 80)
    for host in ("hub.test", "only-the-proxy-knows.test", PUBLIC):
        guard.check_proxied(host, 443)


@pytest.mark.parametrize(
    ("name", "url", "realm"),
    [
        ("docker.io", "https://registry-1.docker.io", "https://auth.docker.io/token"),
        ("docker.io", "https://hub.corp.example", "https://auth.docker.io/token"),  # passes all on
        ("docker.io", "https://mirror.gcr.io", "https://mirror.gcr.io/v2/token"),
        ("ghcr.io", "https://ghcr.io", "https://ghcr.io/token"),
        ("quay.io", "https://quay.io", "https://quay.io/v2/auth"),
        ("gcr.io", "https://gcr.io", "https://gcr.io/v2/token"),
        ("europe-docker.pkg.dev", "https://europe-docker.pkg.dev", "https://europe-docker.pkg.dev/v2/token"),
        ("registry.gitlab.com", "https://registry.gitlab.com", "https://gitlab.com/jwt/auth"),
        ("public.ecr.aws", "https://public.ecr.aws", "https://public.ecr.aws/token/"),
        ("me.azurecr.io", "https://me.azurecr.io", "https://me.azurecr.io/oauth2/token"),
        ("harbor.example.com", "https://harbor.example.com", "https://harbor.example.com/service/token"),
        ("acme.jfrog.io", "https://acme.jfrog.io", "https://acme.jfrog.io/artifactory/api/docker/k/v2/token"),
        ("lscr.io", "https://lscr.io", "https://ghcr.io/token"),
        ("registry.hub.docker.com", "https://registry.hub.docker.com", "https://auth.docker.io/token"),
        (
            "registry.digitalocean.com",
            "https://registry.digitalocean.com",
            "https://api.digitalocean.com/v2/r",
        ),
        ("docker.elastic.co", "https://docker.elastic.co", "https://docker-auth.elastic.co/auth"),
        (
            "registry.corp.example",
            "https://registry.corp.example:5000",
            "https://registry.corp.example:5001/t",
        ),
        ("a.test", "http://127.0.0.1:5000", "http://127.0.0.1:5001/token"),
        ("a.test", "http://127.0.0.1:5000", "http://localhost:5001/token"),
        ("a.test", "http://registry.test", "http://registry.test/token"),
    ],
)
def test_token_servers_that_get_the_password(name: str, url: str, realm: str) -> None:
    assert SSRFGuard(name, url).trusts(realm)


def test_token_servers_for_everybody_get_none() -> None:
    guard = SSRFGuard("docker.vanity.example", "https://docker.vanity.example")
    assert not guard.trusts("https://auth.docker.io/token")
    assert not guard.trusts("https://ghcr.io/token")
    with pytest.raises(RedirectRefused):
        guard.trusts("http://ghcr.io/token")


@pytest.mark.parametrize(
    ("url", "realm"),
    [
        ("https://hub.example", "https://evil.example/token"),
        ("https://hub.example", "http://hub.example/token"),
        ("https://registry.example.co.uk", "https://evil.co.uk/token"),
        ("https://me.azurecr.io", "https://evil.azurecr.io/token"),
        ("https://hub.example", "https://hub.example.evil.example/token"),
        ("https://hub.example", "https://hub.example@evil.example/token"),
        ("https://hub.example", "https://evil.example\\@hub.example/token"),
        ("https://hub.example", "https://hub.example\\.evil.example/token"),
        ("https://hub.example", "//hub.example/token"),
        ("https://hub.example", "/token"),
        ("https://hub.example", "file:///etc/passwd"),
        ("https://hub.example", "https://hub.example:0/token"),
        ("https://hub.example", "https://hub.example:99999/token"),
        ("https://hub.example", "https://[::1/token"),
        ("https://hub.example", "https://hub.example/to ken"),
        ("https://hub.example", "https://hub.example/\r\nX: y"),
        ("https://hub.example", ""),
        ("http://127.0.0.1:5000", "http://127.0.0.2:5000/token"),
        ("http://127.0.0.1:5000", "http://[::ffff:127.0.0.1]:5000/token"),
        ("http://127.0.0.1:5000", "http://2130706433:5000/token"),
        ("http://10.0.0.1", "http://10.0.0.2/token"),
        ("http://registry.corp.example", "http://auth.corp.example/token"),
    ],
)
def test_token_servers_that_are_not_asked(url: str, realm: str) -> None:
    with pytest.raises(RedirectRefused):
        SSRFGuard("hub.example.org", url).trusts(realm)


@pytest.mark.parametrize(
    ("entry", "realm", "asked"),
    [
        ("login.corp.example", "https://login.corp.example/token", True),
        ("login.corp.example", "https://login.corp.example:8443/token", True),
        ("login.corp.example:8443", "https://login.corp.example:8443/token", True),
        ("login.corp.example:8443", "https://login.corp.example/token", False),
        ("login.corp.example", "http://login.corp.example/token", False),
        ("http://login.corp.example", "http://login.corp.example/token", True),
        ("Login.Corp.example.", "https://login.corp.example/token", True),
    ],
)
def test_token_servers_that_are_configured(entry: str, realm: str, asked: bool) -> None:
    guard = SSRFGuard("hub.test", "https://hub.test", realms=[entry])
    if asked:
        assert guard.trusts(realm)
    else:
        with pytest.raises(RedirectRefused):
            guard.trusts(realm)
