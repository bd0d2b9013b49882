"""The trust in token servers: a registry's own, or one that belongs to it, gets the password.

A registry names its token server in the ``realm`` of a challenge (distribution's docs/spec/auth/token.md),
and docker sends the user's password to any such host, over TLS or not. This client sends a password to a host
other than the registry's only over TLS, and only if the user allowed it, it is the registry's neighbour in
the same domain, or it is known to belong to it; an unknown host is asked for an anonymous token.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, Literal
from urllib.parse import SplitResult, urlsplit

from digestry.client.options import ClientOptions
from digestry.errors import ProtocolViolation
from digestry.model.digest import shown

Trust = Literal["own", "trusted", "stranger"]

_NETLOC: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_HUB: Final = "auth.docker.io"
_BELONG: Final = (
    ("hub.docker.com", _HUB),
    ("docker.com", _HUB),
    ("scw.cloud", "api.scaleway.com"),
    ("redhat.io", "redhat.com"),
)
"""Domains of registries, and where their token servers are."""
_SECOND_LEVELS: Final = frozenset({
    "ac", "co", "com", "edu", "gob", "gouv", "gov", "go", "gv", "info", "ltd", "me", "mil", "ne", "net",
    "nhs", "nom", "or", "org", "plc", "sch", "web",
})  # fmt: skip
"""The second-level domains below many countries' domains: ``co.uk``, ``com.au``."""
_SHARED: Final = (
    "amazonaws.com", "appspot.com", "azure.com", "azurecontainerapps.io", "azurecr.io", "azurewebsites.net",
    "cloudapp.net", "cloudfront.net", "ddns.net", "digitaloceanspaces.com", "duckdns.org",
    "firebaseapp.com", "fly.dev", "github.io", "githubusercontent.com", "gitlab.io",
    "googleusercontent.com", "herokuapp.com", "jfrog.io", "linodeobjects.com", "myhuaweicloud.com",
    "netlify.app", "ngrok.app", "ngrok.dev", "ngrok.io", "ngrok-free.app", "nip.io", "ocir.io",
    "ondigitalocean.app", "onrender.com", "oraclecloud.com", "pages.dev", "pkg.dev", "r2.dev",
    "railway.app", "run.app", "sslip.io", "tencentcloudcr.com", "trycloudflare.com", "vercel.app",
    "web.app", "windows.net", "workers.dev", "aliyuncs.com", "scw.cloud",
    "b-cdn.net", "cluster.local", "dyndns.org", "eu.org", "hopto.org", "loca.lt", "no-ip.org", "serveo.net",
    "synology.me", "ts.net", "zapto.org",
)  # fmt: skip
"""Domains in which strangers are neighbours."""


def parts_of(url: str) -> SplitResult | None:
    """Return the parts of an absolute web address; None for one that readers may read as different hosts.

    That is an address with a user, a backslash, a host that is not ASCII, or an invalid port.
    """
    try:
        parts = urlsplit(url)
        valid = parts.port is None or parts.port > 0
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not valid:
        return None
    return parts if _NETLOC.fullmatch(parts.netloc) else None


def trust(host: str, base: str, realm: str, options: ClientOptions) -> Trust:
    """Return the trust in the token server at ``realm`` of the registry ``host``, which is at ``base``.

    Raises :class:`ProtocolViolation` for an invalid address, and for another host over plain HTTP unless that
    is allowed for the host.
    """
    parts = parts_of(realm)
    if parts is None:
        raise ProtocolViolation(f"{host} names {shown(realm)} as its token server, which is not an address")
    theirs, ours = _name(parts), _name(urlsplit(base))
    if theirs == ours:
        return "own"
    named = parts.netloc.lower() in options.token_servers or theirs in options.token_servers
    if parts.scheme == "http" and not options.is_insecure(parts.netloc):
        raise ProtocolViolation(
            f"{host} names a token server on another host, over plain HTTP: {shown(parts.netloc)}; it was "
            "not asked, and your password was not sent",
            hint="a token server must have TLS; if you accept the risk: digestry config set "
            f"insecure-registries {parts.netloc}",
        )
    if named:
        return "trusted"
    encrypted = parts.scheme == "https"
    return "trusted" if encrypted and (belongs(ours, theirs) or neighbours(ours, theirs)) else "stranger"


def _name(parts: SplitResult) -> str:
    return (parts.hostname or "").rstrip(".").lower()


def belongs(registry: str, server: str) -> bool:
    """Return whether the token server of another domain is known to be that registry's."""
    if registry.endswith(".aliyuncs.com"):
        return server.startswith("dockerauth") and server.endswith(".aliyuncs.com")
    return any(_within(registry, domain) and _within(server, of) for domain, of in _BELONG)


def neighbours(host: str, other: str) -> bool:
    """Return whether two hosts are in a domain that one owner has.

    ``registry.example.com`` and ``auth.example.com`` are; two names below ``co.uk`` or below a hosting
    company's domain are not.
    """
    if _is_address(host) or _is_address(other):
        return False
    common: list[str] = []
    for mine, theirs in zip(reversed(host.split(".")), reversed(other.split(".")), strict=False):
        if mine != theirs:
            break
        common.insert(0, mine)
    if len(common) < 2:
        return False
    if len(common) == 2 and len(common[1]) == 2 and common[0] in _SECOND_LEVELS:
        return False
    domain = ".".join(common)
    return not any(_within(domain, shared) for shared in _SHARED)


def _within(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
