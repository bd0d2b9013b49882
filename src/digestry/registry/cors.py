"""The ``[cors]`` section: which web pages may use this registry (Fetch standard, "HTTP-CORS protocol")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from digestry.registry import toml
from digestry.registry.hosts import parse_host
from digestry.registry.toml import Key, Where

ANY: Final = "*"
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_SENT: Final = (
    b"Accept, Authorization, Cache-Control, Content-Range, Content-Type, If-Match, If-Modified-Since,"
    b" If-None-Match, If-Range, OCI-Tag, Range, X-Request-ID, X-Requested-With"
)
"""Headers that clients of registries send, beside those that need no leave."""
_EXPOSED: Final = (
    b"Accept-Ranges, Content-Length, Content-Range, Docker-Content-Digest, Docker-Distribution-API-Version,"
    b" Docker-Upload-UUID, ETag, Link, Location, OCI-Chunk-Min-Length, OCI-Filters-Applied, OCI-Subject,"
    b" OCI-Tag, Range, Retry-After, Warning, WWW-Authenticate, X-Request-ID"
)


def _origins(value: object, where: Where) -> tuple[str, ...]:
    found = []
    for text in toml.texts(value, where):
        origin = text if text == ANY else parse_origin(text)
        if origin is None:
            raise ValueError(
                'origins of pages are required, such as "https://ui.example.com", without a path, or "*"'
            )
        found.append(origin)
    return tuple(found)


def _methods(value: object, where: Where) -> tuple[str, ...]:
    found = tuple(text.upper() for text in toml.texts(value, where))
    if not set(found) <= set(METHODS):
        raise ValueError(f"some of {', '.join(METHODS)} are required")
    return found


KEYS: Final = (
    Key("origins", _origins),
    Key("methods", _methods, ("GET", "HEAD")),
    Key("credentials", toml.flag, False),
    Key("max-age", toml.seconds(0, 86400), 600.0),
)


@dataclass(frozen=True, slots=True)
class CorsConfig:
    """The pages (``origins``, or ``*``) whose scripts may read answers, and by which ``methods``.

    With ``credentials`` browsers send credentials that they have: a typed password, cookies of a proxy.
    ``max_age`` is how long a browser caches the answer to a preflight, in seconds.
    """

    origins: frozenset[str] = frozenset()
    methods: tuple[str, ...] = ("GET", "HEAD")
    credentials: bool = False
    max_age: float = 600.0

    def __bool__(self) -> bool:
        return bool(self.origins)

    def allows(self, origin: str) -> bool:
        """Return whether a page of this origin may use the registry."""
        return origin in self.origins or (ANY in self.origins and origin != "null")

    def headers(self, origin: str) -> list[tuple[bytes, bytes]]:
        """Return the headers of every answer to an allowed page."""
        everybody = ANY in self.origins and not self.credentials
        lines = [
            (b"access-control-allow-origin", b"*" if everybody else origin.encode("latin-1")),
            (b"access-control-expose-headers", _EXPOSED),
        ]
        if self.credentials:
            lines.append((b"access-control-allow-credentials", b"true"))
        return lines

    def preflight(self, origin: str) -> list[tuple[bytes, bytes]]:
        """Return the headers of the answer to a preflight request."""
        return [
            *self.headers(origin),
            (b"access-control-allow-methods", ", ".join(self.methods).encode()),
            (b"access-control-allow-headers", _SENT),
            (b"access-control-allow-private-network", b"true"),
            (b"access-control-max-age", b"%d" % self.max_age),
        ]


def parse(document: Mapping[str, object], where: Where) -> CorsConfig:
    """Read ``[cors]`` of a document. Raises :class:`InvalidConfiguration`."""
    if "cors" not in document:
        return CorsConfig()
    here = Where(where.file, "cors")
    values = toml.read(document["cors"], KEYS, here)
    origins = frozenset(values.pop("origins"))
    if ANY in origins and values["credentials"]:
        raise here.wrong('with credentials, origins have to be named: "*" is every page that anybody visits')
    return CorsConfig(origins=origins, **values)


def parse_origin(text: str) -> str | None:
    """Return an origin as browsers write it: lower case, no default port. None if it is not one."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    host = parse_host(parts.netloc)
    if parts.scheme not in _DEFAULT_PORTS or host is None or parts.path not in {"", "/"}:
        return None
    if parts.query or parts.fragment or "?" in text or "#" in text:
        return None
    if host.port == _DEFAULT_PORTS[parts.scheme]:
        host = type(host)(host.name)
    return f"{parts.scheme}://{host}"
