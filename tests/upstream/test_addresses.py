"""Whose an address is, however it is written."""

from __future__ import annotations

import ipaddress

import pytest

from digestry.upstream import addresses


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("93.184.216.34", "public"),
        ("2606:2800:220:1::1", "public"),
        ("::ffff:93.184.216.34", "public"),
        ("64:ff9b::5db8:d822", "public"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("172.32.0.1", "public"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("fd12:3456::1", "private"),
        ("fec0::1", "private"),
        ("64:ff9b:1::7f00:1", "reserved"),
        ("::ffff:10.0.0.1", "private"),
        ("64:ff9b::10.0.0.1", "private"),
        ("2002:0a00:0001::1", "private"),
        ("127.0.0.1", "loopback"),
        ("127.255.1.2", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::127.0.0.1", "loopback"),
        ("64:ff9b::127.0.0.1", "loopback"),
        ("2002:7f00:0001::", "loopback"),
        ("2001:0:1:2:3:4:80ff:fffe", "loopback"),  # Teredo of 127.0.0.1
        ("2001:db8::5efe:7f00:1", "loopback"),  # ISATAP
        ("0.0.0.0", "unspecified"),  # noqa: S104
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("::ffff:0.0.0.0", "unspecified"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("169.254.169.254", "metadata"),
        ("::ffff:169.254.169.254", "metadata"),
        ("64:ff9b::a9fe:a9fe", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("168.63.129.16", "metadata"),
        ("192.0.0.192", "metadata"),
        ("224.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("ff02::1", "reserved"),
        ("192.0.2.1", "reserved"),
        ("198.18.0.1", "reserved"),
        ("240.0.0.1", "reserved"),
    ],
)
def test_whose_an_address_is(text: str, kind: str) -> None:
    assert addresses.kind(ipaddress.ip_address(text)) == kind


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.1", "127.0.0.1.", "017700000001"],
)
def test_addresses_in_odd_clothes(text: str) -> None:
    assert addresses.literal(text) == ipaddress.ip_address("127.0.0.1")


@pytest.mark.parametrize("text", ["example.test", "127.0.0.1.example.test", "", "a", "1.2.3.4.5", "ü"])
def test_names_are_no_addresses(text: str) -> None:
    assert addresses.literal(text) is None


@pytest.mark.parametrize(
    ("text", "local"),
    [("localhost", True), ("LocalHost.", True), ("a.localhost", True), ("localhost.test", False)],
)
def test_local_names(text: str, local: bool) -> None:
    assert addresses.is_local_name(text) == local
