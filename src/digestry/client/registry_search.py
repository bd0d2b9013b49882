"""The search for a digest in the tag history of all repositories of a registry."""

from __future__ import annotations

import time
from typing import Final

from digestry.client.connection import Connection
from digestry.client.extensions import UNSUPPORTED
from digestry.client.paging import progress_of
from digestry.client.transport import Call
from digestry.errors import InvalidReference, ProtocolViolation
from digestry.model.descriptor import decode_hook
from digestry.model.digest import Digest
from digestry.model.history import TagsForDigest, TagSpan
from digestry.model.reference import Reference
from digestry.model.timestamps import rfc3339

_LARGEST_PAGE: Final = 16 << 20
_PAGE: Final = 1000
_SCOPES: Final = ("registry:catalog:*",)


def tags_for_digest(
    connection: Connection, host: str, digest: Digest, *, layers: bool = False
) -> list[TagSpan] | None:
    """Return the times at which tags pointed to ``digest``. See :meth:`Registry.tags_for_digest`."""
    address = f"{connection.base(host)}/v2/"
    # A registry may answer anonymous requests with the public part only: /v2/ gives the challenge to log in.
    connection.send(host, Call("GET", address), _SCOPES).close()
    base = f"{address}_digestry/whose/{digest}?n={_PAGE}{'&layers=true' if layers else ''}"
    spans: list[TagSpan] = []
    before: str | None = None
    progress = progress_of(connection, host)
    while True:
        began = time.monotonic()
        url = base if before is None else f"{base}&before={before}"
        with connection.send(host, Call("GET", url), _SCOPES) as response:
            if response.status in UNSUPPORTED:
                return None
            if response.status != 200:
                response.fail(f"ask whose {digest} is")
            found = response.json(TagsForDigest, _LARGEST_PAGE, dec_hook=decode_hook)
        oldest = found.spans[-1] if found.spans else None
        if oldest is not None and spans and oldest.since >= spans[-1].since:
            raise ProtocolViolation(f"{host} sent spans that are not in order")
        _check(host, found)
        spans += found.spans
        if oldest is None or len(found.spans) < _PAGE:
            return spans
        before = rfc3339(oldest.since)
        progress.page(len(found.spans), time.monotonic() - began)


def _check(host: str, found: TagsForDigest) -> None:
    """Raise :class:`ProtocolViolation` for spans with an invalid repository name."""
    for name in {span.repository for span in found.spans}:
        try:
            Reference(host, name)
        except InvalidReference as error:
            raise ProtocolViolation(f"{host} names an invalid repository: {error.message}") from error
