"""What an observer found in other registries: spans, moves and what is known of them.

These are also the wire forms of ``_digestry/observations`` and ``_digestry/observed`` (docs/http-api.md).
"""

from __future__ import annotations

import datetime
from typing import Literal

import msgspec

from digestry.model.digest import Digest
from digestry.model.history import EventKind

Outcome = Literal["seen", "absent", "failed"]
Likeness = Literal["same", "changed", "unknown"]
Concern = Literal[
    "version-tag-moved",
    "version-tag-deleted",
    "moved-back",
    "platforms-lost",
    "attachments-lost",
    "author-changed",
    "base-changed",
    "created-earlier",
    "kind-changed",
]


class ObservedSpan(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A time in which all observations of a tag had one outcome. ``interval`` is in seconds; ``current``
    means that the next observation is not overdue. Between two spans nothing is known."""

    outcome: Outcome
    first_at: datetime.datetime
    last_at: datetime.datetime
    count: int
    interval: float
    digest: Digest | None = None
    reason: str = ""
    current: bool = False
    number: int = 0


class ObservedTag(msgspec.Struct, frozen=True, rename="camel"):
    """``GET /v2/<name>/_digestry/observations/<tag>``: what was observed of a tag, newest first."""

    repository: str
    tag: str
    spans: tuple[ObservedSpan, ...]


class MoveFacts(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What is known of a move by looking at both images.

    ``author``: whether both configs name the same. ``base``: whether both images begin with the same layers;
    of ``layers`` of the old image, the new one has the first ``shared_layers``. ``created_before`` and
    ``created_after`` are what the publishers wrote. ``attachments`` are signatures, attestations and other
    referrers of the new image, ``attachments_lost`` those of the old one that the new one does not have.
    ``pointed_until`` is when the tag had left this image before. ``unknown`` says what could not be looked
    at, and why.
    """

    version_tag: bool = False
    pointed_until: datetime.datetime | None = None
    author: Likeness = "unknown"
    base: Likeness = "unknown"
    shared_layers: int = 0
    layers: int = 0
    created_before: str | None = None
    created_after: str | None = None
    platforms_lost: tuple[str, ...] = ()
    platforms_gained: tuple[str, ...] = ()
    attachments: tuple[str, ...] = ()
    attachments_lost: tuple[str, ...] = ()
    concerns: tuple[Concern, ...] = ()
    unknown: tuple[str, ...] = ()


class RunningPlace(msgspec.Struct, frozen=True, rename="camel"):
    """A place that runs, or was last seen to run, so many containers of an image."""

    place: str
    containers: int
    last_at: datetime.datetime


class UpstreamMove(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A move of a tag in another registry, which happened between ``not_before`` and ``at``.

    ``name`` is the repository there, ``repository`` the one here; ``entry`` is the number of the journal's
    entry. ``facts`` are missing until both images were looked at. ``running_before`` are the places here that
    run the old image, ``running_after`` those that run the new one.
    """

    name: str
    repository: str
    tag: str
    event: EventKind
    at: datetime.datetime
    entry: int
    not_before: datetime.datetime | None = None
    from_digest: Digest | None = None
    to_digest: Digest | None = None
    facts: MoveFacts | None = None
    running_before: tuple[RunningPlace, ...] = ()
    running_after: tuple[RunningPlace, ...] = ()


class ObservationGap(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A time in which nothing is known of a tag, or (empty ``tag``) of the list of tags. Without ``until`` it
    lasts. ``reason`` is why requests failed, or empty if none was sent."""

    name: str
    repository: str
    tag: str
    since: datetime.datetime
    until: datetime.datetime | None = None
    reason: str = ""


class ObservedRepositoryState(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A repository that is observed. ``interval`` is in seconds; ``tags`` are how many tags are observed;
    ``late`` is for how many seconds the tag is overdue that is overdue for the longest."""

    name: str
    repository: str
    patterns: tuple[str, ...]
    interval: float
    keep: bool
    tags: int = 0
    late: float = 0.0


class ObservationReport(msgspec.Struct, frozen=True, rename="camel"):
    """``GET /v2/_digestry/observed``: what is observed, what moved since a time, and what is not known.

    ``more_moves`` and ``more_gaps`` mean that there are others, older ones.
    """

    since: datetime.datetime
    at: datetime.datetime
    repositories: tuple[ObservedRepositoryState, ...]
    moves: tuple[UpstreamMove, ...]
    gaps: tuple[ObservationGap, ...]
    more_moves: bool = False
    more_gaps: bool = False
