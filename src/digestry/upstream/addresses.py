"""Classification of IP addresses: public, private, loopback, link-local, cloud metadata."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PUBLIC: Final = "public"
PRIVATE: Final = "private"
LOOPBACK: Final = "loopback"
METADATA: Final = "metadata"
_LINK_LOCAL: Final = "link-local"
_UNSPECIFIED: Final = "unspecified"
_RESERVED: Final = "reserved"

_SERVICES: Final = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, Azure, Google, OpenStack and others
        "169.254.170.2",  # AWS, credentials of a container
        "169.254.170.23",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",  # Google
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure; a public address
        "192.0.0.192",  # Oracle
    )
)
_SHARED: Final = ipaddress.ip_network("100.64.0.0/10")  # RFC 6598
_THIS_NETWORK: Final = ipaddress.ip_network("0.0.0.0/8")
_COMPATIBLE: Final = ipaddress.ip_network("::/96")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})  # RFC 5214
_LOW_32: Final = 0xFFFFFFFF


def kind(address: Address) -> str:
    """Return the kind of ``address``: :data:`PUBLIC`, :data:`PRIVATE` (RFC 1918, ULA, RFC 6598),
    :data:`LOOPBACK`, :data:`METADATA` (of a cloud's machine), or another word for an address that is not
    public.

    An IPv6 address that maps an IPv4 address has the kind of the latter.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            address = ipaddress.IPv6Address(int(address))
        inner = _embedded(address)
        if inner is not None:
            return kind(inner)
    if address in _SERVICES:
        return METADATA
    if address.is_loopback:
        return LOOPBACK
    if address.is_unspecified or address in _THIS_NETWORK:
        return _UNSPECIFIED
    if address.is_link_local:
        return _LINK_LOCAL
    if address.is_multicast or address.is_reserved:
        return _RESERVED
    if address in _SHARED or _is_private(address):
        return PRIVATE
    return PUBLIC if address.is_global else _RESERVED


def _is_private(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        return address.is_site_local or (int(address) >> 121) == 0x7E  # fc00::/7
    return any(address in network for network in _RFC_1918)


_RFC_1918: Final = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address embeds (mapped, 6to4, NAT64), or None."""
    number = int(address)
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    is_compatible = address in _COMPATIBLE and number > 1
    if is_compatible or address in _NAT64 or (number >> 32) & _LOW_32 in _ISATAP:
        return ipaddress.IPv4Address(number & _LOW_32)
    return None


def literal(host: str) -> Address | None:
    """Return the address that ``host`` writes, in any form that a resolver takes for one (``127.1``,
    ``0x7f000001``, ``2130706433``, ``0177.0.0.1``), brackets allowed; None for a name."""
    bare = host.strip("[]").rstrip(".")
    try:
        return ipaddress.ip_address(bare)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(bare)) if bare and bare.isascii() else None
    except OSError:
        return None


def is_local_name(host: str) -> bool:
    """Return whether ``host`` is ``localhost`` or a name below it (RFC 6761, 6.3)."""
    name = host.rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost")
