"""Queries about a digest in one repository: the tags that it had, and the manifests that refer to it."""

from __future__ import annotations

from typing import Final

from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.extensions import UNSUPPORTED, lacks
from digestry.client.paging import pages
from digestry.model.descriptor import decode_hook
from digestry.model.digest import Digest
from digestry.model.history import Holders, TagsForDigest, TagSpan

_LARGEST_PAGE: Final = 16 << 20
_PAGE: Final = 1000


def tags_for_digest(endpoint: RepositoryEndpoint, digest: Digest, limit: int | None) -> list[TagSpan] | None:
    """Return each time that a tag came to ``digest``. See :meth:`Repository.tags_for_digest`."""
    if lacks(endpoint.connection, endpoint.host, "_digestry/whose/<digest>"):
        return None
    spans: list[TagSpan] = []
    number = _PAGE if limit is None else min(_PAGE, limit)
    for response in pages(endpoint, f"_digestry/whose/{digest}?n={number}"):
        if response.status in UNSUPPORTED:
            return None
        if response.status != 200:
            response.fail(f"ask whose {endpoint.display_name(str(digest))} is")
        found = response.json(TagsForDigest, _LARGEST_PAGE, dec_hook=decode_hook)
        response.entries = len(found.spans)
        spans += found.spans
        if limit is not None and len(spans) >= limit:
            return spans[:limit]
    return spans


def holders(endpoint: RepositoryEndpoint, digest: Digest) -> Holders | None:
    """Return the manifests that hold ``digest``. See :meth:`Repository.holders`."""
    if lacks(endpoint.connection, endpoint.host, "_digestry/holders/<digest>"):
        return None
    with endpoint.request("GET", f"_digestry/holders/{digest}") as response:
        if response.status in UNSUPPORTED:
            return None
        if response.status != 200:
            response.fail(f"ask who holds {endpoint.display_name(str(digest))}")
        return response.json(Holders, _LARGEST_PAGE, dec_hook=decode_hook)
