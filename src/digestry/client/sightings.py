"""Sightings, which say where a digest runs: reported to a registry, and read from one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from digestry.client.connection import Connection
from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.extensions import UNSUPPORTED, lacks, offers
from digestry.client.transport import Call
from digestry.model.descriptor import decode_hook, encode_hook
from digestry.model.digest import Digest
from digestry.model.sightings import SightingReport, SightingsOf, SightingsReceipt, SightingsRequest

_ENDPOINT: Final = "_digestry/sightings"
_OF_DIGEST: Final = "_digestry/sightings/<digest>"
_LARGEST_ANSWER: Final = 4 << 20


def record(connection: Connection, host: str, sightings: Sequence[SightingReport]) -> SightingsReceipt | None:
    """Report ``sightings`` to a registry. See :meth:`Registry.record_sightings`."""
    if not offers(connection, host, _ENDPOINT):
        return None
    body = msgspec.json.encode(SightingsRequest(tuple(sightings)), enc_hook=encode_hook)
    url = f"{connection.base(host)}/v2/{_ENDPOINT}"
    scopes = [
        f"repository:{name}:pull" for name in dict.fromkeys(sighting.repository for sighting in sightings)
    ]
    call = Call("POST", url, {"Content-Type": "application/json"}, body)
    with connection.send(host, call, scopes) as response:
        if response.status != 200:
            response.fail("tell what runs")
        return response.json(SightingsReceipt, _LARGEST_ANSWER)


def sightings_of(endpoint: RepositoryEndpoint, digest: Digest, limit: int) -> SightingsOf | None:
    """Return where ``digest`` was seen running. See :meth:`Repository.sightings`."""
    if lacks(endpoint.connection, endpoint.host, _OF_DIGEST):
        return None
    with endpoint.request("GET", f"{_ENDPOINT}/{digest}?n={limit}") as response:
        if response.status in UNSUPPORTED:
            return None
        if response.status != 200:
            response.fail(f"ask where {endpoint.display_name(str(digest))} was seen")
        return response.json(SightingsOf, _LARGEST_ANSWER, dec_hook=decode_hook)
