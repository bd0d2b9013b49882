"""Checks of a request before it is handled: its ``Host``, its origin, and whether a read-only one takes it.

A registry that knows its users by passwords and tokens is safe from web pages: a page has none of them. One
that needs no login is not: any page that a user visits can send requests to the loopback address and to the
network of the user's machine. Browsers mark such requests by headers that no page can change; other clients
of registries send none of them.

A page can also make its own host's name resolve to this registry (DNS rebinding): then the browser takes both
for one site, and only the name in ``Host`` shows the difference.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from digestry.model.digest import shown
from digestry.registry.access.identity import ANONYMOUS
from digestry.registry.config import RegistryConfig
from digestry.registry.cors import parse_origin
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.exchange import READS, Exchange
from digestry.registry.hosts import Host, is_named_in, parse_host

_NOTED: Final = frozenset(
    (b"host", b"origin", b"sec-fetch-site", b"authorization", b"content-type", b"content-range")
)
_ONCE: Final = frozenset((b"authorization", b"content-type", b"content-range"))
"""Headers of which one line decides: two would be read as one by a proxy and as the other here."""
_BROWSER: Final = b"accept-language"
"""Headers that every browser sends, and no client of registries. Over plain HTTP, a page reads its own host
without ``Origin`` and ``Sec-Fetch-Site``."""
_OURS: Final = frozenset((b"same-origin", b"none"))
"""``Sec-Fetch-Site`` (Fetch Metadata, 2.3) of this registry's own pages, and of addresses that a user typed.
"""
_DEFAULT_PORTS: Final = frozenset((80, 443, None))
_REMEMBERED: Final = 1000
"""So many values of ``Host`` that were looked at are known; after that it begins anew."""
_VARY: Final = (b"vary", b"Origin")
_VARY_PREFLIGHT: Final = (
    b"vary",
    b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
)


def _named(realm: str | None) -> tuple[str, ...]:
    """Return the host name of the token endpoint ``realm``, which is one of the registry's own names."""
    host = None if realm is None else parse_host(urlsplit(realm).netloc)
    return () if host is None else (host.name,)


class RequestChecks:
    """The checks of the requests to one registry."""

    def __init__(self, config: RegistryConfig) -> None:
        self._known: dict[bytes, Host] = {}
        self._read_only = config.read_only
        self._cors = config.cors
        self._listed = bool(config.hosts)
        self._names = (*config.hosts, *_named(config.access.realm))
        self._open = not config.access.enabled or any(
            rule.is_for(ANONYMOUS) and rule.actions - {"pull", "audit"} for rule in config.access.rules
        )
        self._local = self._open and config.loopback
        self._shown = config.loopback and any(rule.is_for(ANONYMOUS) for rule in config.access.rules)
        self._noted = _NOTED | {_BROWSER} if self._shown else _NOTED

    def admits(self, exchange: Exchange) -> bool:
        """Return whether the request is to be looked at further; False for a browser's preflight, whose
        answer is :attr:`Exchange.cors_headers` and no more.

        Raises :class:`ErrorResponse` 400 for a ``Host`` that cannot be, and for two lines of a header that
        decides alone, 403 for a host that may be a trick, and 403 for a page of another origin.
        """
        host: bytes | None = None
        origin: bytes | None = None
        site: bytes | None = None
        speaks = False
        once: bytes | None = None
        noted = self._noted
        for name, value in exchange.scope["headers"]:
            if name in noted:
                if name == b"host":
                    if host is not None:
                        raise ErrorResponse(
                            400, "UNSUPPORTED", "the request has more than one Host header", reason="host"
                        )
                    host = value
                elif name in _ONCE:
                    if once is not None and name in once:
                        raise ErrorResponse(
                            400,
                            "UNSUPPORTED",
                            f"the request has more than one {name.decode().title()} header",
                            reason="malformed",
                        )
                    once = name if once is None else once + name
                elif name == b"origin":
                    origin = value if origin is None else b"null"
                elif name == _BROWSER:
                    speaks = True
                else:
                    site = value
        self._check_host(exchange, host)
        if self._shown and (speaks or origin is not None or site is not None):
            self._check_shown(exchange, origin)
        if self._cors:
            exchange.cors_headers = (_VARY,)
        if origin is None and site is None:
            return True
        return self._check_page(exchange, None if origin is None else origin.decode("latin-1"), site)

    def check_writable(self, exchange: Exchange) -> None:
        """Raise :class:`ErrorResponse` 405 for a change of a registry that is read-only."""
        method = exchange.scope["method"]
        if self._read_only and method not in READS and exchange.route.changes:
            raise ErrorResponse(
                405,
                "UNSUPPORTED",
                "this registry is read-only: it takes no pushes and removes nothing; what it has can be"
                " pulled",
                headers={"Allow": "GET, HEAD"},
                reason="read-only",
            )

    def _check_host(self, exchange: Exchange, raw: bytes | None) -> None:
        if not raw:  # the server makes an empty one of none
            if exchange.scope.get("http_version") == "1.1":
                raise ErrorResponse(
                    400,
                    "UNSUPPORTED",
                    "the request has no Host header (RFC 9112, section 3.2)",
                    reason="host",
                )
            return
        host = self._known.get(raw)
        if host is None:
            host = self._look_at(raw)
        if exchange.host is None:
            exchange.host = host
        elif self._listed:
            self._check_name(exchange.host)

    def _look_at(self, raw: bytes) -> Host:
        host = parse_host(raw.decode("latin-1"))
        if host is None:
            raise ErrorResponse(
                400, "UNSUPPORTED", "the request's Host header is not HOST or HOST:PORT", reason="host"
            )
        self._check_name(host)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[raw] = host
        return host

    def _check_name(self, host: Host) -> None:
        if not (self._local or self._listed) or self._is_known(host):
            return
        why = "it is not in hosts"
        if not self._listed:
            why = "it listens on loopback without a login, and any web page could have that name lead here"
        raise self._other_name(host, why)

    @staticmethod
    def _other_name(host: Host, why: str) -> ErrorResponse:
        return ErrorResponse(
            403,
            "DENIED",
            f"this registry does not answer to the name {shown(host.name)}: {why}"
            ' (for a name of its own, write hosts = ["NAME"] into registry.toml)',
            reason="host",
        )

    def _check_shown(self, exchange: Exchange, origin: bytes | None) -> None:
        """Raise :class:`ErrorResponse` 403 for a browser's request under a name that may be a page's own,
        where no login is needed: the page could read the answer."""
        host = exchange.host
        if host is None or self._is_known(host):
            return
        if origin is not None and self._cors.allows(origin.decode("latin-1")):
            return
        raise self._other_name(
            host,
            "it listens on loopback, and any web page could have that name lead here to read in a browser",
        )

    def _check_page(self, exchange: Exchange, origin: str | None, site: bytes | None) -> bool:
        method = exchange.scope["method"]
        if origin is not None and self._cors.allows(origin):
            exchange.cors_headers = (_VARY, *self._cors.headers(origin))
            requested_method = exchange.header(b"access-control-request-method")
            if method == "OPTIONS" and requested_method is not None:
                exchange.cors_headers = (_VARY_PREFLIGHT, *self._cors.preflight(origin))
                return False
            if method in READS or method in self._cors.methods:
                return True
        elif (site is None or site in _OURS) and (origin is None or self._is_own(exchange, origin)):
            return True
        elif method in READS and (not self._open or self._is_visit(exchange)):
            return True  # a page cannot read the answer, nor has it a password to send along
        page = "of another origin" if origin is None else f"of {shown(origin)}"
        what = method if method.isalpha() else "do this"
        raise ErrorResponse(
            403,
            "DENIED",
            f"a web page {page} may not {what} here: {self._way(exchange, origin)}",
            reason="page",
        )

    def _is_own(self, exchange: Exchange, origin: str) -> bool:
        """Return whether a page was loaded from this registry, by one of its own names."""
        host = exchange.host
        known = parse_origin(origin)
        if host is None or known is None:
            return False
        page = parse_host(known.partition("://")[2])
        if page is None or page.name != host.name:
            return False
        if page.port != host.port and not {page.port, host.port} <= _DEFAULT_PORTS:
            return False
        return not self._open or self._is_known(host)

    def _way(self, exchange: Exchange, origin: str | None) -> str:
        """Return the setting that would allow the request of a page of ``origin``."""
        known = None if origin is None else parse_origin(origin)
        page = None if known is None else parse_host(known.partition("://")[2])
        host = exchange.host
        if self._open and page and host and page.name == host.name and not self._is_known(host):
            return f"if {shown(host.name)} is a name of this registry, list it in hosts in registry.toml"
        return "[cors] in registry.toml says which pages may do what"

    def _is_known(self, host: Host) -> bool:
        return host.is_local or is_named_in(host, self._names)

    def _is_visit(self, exchange: Exchange) -> bool:
        """Return whether somebody follows a link to this registry, so that no script sees the answer."""
        return (
            exchange.scope["method"] in {"GET", "HEAD"}
            and exchange.header(b"origin") is None
            and exchange.header(b"sec-fetch-mode") == "navigate"
            and exchange.header(b"sec-fetch-dest") == "document"
        )
