"""What a registry remembers: tag history (the draft) and digestry's own journal and holders."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from digestry.client.paging import pages
from digestry.errors import InvalidManifest, ProtocolViolation
from digestry.model import media_types
from digestry.model.descriptor import Descriptor, decode_hook
from digestry.model.digest import Digest, shown
from digestry.model.history import TAG_EVENT, TAG_TIMESTAMP, Holders, JournalPage, TagEvent
from digestry.model.manifest import Manifest

if TYPE_CHECKING:
    from digestry.client.repository import Repository

_LARGEST_PAGE: Final = 16 << 20
_PAGE: Final = 1000
_UNSUPPORTED: Final = frozenset({404, 405, 501})


def tag_history(repository: Repository, tag: str) -> list[TagEvent] | None:
    """See :meth:`Repository.tag_history`."""
    entries: list[Descriptor] = []
    for answer in pages(repository, f"_oci/tag-history/{tag}"):
        if answer.status in _UNSUPPORTED:
            return None
        if answer.status != 200:
            answer.fail(f"get the history of {repository.named(tag)}")
        try:
            entries += Manifest.parse(answer.read(_LARGEST_PAGE), media_types.OCI_INDEX).manifests
        except InvalidManifest as error:
            raise ProtocolViolation(f"{answer.host} sent no tag history: {error.message}") from error
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
            f"the history of {repository.named(tag)} has an entry without time"
        ) from error
    if at.tzinfo is None:
        at = at.replace(tzinfo=datetime.UTC)
    if kind == "deleted":
        return TagEvent(
            at, repository.reference.repository, tag, "deleted", current or entry.digest, None,
            entry.media_type, entry.size,
        )  # fmt: skip
    if kind != "created":
        raise ProtocolViolation(f"the history of {repository.named(tag)} has an event {shown(kind)}")
    return TagEvent(
        at, repository.reference.repository, tag, "created" if current is None else "moved", current,
        entry.digest, entry.media_type, entry.size,
    )  # fmt: skip


def journal(repository: Repository, tag: str | None, limit: int | None) -> list[TagEvent] | None:
    """See :meth:`Repository.journal`."""
    events: list[TagEvent] = []
    before: int | None = None
    while limit is None or len(events) < limit:
        query: dict[str, str | int] = {} if tag is None else {"tag": tag}
        query["n"] = _PAGE if limit is None else min(_PAGE, limit - len(events))
        if before is not None:
            query["before"] = before
        with repository.ask("GET", f"_digestry/journal?{urlencode(query)}") as answer:
            if answer.status in _UNSUPPORTED:
                return None
            if answer.status != 200:
                answer.fail(f"get the journal of {repository.reference.name}")
            page: JournalPage = answer.json(JournalPage, _LARGEST_PAGE, dec_hook=decode_hook)
        if not page.entries:
            break
        last = page.entries[-1].sequence
        if last is None or (before is not None and last >= before):
            raise ProtocolViolation(f"{answer.host} sent a journal whose entries are not in order")
        events += page.entries
        before = last
        if last <= 1:
            break  # the registry's very first entry
    return events if limit is None else events[:limit]


def holders(repository: Repository, digest: Digest) -> Holders | None:
    """See :meth:`Repository.holders`."""
    with repository.ask("GET", f"_digestry/holders/{digest}") as answer:
        if answer.status in _UNSUPPORTED:
            return None
        if answer.status != 200:
            answer.fail(f"ask who holds {repository.named(str(digest))}")
        found: Holders = answer.json(Holders, _LARGEST_PAGE, dec_hook=decode_hook)
    return found
