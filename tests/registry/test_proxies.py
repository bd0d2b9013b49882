"""``[proxy]``: what a proxy says counts from those that are trusted, and only as far as they wrote it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.errors import InvalidConfiguration
from digestry.registry import proxies
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.proxies import Forwarding, ProxyConfig
from digestry.registry.toml import Where
from tests.registry.access.support import basic, challenge, guarded
from tests.registry.support import events
from tests.support import RegistryServer, running_registry

TRUSTED = ["10.0.0.0/8", "2001:db8:1::/48", "192.0.2.7"]


def configured(trusted: object = TRUSTED, **more: object) -> ProxyConfig:
    return proxies.parse({"proxy": {"trusted": trusted, **more}}, Where(Path("registry.toml")))


def said(*lines: tuple[str, str], peer: str = "10.0.0.1", config: ProxyConfig | None = None) -> Forwarding:
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in lines]
    scope = {"client": (peer, 1) if peer else None, "scheme": "http", "headers": headers}
    return proxies.apply(config or configured(), scope)


def client(*values: str, header: str = "X-Forwarded-For") -> str | None:
    return said(*((header, value) for value in values)).address


@pytest.mark.parametrize(
    ("values", "address"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["6.6.6.6, 203.0.113.9"], "203.0.113.9"),  # who asked the proxy wrote the first one
        (["6.6.6.6", "203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9, 10.2.3.4, 192.0.2.7"], "203.0.113.9"),
        (["6.6.6.6, 203.0.113.9, 10.2.3.4"], "203.0.113.9"),
        (["10.9.9.9, 10.2.3.4"], "10.9.9.9"),  # all of them are ours: the first one asked
        (["203.0.113.9:4711"], "203.0.113.9"),
        (["2001:DB8::9"], "2001:db8::9"),
        (["[2001:db8::9]"], "2001:db8::9"),
        (["[2001:db8::9]:4711"], "2001:db8::9"),
        (['"[2001:db8::9]:4711"'], "2001:db8::9"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9, ::ffff:10.2.3.4"], "203.0.113.9"),
        (["203.0.113.9, 2001:db8:1::4"], "203.0.113.9"),
        ([" 203.0.113.9 ,, 10.2.3.4 , "], "203.0.113.9"),
        (["unknown"], None),
        (["203.0.113.9, unknown"], None),
        (["203.0.113.9, unknown, 10.2.3.4"], "10.2.3.4"),
        (["_hidden"], None),
        (["203.0.113.9:port"], None),
        (["203.0.113.9%eth0"], None),
        (["999.1.1.1"], None),
        (["[203.0.113.9]"], None),
        (["[2001:db8::9"], None),
        (["203.0.113.9\x00"], None),
        ([""], None),
        ([","], None),
        (["1" * 5000], None),
        (["1" * 50_000 + ", 203.0.113.9"], "203.0.113.9"),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_not_trusted(
    values: list[str], address: str | None
) -> None:
    assert client(*values) == address


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["for=203.0.113.9"], ("203.0.113.9", None, None)),
        (["For=203.0.113.9;Proto=HTTPS;Host=r.example"], ("203.0.113.9", "https", "r.example")),
        (['for="203.0.113.9:4711" ; host="r.example:8443"'], ("203.0.113.9", None, "r.example:8443")),
        (['for="[2001:db8::9]:4711";proto=https'], ("2001:db8::9", "https", None)),
        (["for=6.6.6.6;proto=http, for=203.0.113.9;proto=https"], ("203.0.113.9", "https", None)),
        (
            ["for=203.0.113.9;proto=https;host=r.example, for=10.2.3.4;proto=http;host=inside"],
            ("203.0.113.9", "https", "r.example"),
        ),
        (["for=203.0.113.9", "for=10.2.3.4;proto=https"], ("203.0.113.9", "https", None)),
        (["for=unknown;proto=https"], (None, "https", None)),
        (["for=_gazonk;proto=https, for=10.2.3.4"], ("10.2.3.4", "https", None)),
        (['for="_gazonk:_port"'], (None, None, None)),
        (['for="x, for=203.0.113.9'], ("203.0.113.9", None, None)),  # a quote that a stranger left open
        (['for="a\\", for=203.0.113.9'], ("203.0.113.9", None, None)),
        (["for=6.6.6.6;for=6.6.6.7"], (None, None, None)),
        (["for=203.0.113.9 garbage"], (None, None, None)),
        (["garbage, for=203.0.113.9"], ("203.0.113.9", None, None)),
        (["for=203.0.113.9;proto=javascript;host=a/b"], ("203.0.113.9", None, None)),
        (['for="203.0.113.9'], (None, None, None)),
    ],
)
def test_the_standard_header(values: list[str], expected: tuple[str | None, ...]) -> None:
    found = said(*(("Forwarded", value) for value in values))
    host = None if found.host is None else str(found.host)
    assert (found.address, found.scheme, host) == expected


def test_scheme_and_host_are_what_the_client_used() -> None:
    found = said(
        ("X-Forwarded-For", "6.6.6.6, 203.0.113.9, 10.2.3.4"),
        ("X-Forwarded-Proto", "gopher, https, http"),
        ("X-Forwarded-Host", "evil.example, r.example, inside"),
        ("X-Forwarded-Port", "1, 8443, 80"),
    )
    assert (found.scheme, str(found.host)) == ("https", "r.example:8443")


def test_a_list_that_does_not_go_along_with_the_addresses_is_read_at_its_end() -> None:
    found = said(
        ("X-Forwarded-For", "203.0.113.9"),
        ("X-Forwarded-Proto", "http, https"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Host", "r.example:5000"),
        ("X-Forwarded-Port", "443"),
    )
    assert (found.scheme, str(found.host)) == ("https", "r.example:5000")
    assert str(said(("X-Forwarded-Host", "r.example"), ("X-Forwarded-Port", "99999")).host) == "r.example"
    default = said(
        ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "r.example"), ("X-Forwarded-Port", "443")
    )
    assert str(default.host) == "r.example"


@pytest.mark.parametrize("peer", ["10.255.0.1", "::ffff:10.0.0.1", "2001:db8:1:2::3", "192.0.2.7"])
def test_trusted_peers(peer: str) -> None:
    assert said(("X-Forwarded-For", "203.0.113.9"), peer=peer).address == "203.0.113.9"


@pytest.mark.parametrize("peer", ["11.0.0.1", "192.0.2.8", "2001:db8:2::3", "::1", "", "garbage"])
def test_of_anybody_else_nothing_counts(peer: str) -> None:
    lines = ("X-Forwarded-For", "203.0.113.9"), ("Forwarded", "for=1.2.3.4;proto=https;host=evil.example")
    assert said(*lines, peer=peer) == Forwarding()


def test_a_unix_socket_is_trusted_by_its_name() -> None:
    config = configured("unix")
    assert said(("X-Forwarded-For", "203.0.113.9"), peer="", config=config).address == "203.0.113.9"
    assert not config.trusts("127.0.0.1")


def test_two_stories_are_one_too_many() -> None:
    both = ("Forwarded", "for=6.6.6.6"), ("X-Forwarded-For", "203.0.113.9")
    with pytest.raises(ErrorResponse, match="contradicts itself"):
        said(*both)
    assert said(*both, config=configured(headers="x-forwarded")).address == "203.0.113.9"
    assert said(*both, config=configured(headers="forwarded")).address == "6.6.6.6"
    assert said(("Forwarded", "for=203.0.113.9"), both[1]).address == "203.0.113.9"
    assert said(("Forwarded", "for=unknown;proto=https"), both[1]) == Forwarding("203.0.113.9", "https")


@pytest.mark.parametrize(
    "text", ['"' * 8000, "\\" * 8000, '\\"' * 4000, "," * 8000, "for=" * 2000, '";' * 4000]
)
def test_garbage_is_read_in_linear_time(text: str) -> None:
    began = time.process_time()
    for _ in range(10):
        said(("Forwarded", text), ("X-Forwarded-For", text), ("X-Forwarded-Proto", text))
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("trusted", ["10.0.0.1/8", ["10.0.0.0/33"], "proxy.example", 5, [["::1"]]])
def test_what_is_no_address_is_refused(trusted: object) -> None:
    with pytest.raises(InvalidConfiguration, match="trusted"):
        configured(trusted)


# -- the whole registry -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def behind() -> Iterator[RegistryServer]:
    """A registry with users that trusts this machine's address to be a proxy's."""
    with guarded('[proxy]\ntrusted = ["127.0.0.0/8", "::1"]\n') as server:
        yield server


@pytest.mark.long
def test_journal_and_audit_log_have_the_client(behind: RegistryServer) -> None:
    alice = {**basic("alice"), "X-Forwarded-For": "6.6.6.6, 203.0.113.9"}
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []})
    answer = behind.request("PUT", "/v2/team/a/manifests/1", body, {**alice, "Content-Type": INDEX})
    assert answer.status == 201, answer.body
    journal = behind.request("GET", "/v2/team/a/_digestry/journal", headers=basic("alice")).json()
    assert journal["entries"][0]["address"] == "203.0.113.9"
    lines = (behind.root / "audit.log").read_text().splitlines()
    assert {json.loads(line)["address"] for line in lines if '"team/a"' in line} == {"203.0.113.9"}


INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.mark.parametrize(
    ("headers", "realm"),
    [
        ({"X-Forwarded-Proto": "https"}, "https://r.example:5000/token"),
        (
            {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "public.example"},
            "https://public.example/token",
        ),
        ({"Forwarded": "for=1.2.3.4;proto=https;host=public.example"}, "https://public.example/token"),
        ({"X-Forwarded-Host": "evil.example/x"}, "http://r.example:5000/token"),
        ({}, "http://r.example:5000/token"),
    ],
)
def test_the_realm_is_where_the_client_asked(
    behind: RegistryServer, headers: dict[str, str], realm: str
) -> None:
    answer = behind.request("GET", "/v2/", headers={"Host": "r.example:5000", **headers})
    assert challenge(answer)["realm"] == realm


def test_two_stories_are_refused(behind: RegistryServer) -> None:
    headers = {"Forwarded": "for=6.6.6.6", "X-Forwarded-For": "203.0.113.9"}
    assert behind.request("GET", "/v2/", headers=headers).status == 400


@pytest.mark.long
def test_without_a_setting_nobody_is_believed() -> None:
    forged = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "for=1.1.1.1",
    }
    with running_registry() as server:
        body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []})
        answer = server.request("PUT", "/v2/a/manifests/1", body, {**forged, "Content-Type": INDEX})
        assert answer.status == 201, answer.body
        assert events(server, "a")[0]["address"] == "127.0.0.1"


@pytest.mark.long
def test_a_password_is_never_led_from_https_to_http() -> None:
    with guarded() as server:
        for forwarded in (
            {"X-Forwarded-Proto": "https"},
            {"X-Forwarded-Scheme": "HTTPS"},
            {"X-Forwarded-Ssl": "on"},
            {"Front-End-Https": "On"},
            {"X-Forwarded-Protocol": "https"},
            {"X-Scheme": "https"},
            {"CloudFront-Forwarded-Proto": "https"},
            {"CF-Visitor": '{"scheme":"https"}'},
            {"Forwarded": 'for=x;proto="https"'},
        ):
            headers = {"Host": "r.example", "X-Forwarded-Host": "evil.example", **forwarded}
            answer = server.request("GET", "/v2/", headers=headers)
            assert challenge(answer)["realm"] == "https://r.example/token"
