"""What runs where: told to a registry that keeps it, and asked of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from digestry.client.extensions import lacks, offers
from digestry.client.transport import Call
from digestry.model.descriptor import decode_hook, encode_hook
from digestry.model.sightings import Noted, Sighted, SightingsOf, SightingsRequest

if TYPE_CHECKING:
    from digestry.client.repository import Repository
    from digestry.client.session import Session
    from digestry.model.digest import Digest

_ENDPOINT: Final = "_digestry/sightings"
_OF: Final = "_digestry/sightings/<digest>"
_LARGEST_ANSWER: Final = 4 << 20
_UNSUPPORTED: Final = frozenset({404, 405, 501})


def record(session: Session, host: str, sightings: Sequence[Sighted]) -> Noted | None:
    """See :meth:`Session.record_sightings`."""
    if not offers(session, host, _ENDPOINT):
        return None
    body = msgspec.json.encode(SightingsRequest(tuple(sightings)), enc_hook=encode_hook)
    url = f"{session.transport.base(host)}/v2/{_ENDPOINT}"
    scopes = [f"repository:{name}:pull" for name in dict.fromkeys(one.repository for one in sightings)]
    call = Call("POST", url, {"Content-Type": "application/json"}, body)
    with session.send(host, call, scopes) as response:
        if response.status != 200:
            response.fail("tell what runs")
        noted: Noted = response.json(Noted, _LARGEST_ANSWER)
    return noted


def of(repository: Repository, digest: Digest, limit: int) -> SightingsOf | None:
    """See :meth:`Repository.sightings`."""
    if lacks(repository.session, repository.reference.host, _OF):
        return None
    with repository.request("GET", f"{_ENDPOINT}/{digest}?n={limit}") as response:
        if response.status in _UNSUPPORTED:
            return None
        if response.status != 200:
            response.fail(f"ask where {repository.display_name(str(digest))} was seen")
        found: SightingsOf = response.json(SightingsOf, _LARGEST_ANSWER, dec_hook=decode_hook)
    return found
