"""The query what a registry observed in other ones."""

from __future__ import annotations

import datetime
from typing import Final
from urllib.parse import urlencode

from digestry.client.connection import Connection
from digestry.client.extensions import UNSUPPORTED
from digestry.client.transport import Call
from digestry.errors import RemoteError
from digestry.model.descriptor import decode_hook
from digestry.model.observations import ObservationReport
from digestry.model.timestamps import rfc3339

_LARGEST: Final = 64 << 20
_SCOPES: Final = ("registry:catalog:*",)


def observation_report(connection: Connection, host: str, since: datetime.datetime) -> ObservationReport:
    """Return what the registry ``host`` observed since a time. Raises :class:`RemoteError`, also for a
    registry that observes nothing."""
    base = f"{connection.base(host)}/v2/"
    # A registry may answer anonymous requests with less: /v2/ gives the challenge to log in.
    connection.send(host, Call("GET", base), _SCOPES).close()
    call = Call("GET", f"{base}_digestry/observed?{urlencode({'since': rfc3339(since)})}")
    with connection.send(host, call, _SCOPES) as response:
        if response.status in UNSUPPORTED:
            raise RemoteError(
                f"{host} does not observe other registries",
                hint="that is for a digestry registry whose registry.toml says [observe] (docs/observe.md)",
            )
        if response.status != 200:
            response.fail("ask what was observed")
        return response.json(ObservationReport, _LARGEST, dec_hook=decode_hook)
