"""The journal of a repository: every move of its tags, with who made it."""

from __future__ import annotations

import datetime
import time
from typing import Final
from urllib.parse import urlencode

from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.extensions import UNSUPPORTED
from digestry.client.paging import next_link, progress_of
from digestry.errors import ProtocolViolation, Unauthorized
from digestry.model.descriptor import decode_hook
from digestry.model.history import JournalPage, TagEvent
from digestry.model.timestamps import rfc3339

_LARGEST_PAGE: Final = 16 << 20
_PAGE: Final = 1000


def journal(
    endpoint: RepositoryEndpoint,
    tag: str | None,
    limit: int | None,
    since: datetime.datetime | None = None,
    until: datetime.datetime | None = None,
) -> list[TagEvent] | None:
    """Return the entries of the journal, newest first. See :meth:`Repository.journal`."""
    bounds = {name: rfc3339(at) for name, at in (("since", since), ("until", until)) if at is not None}
    events: list[TagEvent] = []
    before: int | str | None = None
    logged_in = False
    progress = progress_of(endpoint.connection, endpoint.host)
    while limit is None or len(events) < limit:
        began = time.monotonic()
        query: dict[str, str | int] = {**bounds} if tag is None else {"tag": tag, **bounds}
        query["n"] = _PAGE if limit is None else min(_PAGE, limit - len(events))
        if before is not None:
            query["before"] = before
        with endpoint.request("GET", f"_digestry/journal?{urlencode(query)}") as response:
            if response.status in UNSUPPORTED:
                return None
            if response.status != 200:
                response.fail(f"get the journal of {endpoint.name}")
            page = response.json(JournalPage, _LARGEST_PAGE, dec_hook=decode_hook)
        if not page.entries:
            break
        oldest = page.entries[-1]
        if oldest.withheld and not logged_in:
            logged_in = True
            if log_in(endpoint):
                continue
        if events and oldest.at >= events[-1].at:
            raise ProtocolViolation(f"{response.host} sent a journal whose entries are not in order")
        events += page.entries
        # Users who may not audit the repository get no positions; no two of its entries have the same time.
        before = rfc3339(oldest.at) if oldest.sequence is None else oldest.sequence
        progress.page(len(page.entries), time.monotonic() - began)
        numbered = oldest.sequence is not None
        if oldest.sequence == 1 or (not numbered and next_link(response.headers.get("Link")) is None):
            break  # the registry's first entry, or the last one of a list
    # A registry that does not support the bounds also sends entries outside of them.
    events = [event for event in events if is_within(event, since, until)]
    return events if limit is None else events[:limit]


def log_in(endpoint: RepositoryEndpoint) -> bool:
    """Log in to a registry that allows anonymous pulls, and so sent no challenge; return whether that was
    new."""
    connection, host = endpoint.connection, endpoint.host
    if connection.is_authenticated(host):
        return False
    try:
        with endpoint.request("GET", f"{connection.base(host)}/v2/") as response:
            return response.status == 200 and connection.is_authenticated(host)
    except Unauthorized:
        return False  # the anonymous answer is all that is available


def is_within(event: TagEvent, since: datetime.datetime | None, until: datetime.datetime | None) -> bool:
    """Return whether the event is between two times, both inclusive."""
    return (since is None or event.at >= since) and (until is None or event.at <= until)
