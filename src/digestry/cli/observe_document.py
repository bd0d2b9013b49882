"""The JSON document of ``digestry observe report``; fields are the JSON's keys."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from digestry.model.descriptor import decode_hook, encode_hook
from digestry.model.digest import Digest
from digestry.model.history import EventKind
from digestry.model.json_types import prepared
from digestry.model.observations import Concern, Likeness, ObservationReport


class Repository(Struct, frozen=True):
    """A repository that is observed. `interval` and `late` are in seconds."""

    name: str
    repository: str
    patterns: Sequence[str]
    interval: float
    keep: bool
    tags: int = 0
    late: float = 0.0


class Facts(Struct, frozen=True):
    """What both images of a move show."""

    version_tag: bool = False
    pointed_until: datetime.datetime | None = None
    author: Likeness = "unknown"
    base: Likeness = "unknown"
    shared_layers: int = 0
    layers: int = 0
    created_before: str | None = None
    created_after: str | None = None
    platforms_lost: Sequence[str] = ()
    platforms_gained: Sequence[str] = ()
    attachments: Sequence[str] = ()
    attachments_lost: Sequence[str] = ()
    concerns: Sequence[Concern] = ()
    unknown: Sequence[str] = ()


class Place(Struct, frozen=True):
    """A place that runs so many containers of an image, or was last seen to."""

    place: str
    containers: int
    last_at: datetime.datetime


class Move(Struct, frozen=True):
    """A move, which happened between `not_before` and `at`."""

    name: str
    repository: str
    tag: str
    event: EventKind
    at: datetime.datetime
    entry: int
    not_before: datetime.datetime | None = None
    from_digest: Digest | None = None
    to_digest: Digest | None = None
    facts: Facts | None = None
    running_before: Sequence[Place] = ()
    running_after: Sequence[Place] = ()


class Gap(Struct, frozen=True):
    """A time in which nothing is known of a tag, or of the list of tags (an empty `tag`)."""

    name: str
    repository: str
    tag: str
    since: datetime.datetime
    until: datetime.datetime | None = None
    reason: str = ""


class Document(Struct, frozen=True):
    """What was observed in other registries."""

    since: datetime.datetime
    at: datetime.datetime
    repositories: Sequence[Repository]
    moves: Sequence[Move]
    gaps: Sequence[Gap]
    more_moves: bool
    more_gaps: bool


def document_of(report: ObservationReport) -> Document:
    """Return the document of a report."""
    plain = _renamed(msgspec.to_builtins(report, enc_hook=encode_hook))
    return msgspec.convert(plain, prepared(Document), dec_hook=decode_hook)


def _renamed(value: Any) -> Any:
    """Return JSON with the keys' words divided by underscores. Any: it is JSON."""
    if isinstance(value, dict):
        return {re.sub("([A-Z])", r"_\1", key).lower(): _renamed(inner) for key, inner in value.items()}
    return [_renamed(inner) for inner in value] if isinstance(value, list | tuple) else value
