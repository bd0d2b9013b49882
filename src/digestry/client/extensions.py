"""The extensions of a registry (distribution-spec, extensions/_oci.md), requested at most once each.

They are requested before anything is sent that only an extension accepts, such as sightings.
"""

from __future__ import annotations

from typing import Final

import msgspec

from digestry.client.connection import Connection
from digestry.client.transport import Call
from digestry.model.json_types import prepared

_LARGEST: Final = 1 << 20
UNSUPPORTED: Final = frozenset({404, 405, 501})
"""Statuses of a registry that does not have an extension's endpoint."""
_UNDECIDED: Final = frozenset({401, 429})
"""Statuses that do not show whether there are extensions: the same request may be allowed later."""


class _Extension(msgspec.Struct):
    name: str = ""
    endpoints: list[str] | None = None


class _Discovery(msgspec.Struct):
    extensions: list[_Extension] | None = None


def offers(connection: Connection, host: str, endpoint: str) -> bool:
    """Return whether the registry says that it has ``endpoint``, such as ``_digestry/resolve``.

    Raises :class:`Unreachable` and :class:`Unauthorized`.
    """
    if host not in connection.cache.extension_endpoints:
        url = f"{connection.base(host)}/v2/_oci/ext/discover"
        with connection.send(host, Call("GET", url), ()) as response:
            if response.status == 200:
                found: frozenset[str] | None = _listed(response.read(_LARGEST))
            else:
                found = None if response.status in _UNDECIDED or response.status >= 500 else frozenset()
        connection.cache.extension_endpoints[host] = found
    return endpoint in (connection.cache.extension_endpoints[host] or ())


def lacks(connection: Connection, host: str, endpoint: str) -> bool:
    """Return whether the registry is known not to have ``endpoint``. Sends nothing."""
    known = connection.cache.extension_endpoints.get(host)
    return known is not None and endpoint not in known


def _listed(body: bytes) -> frozenset[str]:
    try:
        discovery = msgspec.json.decode(body, type=prepared(_Discovery))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return frozenset()
    return frozenset(
        endpoint for extension in discovery.extensions or () for endpoint in extension.endpoints or ()
    )
