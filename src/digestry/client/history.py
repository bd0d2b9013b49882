"""What a registry remembers: tag history (the draft) and digestry's own journal and holders."""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from digestry.client.extensions import lacks
from digestry.client.paging import next_link, pages, progress_of
from digestry.client.responses import Response
from digestry.errors import InvalidManifest, ProtocolViolation, Refused, RemoteNotFound, Unauthorized
from digestry.model import media_types
from digestry.model.descriptor import Descriptor, decode_hook
from digestry.model.digest import Digest, shown
from digestry.model.history import (
    TAG_EVENT,
    TAG_OBSERVED,
    TAG_TIMESTAMP,
    Holders,
    JournalPage,
    Restored,
    TagAsOf,
    TagEvent,
    TagsAsOf,
    TagsForDigest,
    TagSpan,
    observer,
)
from digestry.model.manifest import Manifest
from digestry.model.timestamps import rfc3339

if TYPE_CHECKING:
    from digestry.client.repository import Repository

_LARGEST_PAGE: Final = 16 << 20
_PAGE: Final = 1000
_NO_SUCH_TAG: Final = "MANIFEST_UNKNOWN"
_UNSUPPORTED: Final = frozenset({404, 405, 501})


def tag_history(repository: Repository, tag: str) -> list[TagEvent] | None:
    """See :meth:`Repository.tag_history`."""
    entries: list[Descriptor] = []
    for response in pages(repository, f"_oci/tag-history/{tag}"):
        if response.status in _UNSUPPORTED:
            return None
        if response.status != 200:
            response.fail(f"get the history of {repository.display_name(tag)}")
        try:
            page = Manifest.parse(response.read(_LARGEST_PAGE), media_types.OCI_INDEX)
        except InvalidManifest as error:
            raise ProtocolViolation(f"{response.host} sent no tag history: {error.message}") from error
        if not page.manifests and not entries and TAG_OBSERVED in (page.annotations or {}):
            return None  # a mirror that never looked has no history to tell
        response.entries = len(page.manifests)
        entries += page.manifests
    events: list[TagEvent] = []
    current: Digest | None = None
    for entry in reversed(entries):
        event = _event(repository, tag, entry, current)
        events.append(event)
        current = event.to_digest
    return events[::-1]


def _event(repository: Repository, tag: str, entry: Descriptor, current: Digest | None) -> TagEvent:
    """On the wire a move is one more ``created``: where it came from is told by the entry before."""
    annotations = entry.annotations or {}
    kind = annotations.get(TAG_EVENT)
    try:
        at = datetime.datetime.fromisoformat(annotations[TAG_TIMESTAMP])
    except (KeyError, ValueError) as error:
        raise ProtocolViolation(
            f"the history of {repository.display_name(tag)} has an entry without time"
        ) from error
    if at.tzinfo is None:
        at = at.replace(tzinfo=datetime.UTC)
    seen_in = annotations.get(TAG_OBSERVED)
    actor = observer(seen_in) if seen_in else ""
    if kind == "deleted":
        return TagEvent(
            at, repository.reference.repository, tag, "deleted", current or entry.digest, None,
            entry.media_type, entry.size, actor,
        )  # fmt: skip
    if kind != "created":
        raise ProtocolViolation(f"the history of {repository.display_name(tag)} has an event {shown(kind)}")
    return TagEvent(
        at, repository.reference.repository, tag, "created" if current is None else "moved", current,
        entry.digest, entry.media_type, entry.size, actor,
    )  # fmt: skip


def journal(
    repository: Repository,
    tag: str | None,
    limit: int | None,
    since: datetime.datetime | None = None,
    until: datetime.datetime | None = None,
) -> list[TagEvent] | None:
    """See :meth:`Repository.journal`."""
    bounds = {name: rfc3339(at) for name, at in (("since", since), ("until", until)) if at is not None}
    events: list[TagEvent] = []
    before: int | str | None = None
    asked_who = False
    progress = progress_of(repository.session, repository.reference.host)
    while limit is None or len(events) < limit:
        began = time.monotonic()
        query: dict[str, str | int] = {**bounds} if tag is None else {"tag": tag, **bounds}
        query["n"] = _PAGE if limit is None else min(_PAGE, limit - len(events))
        if before is not None:
            query["before"] = before
        with repository.request("GET", f"_digestry/journal?{urlencode(query)}") as response:
            if response.status in _UNSUPPORTED:
                return None
            if response.status != 200:
                response.fail(f"get the journal of {repository.reference.name}")
            page: JournalPage = response.json(JournalPage, _LARGEST_PAGE, dec_hook=decode_hook)
        if not page.entries:
            break
        oldest = page.entries[-1]
        if oldest.withheld and not asked_who:
            asked_who = True
            if _log_in(repository):
                continue
        if events and oldest.at >= events[-1].at:
            raise ProtocolViolation(f"{response.host} sent a journal whose entries are not in order")
        events += page.entries
        # Who may not audit the repository is told no numbers; no two entries have the same time.
        before = rfc3339(oldest.at) if oldest.sequence is None else oldest.sequence
        progress.page(len(page.entries), time.monotonic() - began)
        numbered = oldest.sequence is not None
        if oldest.sequence == 1 or (not numbered and next_link(response.headers.get("Link")) is None):
            break  # the registry's very first entry, or the last one of a list
    # A registry that does not know the bounds sends what is outside of them as well.
    events = [event for event in events if within(event, since, until)]
    return events if limit is None else events[:limit]


def _log_in(repository: Repository) -> bool:
    """Finds out who asks, where everybody may pull and so nobody was asked; whether that is any news."""
    session, host = repository.session, repository.reference.host
    if session.authenticated(host):
        return False
    try:
        with repository.request("GET", f"{session.transport.base(host)}/v2/") as response:
            return response.status == 200 and session.authenticated(host)
    except Unauthorized:
        return False  # what was told to nobody in particular is what can be told


def within(event: TagEvent, since: datetime.datetime | None, until: datetime.datetime | None) -> bool:
    """Whether the event is between two times, both inclusive."""
    return (since is None or event.at >= since) and (until is None or event.at <= until)


def holders(repository: Repository, digest: Digest) -> Holders | None:
    """See :meth:`Repository.holders`."""
    if _lacks(repository, "holders/<digest>"):
        return None
    with repository.request("GET", f"_digestry/holders/{digest}") as response:
        if response.status in _UNSUPPORTED:
            return None
        if response.status != 200:
            response.fail(f"ask who holds {repository.display_name(str(digest))}")
        found: Holders = response.json(Holders, _LARGEST_PAGE, dec_hook=decode_hook)
    return found


def _lacks(repository: Repository, endpoint: str) -> bool:
    """Whether the registry, if it was asked for its extensions, did not name this one."""
    return lacks(repository.session, repository.reference.host, f"_digestry/{endpoint}")


def tag_at(repository: Repository, tag: str, at: datetime.datetime) -> TagSpan | None:
    """See :meth:`Repository.tag_at`."""
    with repository.request("GET", f"_digestry/tag/{tag}?{urlencode({'at': rfc3339(at)})}") as response:
        if response.status == 200:
            found: TagAsOf = response.json(TagAsOf, _LARGEST_PAGE, dec_hook=decode_hook)
            return found.span
        if response.status not in _UNSUPPORTED:
            response.fail(f"ask what {repository.display_name(tag)} was at {rfc3339(at)}")
        _fail_if_known(response, f"find {repository.display_name(tag)} at {rfc3339(at)}")
    events = tag_history(repository, tag)
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
        f"there was no tag {tag} in {repository.reference.name} at {rfc3339(at)}",
        status=404,
        code=_NO_SUCH_TAG,
    )


def _fail_if_known(response: Response, action: str) -> None:
    """Raises if a 404 is about the tag; one about the path is of a registry without that endpoint."""
    try:
        response.fail(action)
    except RemoteNotFound as error:
        if error.code == _NO_SUCH_TAG:
            raise
    except Refused as error:
        if error.status not in _UNSUPPORTED:
            raise


def tags_at(repository: Repository, at: datetime.datetime) -> list[TagSpan] | None:
    """See :meth:`Repository.tags_at`."""
    spans: list[TagSpan] = []
    for response in pages(repository, f"_digestry/tags?{urlencode({'at': rfc3339(at), 'n': _PAGE})}"):
        if response.status in _UNSUPPORTED:
            return None
        if response.status != 200:
            response.fail(f"list the tags of {repository.reference.name} at {rfc3339(at)}")
        found: TagsAsOf = response.json(TagsAsOf, _LARGEST_PAGE, dec_hook=decode_hook)
        response.entries = len(found.tags)
        spans += found.tags
    return spans


def tags_for_digest(repository: Repository, digest: Digest, limit: int | None) -> list[TagSpan] | None:
    """See :meth:`Repository.tags_for_digest`."""
    if _lacks(repository, "whose/<digest>"):
        return None
    spans: list[TagSpan] = []
    number = _PAGE if limit is None else min(_PAGE, limit)
    for response in pages(repository, f"_digestry/whose/{digest}?n={number}"):
        if response.status in _UNSUPPORTED:
            return None
        if response.status != 200:
            response.fail(f"ask whose {repository.display_name(str(digest))} is")
        found: TagsForDigest = response.json(TagsForDigest, _LARGEST_PAGE, dec_hook=decode_hook)
        response.entries = len(found.spans)
        spans += found.spans
        if limit is not None and len(spans) >= limit:
            return spans[:limit]
    return spans


def restore(repository: Repository, tag: str, wanted: Digest | datetime.datetime) -> Restored | None:
    """See :meth:`Repository.restore`."""
    query = {"to": str(wanted)} if isinstance(wanted, Digest) else {"at": rfc3339(wanted)}
    path = f"_digestry/restore/{tag}?{urlencode(query)}"
    with repository.request("POST", path, push=True) as response:
        if response.status == 200:
            found: Restored = response.json(Restored, _LARGEST_PAGE, dec_hook=decode_hook)
            return found
        action = f"restore {repository.display_name(tag)}"
        if response.status not in _UNSUPPORTED:
            response.fail(action)
        _fail_if_known(response, action)
    return None
