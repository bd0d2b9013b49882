"""The ``[proxy]`` section: which proxies are trusted to state a client's address, scheme and host
(docs/registry.md).

A proxy names its client in ``Forwarded`` (RFC 7239) or in ``X-Forwarded-For``, ``-Proto``, ``-Host`` and
``-Port``. Any client can write these headers, so they are read from right to left, and only as far as trusted
addresses wrote them: the part left of the first untrusted address is not believed.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.types import Scope

from digestry.registry import toml
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.hosts import Host, parse_host
from digestry.registry.toml import Key, Where

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
RawHeaders = Iterable[tuple[bytes, bytes]]

UNIX: Final = "unix"
"""The name in ``trusted`` for clients of a unix socket."""

_MOST_HOPS: Final = 64
_LONGEST: Final = 8 << 10
_LONGEST_NODE: Final = 64
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_PAIR: Final = re.compile(
    r'[ \t]*([A-Za-z0-9!#$%&\'*+.^_`|~-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s";,]*))[ \t]*(?:;|$)', re.ASCII
)
_FORWARDED: Final = b"forwarded"
_FOR: Final = b"x-forwarded-for"
_PROTO: Final = b"x-forwarded-proto"
_HOST: Final = b"x-forwarded-host"
_PORT_HEADER: Final = b"x-forwarded-port"
_SAY_HTTPS: Final = {
    _PROTO: b"https",
    b"x-forwarded-scheme": b"https",
    b"x-forwarded-protocol": b"https",
    b"x-scheme": b"https",
    b"x-url-scheme": b"https",
    b"cloudfront-forwarded-proto": b"https",
    b"cf-visitor": b"https",
    b"x-forwarded-ssl": b"on",
    b"front-end-https": b"on",
}
"""Headers by which proxies say that a request came over TLS, and a part of their values then."""
_NOTED: Final = frozenset((_FORWARDED, _FOR, _PROTO, _HOST, _PORT_HEADER))


def _networks(value: object, where: Where) -> tuple[str, ...]:
    found = toml.texts(value, where)
    for item in found:
        if item != UNIX:
            try:
                ipaddress.ip_network(item)
            except ValueError as error:
                raise ValueError(
                    f'addresses and networks are required, such as "10.0.0.0/8", and "{UNIX}": {error}'
                ) from error
    return found


KEYS: Final = (
    Key("trusted", toml.unless_empty(_networks), ()),
    Key("headers", toml.one_of("either", "forwarded", "x-forwarded"), "either"),
)


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """The trusted proxies: those in ``networks`` and, with ``unix``, the peers of a unix socket.

    ``headers`` says which kind they write: ``forwarded``, ``x-forwarded``, or ``either``.
    """

    networks: tuple[Network, ...] = ()
    unix: bool = False
    headers: str = "either"

    def __bool__(self) -> bool:
        return self.unix or bool(self.networks)

    def trusts(self, peer: str) -> bool:
        """Return whether the peer at this address is trusted. A unix socket's peer has an empty address."""
        if not peer:
            return self.unix
        address = parse_address(peer)
        return address is not None and self._contains(address)

    def _contains(self, address: Address) -> bool:
        return any(address in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What trusted proxies state about a request; None for what they do not state."""

    address: str | None = None
    scheme: str | None = None
    host: Host | None = None


def parse(document: Mapping[str, object], where: Where) -> ProxyConfig:
    """Read ``[proxy]`` of a document. Raises :class:`InvalidConfiguration`."""
    values = toml.read(document.get("proxy", {}), KEYS, Where(where.file, "proxy"))
    trusted = values["trusted"]
    networks = tuple(parse_network(item) for item in trusted if item != UNIX)
    return ProxyConfig(networks, UNIX in trusted, values["headers"])


def parse_network(text: str) -> Network:
    """Return a network, or an address as one, and IPv4 out of a mapped IPv6. Raises ValueError.

    ``::ffff:10.0.0.0/104`` is what a dual-stack socket has for ``10.0.0.0/8``.
    """
    network = ipaddress.ip_network(text)
    mapped = None if network.version == 4 else network.network_address.ipv4_mapped
    if mapped is None or network.prefixlen < 96:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - 96))


@functools.lru_cache(4096)
def parse_address(text: str) -> Address | None:
    """Return an IP address without its zone, and IPv4 out of a mapped IPv6; None for anything else."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if address.version == 6 else address


def share_of(address: str) -> str:
    """Return the unit by which limits count an address: the address itself, or its /64 network in IPv6."""
    found = parse_address(address)
    if found is None or found.version == 4:
        return address if found is None else str(found)
    return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))


def parse_node(text: str) -> Address | None:
    """Return the address of a hop (RFC 7239, section 6): bare, with a port, IPv6 in brackets or without.

    None for ``unknown``, for a name that hides the address (``_gateway``), and for garbage.
    """
    text = text.strip(" \t")
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if not text or len(text) > _LONGEST_NODE or "%" in text:
        return None
    if text.startswith("["):
        host, closed, port = text[1:].partition("]")
        if not closed or (port and not _is_port(port)) or ":" not in host:
            return None
        return parse_address(host)
    if text.count(":") == 1:
        text, _, port = text.partition(":")
        if not _is_port(":" + port):
            return None
    return parse_address(text)


def _is_port(text: str) -> bool:
    # RFC 7239 allows hiding a port as well.
    return bool(re.fullmatch(r":(?:[0-9]{1,5}|_[A-Za-z0-9._-]{1,32})", text, re.ASCII))


def apply(config: ProxyConfig, scope: Scope) -> Forwarding:
    """Set the client's address and scheme in ``scope``, and return what the peer states, if it is trusted.

    Raises :class:`ErrorResponse` 400 if the headers contradict each other: a client wrote one of them.
    """
    peer = scope.get("client")
    address = peer[0] if peer else ""
    if not config.trusts(address):
        return Forwarding()
    found = read(config, address, scope["headers"])
    if found.address is not None:
        scope["client"] = (found.address, 0)
    if found.scheme is not None:
        scope["scheme"] = found.scheme
    return found


def read(config: ProxyConfig, peer: str, headers: RawHeaders) -> Forwarding:
    """Return what a trusted ``peer`` states of the request. Raises as :func:`apply` does."""
    lines: dict[bytes, list[str]] = {}
    for name, value in headers:
        if name in _NOTED:
            lines.setdefault(name, []).append(value.decode("latin-1"))
    standard = other = None
    if _FORWARDED in lines and config.headers != "x-forwarded":
        standard = _standard(config, lines[_FORWARDED])
    if config.headers != "forwarded" and len(lines) > (_FORWARDED in lines):
        other = _common(config, lines)
    if standard is None or other is None:
        return standard or other or Forwarding()
    for forwarded, another in (
        (standard.address, other.address),
        (standard.scheme, other.scheme),
        (standard.host, other.host),
    ):
        if forwarded is not None and another is not None and forwarded != another:
            # A proxy that writes one kind passes the other kind on, as its client wrote it.
            raise ErrorResponse(
                400,
                "UNSUPPORTED",
                f"the proxy {peer or 'on the socket'} contradicts itself in Forwarded and X-Forwarded-*: "
                "[proxy] headers has to name the kind that it writes itself",
            )
    return Forwarding(
        standard.address or other.address, standard.scheme or other.scheme, standard.host or other.host
    )


def _walk(config: ProxyConfig, nodes: Iterable[str]) -> tuple[Address | None, int]:
    """Return the client among hops from right to left, and how many hops were read."""
    found: Address | None = None
    number = 0
    for number, node in enumerate(nodes, 1):
        address = parse_node(node)
        if address is None:
            break  # the proxy that wrote this hides its client
        found = address
        if number >= _MOST_HOPS or not config._contains(address):
            break
    return found, number


def _standard(config: ProxyConfig, lines: Sequence[str]) -> Forwarding:
    elements: list[dict[str, str]] = []

    def nodes() -> Iterator[str]:
        for text in _from_right(lines, quoted=True):
            elements.append(_pairs(text))
            yield elements[-1].get("for", "")

    address, _ = _walk(config, nodes())
    scheme = host = None
    # Each was written by a trusted proxy; the last one read is nearest to the client.
    for element in reversed(elements):
        scheme = scheme or _scheme(element.get("proto", ""))
        host = host or parse_host(element.get("host", ""))
    return Forwarding(None if address is None else str(address), scheme, host)


def _common(config: ProxyConfig, lines: Mapping[bytes, Sequence[str]]) -> Forwarding:
    address, hops = _walk(config, _from_right(lines.get(_FOR, ())))
    written = _count(lines.get(_FOR, ()))

    def value(name: bytes) -> str:
        """Return the value beside the client's address; the peer's own from a list of another length."""
        found = lines.get(name, ())
        place = hops if hops and _count(found) == written else 1
        text = ""
        for number, text in enumerate(_from_right(found), 1):  # noqa: B007 - the last one is it
            if number >= place:
                break
        return text.strip(" \t")

    scheme = _scheme(value(_PROTO))
    host = parse_host(value(_HOST))
    port = value(_PORT_HEADER)
    if host is not None and host.port is None and _PORT.fullmatch(port) and 0 < int(port) < 65536:
        default = {"http": 80, "https": 443}.get(scheme or "")
        host = Host(host.name, None if int(port) == default else int(port))
    return Forwarding(None if address is None else str(address), scheme, host)


def _count(lines: Sequence[str]) -> int:
    return sum(line[-_LONGEST:].count(",") + 1 for line in lines)


def _scheme(text: str) -> str | None:
    text = text.lower()
    return text if text in {"http", "https"} else None


def _from_right(lines: Sequence[str], *, quoted: bool = False) -> Iterator[str]:
    """Yield the elements of a list header, the last one first; several lines are one list.

    From the right, so that untrusted text before them, such as an unclosed quote or 8 KiB, cannot change the
    elements of the nearest proxies.
    """
    left = _MOST_HOPS
    for line in reversed(lines):
        for text in _split_from_right(line[-_LONGEST:], quoted=quoted):
            if text.strip(" \t"):
                yield text
                left -= 1
                if left == 0:
                    return


def _split_from_right(text: str, *, quoted: bool) -> Iterator[str]:
    if not quoted:
        while True:
            text, comma, last = text.rpartition(",")
            yield last
            if not comma:
                return
    end = len(text)
    inside = False
    for place in range(len(text) - 1, -1, -1):
        character = text[place]
        if character == '"' and not _is_escaped(text, place):
            inside = not inside
        elif character == "," and not inside:
            yield text[place + 1 : end]
            end = place
    yield text[:end]


def _is_escaped(text: str, place: int) -> bool:
    first = place
    while first and text[first - 1] == "\\":
        first -= 1
    return (place - first) % 2 == 1


def _pairs(text: str) -> dict[str, str]:
    """Return the parameters of one element of ``Forwarded``, by lower-case name; empty if it is malformed."""
    found: dict[str, str] = {}
    place = 0
    while place < len(text):
        match = _PAIR.match(text, place)
        if match is None:
            return {}
        name = match[1].lower()
        if name in found:
            return {}
        found[name] = re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
        place = match.end()
    return found


def claims_https(headers: RawHeaders) -> bool:
    """Return whether a proxy, trusted or not, states that the request came over TLS.

    Use it only where a wrong answer is harmless: a password goes to ``https`` of the same host, or nowhere.
    """
    for name, value in headers:
        if name in _SAY_HTTPS and _SAY_HTTPS[name] in value.lower():
            return True
        if name == _FORWARDED and re.search(rb'proto="?https', value[-_LONGEST:], re.IGNORECASE):
            return True
    return False
