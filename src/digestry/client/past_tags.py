"""Past tags: what a tag pointed to at a time, and restoring it."""

from __future__ import annotations

import datetime
from typing import Final
from urllib.parse import urlencode

from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.extensions import UNSUPPORTED
from digestry.client.paging import pages
from digestry.client.responses import Response
from digestry.client.tag_history import tag_history
from digestry.errors import Refused, RemoteNotFound
from digestry.model.descriptor import decode_hook
from digestry.model.digest import Digest
from digestry.model.history import Restored, TagAsOf, TagEvent, TagsAsOf, TagSpan
from digestry.model.timestamps import rfc3339

_LARGEST_PAGE: Final = 16 << 20
_PAGE: Final = 1000
_NO_SUCH_TAG: Final = "MANIFEST_UNKNOWN"


def tag_at(endpoint: RepositoryEndpoint, tag: str, at: datetime.datetime) -> TagSpan | None:
    """Return the digest that ``tag`` pointed to at a time, with its span. See :meth:`Repository.tag_at`."""
    with endpoint.request("GET", f"_digestry/tag/{tag}?{urlencode({'at': rfc3339(at)})}") as response:
        if response.status == 200:
            found = response.json(TagAsOf, _LARGEST_PAGE, dec_hook=decode_hook)
            return found.span
        if response.status not in UNSUPPORTED:
            response.fail(f"ask what {endpoint.display_name(tag)} was at {rfc3339(at)}")
        _raise_unless_unsupported(response, f"find {endpoint.display_name(tag)} at {rfc3339(at)}")
    events = tag_history(endpoint, tag)
    if events is None:
        return None
    later: TagEvent | None = None
    for event in events:
        if event.at <= at:
            if event.to_digest is None:
                break
            return TagSpan(
                tag=tag,
                digest=event.to_digest,
                since=event.at,
                still=later is None,
                until=None if later is None else later.at,
                media_type=event.media_type,
                size=event.size,
            )
        later = event
    raise RemoteNotFound(
        f"there was no tag {tag} in {endpoint.name} at {rfc3339(at)}",
        status=404,
        code=_NO_SUCH_TAG,
    )


def tags_at(endpoint: RepositoryEndpoint, at: datetime.datetime) -> list[TagSpan] | None:
    """Return the tags that there were at a time. See :meth:`Repository.tags_at`."""
    spans: list[TagSpan] = []
    for response in pages(endpoint, f"_digestry/tags?{urlencode({'at': rfc3339(at), 'n': _PAGE})}"):
        if response.status in UNSUPPORTED:
            return None
        if response.status != 200:
            response.fail(f"list the tags of {endpoint.name} at {rfc3339(at)}")
        found = response.json(TagsAsOf, _LARGEST_PAGE, dec_hook=decode_hook)
        response.entries = len(found.tags)
        spans += found.tags
    return spans


def restore(endpoint: RepositoryEndpoint, tag: str, wanted: Digest | datetime.datetime) -> Restored | None:
    """Point ``tag`` back at a digest that it had. See :meth:`Repository.restore`."""
    query = {"to": str(wanted)} if isinstance(wanted, Digest) else {"at": rfc3339(wanted)}
    path = f"_digestry/restore/{tag}?{urlencode(query)}"
    with endpoint.request("POST", path, push=True) as response:
        if response.status == 200:
            return response.json(Restored, _LARGEST_PAGE, dec_hook=decode_hook)
        action = f"restore {endpoint.display_name(tag)}"
        if response.status not in UNSUPPORTED:
            response.fail(action)
        _raise_unless_unsupported(response, action)
    return None


def _raise_unless_unsupported(response: Response, action: str) -> None:
    """Raise if a 404 is about the tag; one about the path comes from a registry without that endpoint."""
    try:
        response.fail(action)
    except RemoteNotFound as error:
        if error.code == _NO_SUCH_TAG:
            raise
    except Refused as error:
        if error.status not in UNSUPPORTED:
            raise
