"""What an audit tells a registry of what runs where: the wire forms of ``_digestry/sightings``
(docs/http-api.md).

The registry and the client, which never import each other, both find them here.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from digestry.model.digest import Digest
from digestry.model.text import printable

MOST_SIGHTINGS: Final = 10_000
"""That one request may tell of."""
LARGEST_REQUEST: Final = 8 << 20
"""In bytes."""
LONGEST_PLACE: Final = 256
"""In characters."""
MOST_CONTAINERS: Final = 1 << 31

Place = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_PLACE, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
Containers = Annotated[int, msgspec.Meta(ge=1, le=MOST_CONTAINERS)]


class Sighted(msgspec.Struct, frozen=True, rename="camel"):
    """So many containers at a place run this digest: a manifest's, an index's or a config's."""

    repository: str
    digest: Digest
    place: Place
    containers: Containers


class SightingsRequest(msgspec.Struct, frozen=True, rename="camel"):
    """What is told, each digest of a repository and place once."""

    sightings: tuple[Sighted, ...]


class Noted(msgspec.Struct, frozen=True, rename="camel"):
    """What became of it: ``unknown`` are those of digests that their repository never had."""

    noted: int = 0
    unknown: int = 0

    def __add__(self, other: Noted) -> Noted:
        return Noted(self.noted + other.noted, self.unknown + other.unknown)


class LastSeen(msgspec.Struct, frozen=True, rename="camel"):
    """A place where a digest ran: how many containers when it was seen there last, and when it was
    seen there first and last."""

    place: str
    containers: int
    first: datetime.datetime
    last: datetime.datetime


class SightingsOf(msgspec.Struct, frozen=True, rename="camel"):
    """Where a digest was seen, the latest first; ``places`` counts them all."""

    digest: Digest
    places: int
    sightings: tuple[LastSeen, ...] = ()


def as_place(text: str) -> str:
    """``text``, which may be anything that a source of containers said, as a place's name."""
    return printable(text)[:LONGEST_PLACE] or "?"


def batch(sightings: Sequence[Sighted], start: int = 0) -> int:
    """Where the request ends that begins with the sighting at ``start``."""
    size = 0
    most = min(len(sightings), start + MOST_SIGHTINGS)
    for position in range(start, most):
        one = sightings[position]
        # A character takes 6 bytes of JSON at most.
        size += 200 + len(one.repository) + 6 * len(one.place)
        if size > LARGEST_REQUEST // 2:
            return max(position, start + 1)
    return most
