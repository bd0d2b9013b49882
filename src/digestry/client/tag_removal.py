"""The removal of a tag: the other tags of its digest, and registries that can delete digests only."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

from digestry.client import digest_queries, manifests
from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.tags import list_tags
from digestry.errors import ContentError, Refused, RemoteError, RemoteNotFound
from digestry.model.digest import Digest

_AT_ONCE: Final = 8
_MOST_TAGS: Final = 5000
_CANNOT: Final = frozenset({400, 405, 501})
"""Statuses of a registry that deletes by digest only: 400 as it takes the tag for a wrong digest."""


@dataclass(frozen=True, slots=True)
class DigestTags:
    """The tags that point to a digest.

    ``unread`` are the tags that could not be resolved; ``complete`` is False if some were skipped.
    """

    tags: tuple[str, ...]
    unread: tuple[str, ...] = ()
    complete: bool = True


def tags_now(endpoint: RepositoryEndpoint, digest: Digest) -> DigestTags:
    """Return the tags that point to ``digest`` now. See :meth:`Repository.tags_now`."""
    spans = digest_queries.tags_for_digest(endpoint, digest, None)
    if spans is not None:
        return DigestTags(tuple(sorted({span.tag for span in spans if span.still and span.digest == digest})))
    names = list(islice(list_tags(endpoint), _MOST_TAGS + 1))

    def points_there(name: str) -> bool | None:
        try:
            return manifests.resolve(endpoint, name).digest == digest
        except RemoteNotFound:
            return False  # it was deleted meanwhile
        except (RemoteError, ContentError):
            return None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        known = list(zip(names[:_MOST_TAGS], pool.map(points_there, names[:_MOST_TAGS]), strict=True))
    return DigestTags(
        tuple(sorted(name for name, there in known if there)),
        tuple(name for name, there in known if there is None),
        complete=len(names) <= _MOST_TAGS,
    )


def delete_tag(endpoint: RepositoryEndpoint, tag: str) -> bool:
    """Delete a tag alone; return False if the registry cannot. See :meth:`Repository.delete_tag`."""
    try:
        manifests.delete(endpoint, tag)
    except Refused as error:
        if error.status in _CANNOT or (error.status == 404 and error.code == "UNSUPPORTED"):
            return False
        raise
    return True
