"""The proxy that the environment names for a host, by the rules of Go's clients (httpproxy)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from digestry.client.http_connection import Proxy
from digestry.client.options import is_loopback
from digestry.errors import InvalidConfiguration
from digestry.model.digest import shown

if TYPE_CHECKING:
    import ipaddress

_PORTS: Final = {"http": 80, "https": 443}
_KINDS: Final = frozenset({"http", "https"})


def proxy_for(scheme: str, host: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the address of the proxy for ``host[:port]``; None if it is reached directly.

    ``HTTP_PROXY``, ``HTTPS_PROXY`` (``ALL_PROXY`` for want of them) and ``NO_PROXY``, in upper or lower
    case. Raises :class:`InvalidConfiguration` for a proxy of a kind that is not spoken here.
    """
    for name in (f"{scheme}_proxy", "all_proxy"):
        upper = environment.get(name.upper(), "")
        if name == "http_proxy" and "REQUEST_METHOD" in environment:
            upper = ""  # in a CGI program it is a header of the request's
        proxy = (upper or environment.get(name, "")).strip()
        if proxy:
            break
    else:
        return None
    no_proxy = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    if is_loopback(host) or _bypassed(scheme, host, no_proxy):
        return None
    address = proxy if "://" in proxy else f"http://{proxy}"
    _parts(name.upper(), address)
    return address


def credentials_of(proxy: str) -> tuple[str, str | None]:
    """Return the address of a proxy without its user, and the ``Proxy-Authorization`` to send."""
    parts = urlsplit(proxy)
    where, _, netloc = parts.netloc.rpartition("@")
    address = parts._replace(netloc=netloc, path="", query="", fragment="").geturl()
    if not where:
        return address, None
    import base64  # noqa: PLC0415 - few proxies have users

    user, _, password = where.partition(":")
    pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    return address, "Basic " + base64.b64encode(pair).decode()


def chosen_proxy(address: str) -> Proxy:
    """Return the proxy at an address that :func:`proxy_for` returned."""
    bare, authorization = credentials_of(address)
    parts = urlsplit(bare)
    scheme = parts.scheme.lower()
    return Proxy(scheme, parts.hostname or "", parts.port or _PORTS[scheme], authorization)


def _parts(variable: str, address: str) -> SplitResult:
    # No message shows the address: it may have a password.
    try:
        parts = urlsplit(address)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise InvalidConfiguration(f"{variable} is not the address of a proxy", hint="write http://HOST:PORT")
    if parts.scheme.lower() not in _KINDS:
        raise InvalidConfiguration(
            f"{variable} names a proxy of the kind {shown(parts.scheme)} at {shown(parts.hostname)}, which "
            "digestry cannot use",
            hint="name an HTTP proxy, or the registry in NO_PROXY; SOCKS is not supported",
        )
    return parts


def _bypassed(scheme: str, host: str, no_proxy: str) -> bool:
    import ipaddress  # noqa: PLC0415 - few users have proxies

    try:
        parts = urlsplit(f"//{host}")
        name, port = (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(scheme)
    except ValueError:
        return False
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address | None = ipaddress.ip_address(name)
    except ValueError:
        address = None
    return any(_matches(entry.strip().lower(), name, port, address) for entry in no_proxy.split(","))


def _matches(
    entry: str, name: str, port: int | None, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None
) -> bool:
    import ipaddress  # noqa: PLC0415 - as above

    if not entry:
        return False
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    bare, wanted = _split(entry)
    if wanted is not None and wanted != port:
        return False
    if address is not None:
        try:
            return address == ipaddress.ip_address(bare)
        except ValueError:
            return False
    bare = bare.rstrip(".")
    if bare.startswith("*."):
        bare = bare[1:]
    if bare.startswith("."):
        return name.endswith(bare)
    return name == bare or name.endswith(f".{bare}")


def _split(entry: str) -> tuple[str, int | None]:
    """Return host and port of an entry; an IPv6 address has brackets if it has a port."""
    if entry.startswith("["):
        bare, _, rest = entry[1:].partition("]")
        text = rest.removeprefix(":")
    elif entry.count(":") == 1:
        bare, _, text = entry.partition(":")
    else:
        bare, text = entry, ""
    return bare, int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else None
