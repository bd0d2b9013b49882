"""The history of tags: journal entries, spans, and the holders of a digest.

These are also the wire forms of the ``_digestry`` endpoints (docs/http-api.md), which the registry and the
client share without importing each other.
"""

from __future__ import annotations

import datetime
from typing import Final, Literal

import msgspec

from digestry.model.descriptor import Size
from digestry.model.digest import Digest
from digestry.model.timestamps import rfc3339

TAG_TIMESTAMP: Final = "org.opencontainers.distribution.tag.timestamp"
"""Annotation of a tag-history entry: when (RFC 3339). opencontainers/distribution-spec#606."""
TAG_EVENT: Final = "org.opencontainers.distribution.tag.event"
"""Annotation of a tag-history entry: ``created`` or ``deleted``. opencontainers/distribution-spec#606."""

TAG_OBSERVED: Final = "digestry.tag.observed"
"""Annotation of a tag-history entry that a mirror made: the registry that it saw the tag in."""

MIRROR: Final = "mirror:"
"""The beginning of the actor of events that were seen in another registry."""

EventKind = Literal["created", "moved", "deleted", "allowed", "revoked"]
"""``allowed`` and ``revoked`` are no moves, but acts: a digest is let through before its minimum age, or no
longer (docs/min-age.md)."""
ACT_MARK: Final = "@"
"""Stands before the tag of an entry that is an act: no tag has it, so that no question about a tag finds the
entry."""


class TagEvent(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One entry of the journal: who moved which tag from which digest to which, when, from where.

    ``created`` has no ``from_digest``, ``deleted`` no ``to_digest``. ``media_type`` and ``size`` (bytes) are
    of the manifest that the tag came to, or, for ``deleted``, that it left. ``actor`` is the authenticated
    user, or ``anonymous``; ``address`` where the request came from; ``client`` its User-Agent, which any
    client may choose. ``number`` counts a repository's entries from 1; an entry from before there were
    numbers has none. ``sequence`` is the entry's position in the registry, from 1; a registry of several
    nodes gives it a moment later. ``hash`` covers this entry and ``previous_hash``, that of the entry before
    it. ``not_before``, of a move in another registry: when the tag was last seen unmoved there, so that it
    moved between then and ``at``; of one that had to be dated after the entry before it: what the clock said.
    ``reason`` is the user's, of an act that needs one: of ``allowed`` and
    ``revoked``, which have the digest as ``from_digest``, and :data:`ACT_MARK` before the tag, either of
    which may be missing: then it is about any. ``withheld`` means
    that the registry does not show this reader the fields from ``actor`` on, except ``number``.
    """

    at: datetime.datetime
    repository: str
    tag: str
    event: EventKind
    from_digest: Digest | None = None
    to_digest: Digest | None = None
    media_type: str = ""
    size: Size = 0
    actor: str = ""
    address: str = ""
    client: str = ""
    number: int | None = None
    sequence: int | None = None
    previous_hash: str = ""
    hash: str = ""
    withheld: bool = False
    not_before: datetime.datetime | None = None
    reason: str | None = None

    @property
    def observed_in(self) -> str:
        """The upstream in which a pull-through registry saw this; empty for a push to this registry.

        A mirror checks a tag when it is requested: moves in between are not recorded.
        """
        return self.actor.removeprefix(MIRROR) if self.actor.startswith(MIRROR) else ""


def observer(host: str) -> str:
    """Return the actor of the events that a pull-through registry records of its upstream ``host``."""
    return f"{MIRROR}{host}"


def tag_history_entry(event: TagEvent) -> dict[str, object]:
    """Return an event as an entry of a tag's history (opencontainers/distribution-spec#606), as JSON."""
    gone = event.event == "deleted"
    annotations = {TAG_TIMESTAMP: rfc3339(event.at), TAG_EVENT: "deleted" if gone else "created"}
    if event.observed_in:
        annotations[TAG_OBSERVED] = event.observed_in
    return {
        "mediaType": event.media_type,
        "digest": str(event.from_digest if gone else event.to_digest),
        "size": event.size,
        "annotations": annotations,
    }


class JournalPage(msgspec.Struct, frozen=True, rename="camel"):
    """``GET /v2/<name>/_digestry/journal``: entries, newest first."""

    repository: str
    entries: tuple[TagEvent, ...]


class Holder(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A manifest or index that a registry knows. ``present`` is whether it can still be pulled.

    ``config`` is an image manifest's config; ``manifests`` are an index's children.
    """

    digest: Digest
    media_type: str
    size: Size
    present: bool = True
    config: Digest | None = None
    manifests: tuple[Digest, ...] = ()


class Holders(msgspec.Struct, frozen=True, rename="camel"):
    """``GET /v2/<name>/_digestry/holders/<digest>``: the holders of this digest in this repository.

    ``holders`` are all manifests that are the digest, have it as their config, or are indexes that list one
    of these, directly or through other indexes. Overwritten and untagged ones are included. Empty if the
    repository never had it.
    """

    digest: Digest
    holders: tuple[Holder, ...]


class TagSpan(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A span in which a tag pointed to a digest. ``until`` is when it moved away, or was deleted; ``still``
    means that it has not. ``sequence`` is the position of the journal's entry that moved it there.
    ``repository`` is given where an answer is about several."""

    tag: str
    digest: Digest
    since: datetime.datetime
    still: bool
    until: datetime.datetime | None = None
    media_type: str = ""
    size: Size = 0
    sequence: int | None = None
    repository: str = ""


class TagAsOf(msgspec.Struct, frozen=True, rename="camel"):
    """``GET /v2/<name>/_digestry/tag/<tag>?at=…``: the digest that a tag pointed to at a time."""

    repository: str
    at: datetime.datetime
    span: TagSpan


class TagsAsOf(msgspec.Struct, frozen=True, rename="camel"):
    """``GET /v2/<name>/_digestry/tags?at=…``: the tags of a repository at a time."""

    repository: str
    at: datetime.datetime
    tags: tuple[TagSpan, ...]


class TagsForDigest(msgspec.Struct, frozen=True, rename="camel"):
    """``GET /v2/<name>/_digestry/whose/<digest>``: which tags point, or pointed, to ``digest``, or to
    an index or image that holds it; newest first. Each span's own digest is what the tag pointed to.

    ``GET /v2/_digestry/whose/<digest>`` is the same for all repositories that the client may see.
    """

    digest: Digest
    spans: tuple[TagSpan, ...]


class DigestsWithPrefix(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """``GET /v2/<name>/_digestry/digests/<prefix>``: the manifests, indexes and configs that the repository
    has or had whose digests begin with ``prefix``, in the order of their text; ``more`` means that there are
    others.

    ``GET /v2/_digestry/digests/<prefix>`` is the same for all repositories that the client may see.
    """

    prefix: str
    digests: tuple[Digest, ...]
    more: bool = False


class Restored(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """``POST /v2/<name>/_digestry/restore/<tag>``: the digest that the tag pointed to, and the one that it
    points to now. ``event`` is the journal's entry, None if nothing had to change."""

    repository: str
    tag: str
    to_digest: Digest
    from_digest: Digest | None = None
    event: TagEvent | None = None
