"""The query what changed in a registry since an earlier answer."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from digestry.client.connection import Connection
from digestry.client.extensions import offers
from digestry.client.transport import Call
from digestry.model.changes import Changes

_ENDPOINT: Final = "_digestry/changes"
_LARGEST: Final = 1 << 20
_SCOPES: Final = ("registry:catalog:*",)
_UNSUPPORTED: Final = frozenset({400, 401, 403, 404, 405, 501})


def changes(connection: Connection, host: str, token: str) -> Changes | None:
    """Return what changed since the answer with ``token``, empty for a first question; None if the registry
    does not say. Raises :class:`~digestry.errors.DigestryError`."""
    if not offers(connection, host, _ENDPOINT):
        return None
    # A registry may answer anonymous requests with less: /v2/ gives the challenge to log in.
    connection.send(host, Call("GET", f"{connection.base(host)}/v2/"), _SCOPES).close()
    query = f"?{urlencode({'since': token})}" if token else ""
    call = Call("GET", f"{connection.base(host)}/v2/{_ENDPOINT}{query}")
    with connection.send(host, call, _SCOPES) as response:
        if response.status in _UNSUPPORTED:
            return None
        if response.status != 200:
            response.fail("ask what changed")
        return response.json(Changes, _LARGEST)
