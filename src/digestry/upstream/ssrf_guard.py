"""The guard against request forgery: rules for the hosts and token servers that an upstream may refer to.

An upstream names other hosts, in redirects and in the realm of a challenge. It must not make a registry
inside a network send requests to services of that network, of this machine, or of the cloud that it runs in.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from digestry import dns
from digestry.client import token_servers
from digestry.errors import RedirectRefused, Unreachable
from digestry.model.digest import shown
from digestry.upstream import addresses
from digestry.upstream.addresses import Address, Network
from digestry.upstream.deadline import current

_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_PRINTABLE: Final = re.compile(r"[!-~]+", re.ASCII)
_PORTS: Final = {"http": 80, "https": 443}
_MOST_OWN: Final = 1000
_PATIENCE: Final = 30.0

_BELONG: Final = {"lscr.io": "ghcr.io"}
"""Registries, and whose tokens they want, beside those that every client knows."""
_FOR_ALL: Final = frozenset({"auth.docker.io", "gcr.io", "ghcr.io", "gitlab.com", "quay.io"})
"""Public token servers, which registries of other domains name. They never get a password."""


@dataclass(frozen=True, slots=True)
class AllowedTarget:
    """An internal target that is allowed: a network, or a host with or without a port."""

    network: Network | None = None
    host: str = ""
    port: int | None = None


def parse_allowed_target(text: str) -> AllowedTarget:
    """Parse ``192.0.2.0/24``, ``2001:db8::1``, ``host`` or ``host:port``. Raises :class:`ValueError`."""
    try:
        return AllowedTarget(network=ipaddress.ip_network(text))
    except ValueError:
        host, port = _host_and_port(text)
        address = addresses.literal(host)
        if address is not None and port is None:
            return AllowedTarget(network=ipaddress.ip_network(str(address)))
        return AllowedTarget(host=host, port=port)


def _host_and_port(text: str) -> tuple[str, int | None]:
    if not _HOST.fullmatch(text):
        raise ValueError(f"{shown(text)} is no host")
    parts = urlsplit(f"//{text}")
    return _plain(parts.hostname or ""), parts.port


def _plain(host: str) -> str:
    return host.lower().rstrip(".").strip("[]")


def parse_url(url: str) -> SplitResult:
    """Split an untrusted URL. Raises :class:`ValueError` for an invalid one, or one that two parsers could
    read in two ways."""
    parts = token_servers.parts_of(url)
    if parts is None or "\\" in url or not _PRINTABLE.fullmatch(url):
        raise ValueError("that is no plain web address")
    return parts


class SSRFGuard:
    """The guard of one upstream, which is at ``url`` and is called ``name``. Thread-safe.

    ``internal`` lists the other internal targets that are allowed, and ``realms`` its token servers: hosts,
    with a port or without, and ``http://`` before those that may be used without TLS.
    """

    def __init__(self, name: str, url: str, internal: Iterable[str] = (), realms: Iterable[str] = ()) -> None:
        parts = urlsplit(url)
        self._scheme = parts.scheme
        self._host = _plain(parts.hostname or "")
        self._names = (self._host, _plain(urlsplit(f"//{name}").hostname or ""))
        self._inside = [parse_allowed_target(text) for text in internal]
        self._realms = [_parse_realm(text) for text in realms]
        self._lock = threading.Lock()
        self._own: set[Address] = set()
        self._own_kinds: frozenset[str] = frozenset()
        own = addresses.literal(self._host)
        if own is not None:
            self._own = {own}
            self._own_kinds = frozenset({addresses.kind(own)})

    # -- addresses ------------------------------------------------------------------------------

    def resolve(self, host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
        """Resolve ``host`` and return the addresses that may be connected to.

        Forbidden addresses are left out. Raises :class:`socket.gaierror`,
        :class:`TimeoutError`, and :class:`RedirectRefused` if none is left.
        """
        found = [
            (family, (str(sockaddr[0]), port), ipaddress.ip_address(str(sockaddr[0])))
            for family, _, _, _, sockaddr in self.look_up(host, port)
        ]
        allowed = self._allowed(_plain(host), port, [address for _, _, address in found])
        return [(family, sockaddr) for family, sockaddr, address in found if address in allowed]

    def look_up(self, host: str, port: int) -> Sequence[dns.AddressInfo]:
        """Return all addresses of ``host``, in the time that the thread's deadline leaves. Raises
        :class:`socket.gaierror` and :class:`TimeoutError`."""
        deadline = current()
        seconds = _PATIENCE if deadline is None else deadline.left()
        return dns.look_up(host, port, seconds=seconds, owner=f"upstream {self._names[1]}")

    def check_proxied(self, host: str, port: int) -> None:
        """Raise :class:`RedirectRefused` if a proxy must not be used for ``host``.

        The proxy resolves the name itself: a name that this machine cannot resolve is left to it.
        """
        address = addresses.literal(host)
        if address is not None:
            self._allowed(_plain(host), port, [address])
        elif addresses.is_local_name(host):
            self._allowed(_plain(host), port, [ipaddress.ip_address("127.0.0.1")])
        elif _plain(host) != self._host:
            with _in_time(host), contextlib.suppress(socket.gaierror, UnicodeError):
                self.resolve(host, port)

    def check_redirect(self, parts: SplitResult) -> None:
        """Raise :class:`RedirectRefused` if a redirect of a request that is not for a blob must not go to
        ``parts``: to another internal service, unless it is configured."""
        host, port = _plain(parts.hostname or ""), parts.port or _PORTS[parts.scheme]
        if host == self._host and parts.scheme == "https" and port == _PORTS["https"]:
            return
        # If it cannot be resolved, no request is sent, or a proxy resolves it.
        with _in_time(host), contextlib.suppress(socket.gaierror, UnicodeError):
            for _, (text, _) in self.resolve(host, port):
                address = ipaddress.ip_address(text)
                if addresses.kind(address) != addresses.PUBLIC and not self._is_configured(
                    host, port, address
                ):
                    raise _internal_refusal(self._names[1], host, address)

    def _allowed(self, host: str, port: int, found: Sequence[Address]) -> frozenset[Address]:
        """Return the allowed addresses of ``host``. Raises :class:`RedirectRefused` if there are none."""
        with self._lock:
            may = self._may_be_own if host == self._host else self._may_be_target
            allowed = frozenset(
                address for address in found if may(address) or self._is_configured(host, port, address)
            )
            if host == self._host and allowed and not self._own_kinds:
                self._own_kinds = frozenset(map(addresses.kind, allowed))
            if host == self._host and len(self._own) < _MOST_OWN:
                self._own.update(allowed)
        if not allowed:
            raise _internal_refusal(self._names[1], host, found[0])
        return allowed

    def _may_be_target(self, address: Address) -> bool:
        kind = addresses.kind(address)
        is_beside = kind == addresses.PRIVATE and addresses.PRIVATE in self._own_kinds
        return kind == addresses.PUBLIC or is_beside or (address in self._own and kind != addresses.METADATA)

    def _may_be_own(self, address: Address) -> bool:
        """Return whether the upstream's own name may resolve to ``address``.

        The kinds of its first addresses, public or private, decide that for later ones. An upstream that is
        configured by its address may have any.
        """
        if addresses.literal(self._host) is not None:
            return True
        kind = addresses.kind(address)
        if kind == addresses.LOOPBACK:
            return addresses.is_local_name(self._host)
        if kind == addresses.PRIVATE:
            return not self._own_kinds or kind in self._own_kinds
        return kind == addresses.PUBLIC

    def _is_configured(self, host: str, port: int, address: Address) -> bool:
        # A cloud's metadata address must be configured as such: a name or a network may not be meant to
        # include it.
        is_service = addresses.kind(address) == addresses.METADATA
        for entry in self._inside:
            if entry.network is not None:
                if address in entry.network and (not is_service or entry.network.num_addresses == 1):
                    return True
            elif entry.host == host and entry.port in {None, port} and not is_service:
                return True
        return not is_service and any(
            realm.host == host and realm.port in {None, port} for realm in self._realms
        )

    # -- token servers --------------------------------------------------------------------------

    def trusts(self, realm: str) -> bool:
        """Return whether the token server ``realm`` gets the password.

        It does if it is the upstream's own host, one that belongs to it, or a configured one. A public token
        server gets none.

        Raises :class:`RedirectRefused` for any other, which gets no request at all.
        """
        name = self._names[1]
        try:
            parts = parse_url(realm)
        except ValueError as error:
            raise RedirectRefused(f"{name} names {shown(realm)} as its token server: {error}") from None
        host, port = _plain(parts.hostname or ""), parts.port or _PORTS[parts.scheme]
        for known in self._realms:
            if known.host == host and known.port in {None, port} and (parts.scheme == "https" or known.plain):
                return True
        is_own = any(own == host or {own, host} <= _THIS_MACHINE for own in self._names)
        if parts.scheme == "http" and not (is_own and self._scheme == "http"):
            raise RedirectRefused(
                f"{name} names a token server without TLS: {parts.netloc}",
                hint=f'if it is to be asked all the same: realm = "http://{parts.netloc}"',
            )
        if is_own or any(_belongs_to(own, host) for own in self._names):
            return True
        if parts.scheme == "https" and host in _FOR_ALL:
            return False
        raise RedirectRefused(
            f"{name} names a token server of another domain: {parts.netloc}; it was not asked",
            hint=f'if it is the right one: realm = "{parts.netloc}"',
        )


@dataclass(frozen=True, slots=True)
class _Realm:
    host: str
    port: int | None
    plain: bool


def _parse_realm(text: str) -> _Realm:
    scheme, _, rest = text.rpartition("://")
    if scheme not in {"", "http", "https"}:
        raise ValueError(f"{shown(text)} is no host")
    host, port = _host_and_port(rest)
    return _Realm(host, port, plain=scheme == "http")


_THIS_MACHINE: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def _belongs_to(own: str, host: str) -> bool:
    return token_servers.belongs(own, host) or token_servers.neighbours(own, host) or _BELONG.get(own) == host


@contextlib.contextmanager
def _in_time(host: str) -> Iterator[None]:
    """Raise :class:`Unreachable` for a look-up that took too long: no request goes to an unresolved host."""
    try:
        yield
    except TimeoutError as error:
        raise Unreachable(f"cannot reach {shown(host)}: its address is not known in time") from error


def _internal_refusal(name: str, host: str, address: Address) -> RedirectRefused:
    what = f"{shown(host)} ({address})" if host != str(address) else host
    return RedirectRefused(
        f"{name} refers to {what}, a {addresses.kind(address)} address; it was not contacted",
        hint=f'if it may be asked: internal = ["{address}"], or its name',
    )
