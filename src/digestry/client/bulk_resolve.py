"""Bulk queries: one request about many repositories, to a registry that has that extension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from digestry.client.connection import Connection
from digestry.client.extensions import offers
from digestry.client.transport import Call
from digestry.errors import InvalidDigest, ProtocolViolation
from digestry.model.descriptor import decode_hook, encode_hook
from digestry.model.digest import Digest, shown
from digestry.model.resolution import Resolutions, ResolveQuery, ResolveRequest, batch

_LARGEST_ANSWER: Final = 64 << 20
_ENDPOINT: Final = "_digestry/resolve"
_UNSUPPORTED: Final = frozenset({400, 401, 403, 404, 405, 413, 501})


def resolve_many(
    connection: Connection, host: str, queries: Sequence[ResolveQuery], *, contents: bool
) -> Resolutions | None:
    """Return the answers to the first of ``queries``. See :meth:`Registry.resolve_many`."""
    if not queries or host in connection.cache.bulk_refused or not offers(connection, host, _ENDPOINT):
        return None
    sent = queries[: batch(queries)]
    body = msgspec.json.encode(ResolveRequest(tuple(sent), contents), enc_hook=encode_hook)
    url = f"{connection.base(host)}/v2/{_ENDPOINT}"
    call = Call("POST", url, {"Content-Type": "application/json"}, body)
    scopes = [f"repository:{name}:pull" for name in dict.fromkeys(query.repository for query in sent)]
    with connection.send(host, call, scopes) as response:
        if response.status in _UNSUPPORTED:
            # For any other refusal, the single queries remain.
            connection.cache.bulk_refused.add(host)
            return None
        if response.status != 200:
            response.fail(f"ask about {len(sent)} repositories")
        found = response.json(Resolutions, _LARGEST_ANSWER, dec_hook=decode_hook)
    _check(host, sent, found)
    return found


def _check(host: str, queries: Sequence[ResolveQuery], found: Resolutions) -> None:
    """Raise :class:`ProtocolViolation` if ``found`` does not answer the queries."""
    names: list[object] = [resolution.repository for resolution in found.resolutions]
    if not names or names != [query.repository for query in queries[: len(names)]]:
        raise ProtocolViolation(f"{host} answered other queries than it was sent")
    for text, content in found.contents.items():
        try:
            digest = Digest.parse(text)
            matches = Digest.of(content.encode(), digest.algorithm) == digest
        except (InvalidDigest, UnicodeEncodeError):
            matches = False
        if not matches:
            raise ProtocolViolation(f"{host} sent content that does not match its digest {shown(text)}")
