"""Sightings: the wire forms of ``_digestry/sightings`` (docs/http-api.md).

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
"""The most sightings in one request."""
LARGEST_REQUEST: Final = 8 << 20
"""In bytes."""
MOST_REPOSITORIES: Final = 200
"""The most sightings that a client sends at once."""
LONGEST_PLACE: Final = 256
"""In characters."""
MOST_CONTAINERS: Final = 1 << 31

SourceLocation = Annotated[
    str, msgspec.Meta(min_length=1, max_length=LONGEST_PLACE, pattern=r"^[^\x00-\x1f\x7f]+\Z")
]
Containers = Annotated[int, msgspec.Meta(ge=1, le=MOST_CONTAINERS)]


class SightingReport(msgspec.Struct, frozen=True, rename="camel"):
    """So many containers at a place run this digest: a manifest's, an index's or a config's."""

    repository: str
    digest: Digest
    place: SourceLocation
    containers: Containers


class SightingsRequest(msgspec.Struct, frozen=True, rename="camel"):
    """The body of a report: each digest of a repository and place once."""

    sightings: tuple[SightingReport, ...]


class SightingsReceipt(msgspec.Struct, frozen=True, rename="camel"):
    """The response to a report.

    ``unknown`` are those of digests that their repository never had, ``refused`` those that there is no room
    for.
    """

    noted: int = 0
    unknown: int = 0
    refused: int = 0

    def __add__(self, other: SightingsReceipt) -> SightingsReceipt:
        return SightingsReceipt(
            self.noted + other.noted, self.unknown + other.unknown, self.refused + other.refused
        )


class Sighting(msgspec.Struct, frozen=True, rename="camel"):
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
    sightings: tuple[Sighting, ...] = ()


def as_place(text: str) -> str:
    """Return ``text``, which a source of containers may have sent, as the name of a place."""
    return printable(text)[:LONGEST_PLACE] or "?"


def batch(sightings: Sequence[SightingReport]) -> int:
    """Return how many of the first ``sightings`` fit into one request; at least one of any.

    They are of so few repositories that one token can be requested for all of them.
    """
    size = 0
    repositories: set[str] = set()
    for position, sighting in enumerate(sightings[:MOST_SIGHTINGS]):
        repositories.add(sighting.repository)
        # A character takes 4 bytes at most.
        size += 250 + len(sighting.repository) + 4 * len(sighting.place)
        if position and (size > LARGEST_REQUEST or len(repositories) > MOST_REPOSITORIES):
            return position
    return min(len(sightings), MOST_SIGHTINGS)
