"""Which extensions a registry has (distribution-spec, extensions/_oci.md), asked of each at most once.

Asked first: nobody else's registry is sent a list of what runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from digestry.client.transport import Call

if TYPE_CHECKING:
    from digestry.client.session import Session

_LARGEST: Final = 1 << 20
_UNTOLD: Final = frozenset({401, 429})
"""Statuses that do not tell whether there are extensions: the same question may be allowed later."""


class _Extension(msgspec.Struct):
    name: str = ""
    endpoints: list[str] | None = None


class _Discovery(msgspec.Struct):
    extensions: list[_Extension] | None = None


def offers(session: Session, host: str, endpoint: str) -> bool:
    """Whether the registry says that it has ``endpoint``, as it writes that: ``_digestry/resolve``.

    Raises :class:`Unreachable` and :class:`Unauthorized`.
    """
    if host not in session.extension_endpoints:
        url = f"{session.transport.base(host)}/v2/_oci/ext/discover"
        with session.send(host, Call("GET", url), ()) as response:
            if response.status == 200:
                found: frozenset[str] | None = _listed(response.read(_LARGEST))
            else:
                found = None if response.status in _UNTOLD or response.status >= 500 else frozenset()
        session.extension_endpoints[host] = found
    return endpoint in (session.extension_endpoints[host] or ())


def lacks(session: Session, host: str, endpoint: str) -> bool:
    """Whether it is known that the registry does not have ``endpoint``. Nothing is asked."""
    known = session.extension_endpoints.get(host)
    return known is not None and endpoint not in known


def _listed(body: bytes) -> frozenset[str]:
    try:
        discovery = msgspec.json.decode(body, type=_Discovery)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return frozenset()
    return frozenset(
        endpoint for extension in discovery.extensions or () for endpoint in extension.endpoints or ()
    )
