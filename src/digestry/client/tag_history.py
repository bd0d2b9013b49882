"""The history of a tag, from the endpoint that a draft of the spec has (distribution-spec#606)."""

from __future__ import annotations

import datetime
from typing import Final

from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.extensions import UNSUPPORTED
from digestry.client.paging import pages
from digestry.errors import InvalidManifest, ProtocolViolation
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest, shown
from digestry.model.history import TAG_EVENT, TAG_OBSERVED, TAG_TIMESTAMP, TagEvent, observer
from digestry.model.manifest import Manifest

_LARGEST_PAGE: Final = 16 << 20


def tag_history(endpoint: RepositoryEndpoint, tag: str) -> list[TagEvent] | None:
    """Return where ``tag`` has pointed, newest first. See :meth:`Repository.tag_history`."""
    entries: list[Descriptor] = []
    for response in pages(endpoint, f"_oci/tag-history/{tag}"):
        if response.status in UNSUPPORTED:
            return None
        if response.status != 200:
            response.fail(f"get the history of {endpoint.display_name(tag)}")
        try:
            page = Manifest.parse(response.read(_LARGEST_PAGE), media_types.OCI_INDEX)
        except InvalidManifest as error:
            raise ProtocolViolation(f"{response.host} sent no tag history: {error.message}") from error
        if not page.manifests and not entries and TAG_OBSERVED in (page.annotations or {}):
            return None  # a mirror that never requested the tag has no history of it
        response.entries = len(page.manifests)
        entries += page.manifests
    events: list[TagEvent] = []
    current: Digest | None = None
    for entry in reversed(entries):
        event = _event(endpoint, tag, entry, current)
        events.append(event)
        current = event.to_digest
    return events[::-1]


def _event(endpoint: RepositoryEndpoint, tag: str, entry: Descriptor, current: Digest | None) -> TagEvent:
    """Return the event of one entry. On the wire a move is one more ``created`` after ``current``."""
    annotations = entry.annotations or {}
    kind = annotations.get(TAG_EVENT)
    try:
        at = datetime.datetime.fromisoformat(annotations[TAG_TIMESTAMP])
    except (KeyError, ValueError) as error:
        raise ProtocolViolation(
            f"the history of {endpoint.display_name(tag)} has an entry without time"
        ) from error
    if at.tzinfo is None:
        at = at.replace(tzinfo=datetime.UTC)
    seen_in = annotations.get(TAG_OBSERVED)
    actor = observer(seen_in) if seen_in else ""
    if kind == "deleted":
        return TagEvent(
            at, endpoint.repository.repository, tag, "deleted", current or entry.digest, None,
            entry.media_type, entry.size, actor,
        )  # fmt: skip
    if kind != "created":
        raise ProtocolViolation(f"the history of {endpoint.display_name(tag)} has an event {shown(kind)}")
    return TagEvent(
        at, endpoint.repository.repository, tag, "created" if current is None else "moved", current,
        entry.digest, entry.media_type, entry.size, actor,
    )  # fmt: skip
