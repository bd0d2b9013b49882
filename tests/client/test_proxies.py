"""Which proxy is asked, by the rules that programs written in Go go by."""

from __future__ import annotations

import base64

import pytest

from digestry.client.proxies import credentials_of, proxy_for
from digestry.errors import InvalidConfiguration

PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HTTPS_PROXY": PROXY}, PROXY),
        ({"https_proxy": PROXY}, PROXY),
        ({"HTTPS_PROXY": PROXY, "https_proxy": "http://other:1"}, PROXY),
        ({"HTTPS_PROXY": "proxy.example:3128"}, PROXY),
        ({"ALL_PROXY": PROXY}, PROXY),
        ({"HTTP_PROXY": PROXY}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({}, None),
    ],
)
def test_the_variables(environment: dict[str, str], expected: str | None) -> None:
    assert proxy_for("https", "registry.example", environment) == expected


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("registry.example", "registry.example", True),
        ("registry.example", "a.registry.example:5000", True),
        ("registry.example", "otherregistry.example", False),
        (".registry.example", "registry.example", False),
        (".registry.example", "a.registry.example", True),
        ("*.registry.example", "a.registry.example", True),
        ("*.registry.example", "registry.example", False),
        ("registry.example:5000", "registry.example:5000", True),
        ("registry.example:5000", "registry.example", False),
        ("registry.example:443", "registry.example", True),
        ("REGISTRY.example", "registry.example", True),
        ("a.example, registry.example", "registry.example", True),
        ("*", "registry.example", True),
        ("10.0.0.0/8", "10.1.2.3:5000", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "ten.example", False),
        ("10.1.2.3", "10.1.2.3:5000", True),
        ("10.1.2.3:5000", "10.1.2.3:5001", False),
        ("fd00::/8", "[fd00::1]:5000", True),
        ("fd00::1", "[fd00::1]:5000", True),
        ("[fd00::1]:5000", "[fd00::1]:5000", True),
        ("[fd00::1]:5000", "[fd00::1]", False),
        ("10.0.0.0/99,,:", "10.1.2.3", False),
        ("", "127.0.0.1:5000", True),
        ("", "localhost:5000", True),
    ],
)
@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_who_is_asked_directly(name: str, no_proxy: str, host: str, direct: bool) -> None:
    found = proxy_for("https", host, {"HTTPS_PROXY": PROXY, name: no_proxy})
    assert (found is None) == direct


@pytest.mark.parametrize("proxy", ["socks5://user:secret@proxy.example:1080", "socks5h://p", "ftp://p"])
def test_a_kind_that_is_not_spoken(proxy: str) -> None:
    with pytest.raises(InvalidConfiguration, match="ALL_PROXY") as raised:
        proxy_for("https", "registry.example", {"ALL_PROXY": proxy})
    assert "secret" not in raised.value.message
    assert "SOCKS" in raised.value.hint


@pytest.mark.parametrize("proxy", ["http://user:secret@proxy.example:port", "http://", "http://[::1"])
def test_no_address(proxy: str) -> None:
    with pytest.raises(InvalidConfiguration, match="HTTPS_PROXY") as raised:
        proxy_for("https", "registry.example", {"HTTPS_PROXY": proxy})
    assert "secret" not in raised.value.message


@pytest.mark.parametrize(
    ("proxy", "pair"),
    [
        ("http://user:p%40ss%3A1@p:1", b"user:p@ss:1"),
        ("http://us%C3%A9r:a+b@p:1", "us\xe9r:a+b".encode()),
        ("http://user@p:1", b"user:"),
    ],
)
def test_a_password_is_sent_as_it_is(proxy: str, pair: bytes) -> None:
    address, header = credentials_of(proxy)
    assert address == "http://p:1"
    assert header == "Basic " + base64.b64encode(pair).decode()


def test_a_proxy_without_a_user() -> None:
    assert credentials_of(PROXY) == (PROXY, None)
