"""Bulk resolution: the wire forms of ``POST /v2/_digestry/resolve`` (docs/http-api.md).

The registry and the client, which never import each other, both find them here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.history import Holder, TagEvent, TagSpan
from digestry.model.image_parts import LayerImage, PartReferrers

MOST_QUERIES: Final = 500
"""Repositories that one request may ask about."""
MOST_THINGS: Final = 4000
"""Digests, tags and prefixes that one request may ask about, all together."""
LARGEST_REQUEST: Final = 1 << 20
"""In bytes."""
MOST_EVENTS: Final = 100
"""The most events of one tag in an answer; :attr:`TagState.more` means that there are others."""
MOST_SPANS: Final = 100
"""Times that tags came to one node; of a node with more, an answer has none."""
SHORTEST_PREFIX: Final = 12
"""Hex digits, as ``docker ps`` shows them."""

Prefix = Annotated[str, msgspec.Meta(pattern=rf"^[0-9a-f]{{{SHORTEST_PREFIX},128}}\Z")]


class ResolveQuery(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A query about one repository. ``prefixes`` are prefixes of digests, without the algorithm."""

    repository: str
    digests: tuple[Digest, ...] = ()
    tags: tuple[str, ...] = ()
    prefixes: tuple[Prefix, ...] = ()

    @property
    def things(self) -> int:
        """The number of requested digests, tags and prefixes."""
        return len(self.digests) + len(self.tags) + len(self.prefixes)


class ResolveRequest(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The body of a request. ``contents`` asks for the bytes of indexes and advisories, too."""

    queries: tuple[ResolveQuery, ...]
    contents: bool = False


class TagState(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A tag: where it points now (None: there is no such tag), and its newest events, newest first.

    An event's origin is only its ``actor``. ``more`` means that there are older events. ``served`` is the
    digest that a pull by the tag gets where a minimum age makes it another one than the target; ``refused``:
    it gets none.
    """

    tag: str
    target: Descriptor | None = None
    events: tuple[TagEvent, ...] = ()
    more: bool = False
    served: Digest | None = None
    refused: bool = False


class Resolution(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The answer to one query. A digest or tag that is not in it was not looked up: a query for it alone is
    possible.

    ``nodes`` are manifests and indexes, each once. ``holders`` lists, for a requested digest or one that
    belongs to it, all nodes that are or hold it; none if the repository never had it. ``referrers`` lists the
    referrers of a node, newest first. ``prefixes`` lists a few digests with each prefix. ``spans`` lists the
    tags that point, or pointed, to a node itself, newest first.

    ``parts`` lists, for each image among the nodes, its layers and config that something refers to, in any
    repository that the client may see, and ``part_referrers`` what that is. ``bases`` has the image that
    each of those layers came with: the one with the fewest layers. ``upstream`` means that the repository is
    a copy of another registry's, which may know more referrers.
    """

    repository: str
    nodes: tuple[Holder, ...] = ()
    holders: dict[str, tuple[Digest, ...]] = msgspec.field(default_factory=dict)
    tags: tuple[TagState, ...] = ()
    referrers: dict[str, tuple[Descriptor, ...]] = msgspec.field(default_factory=dict)
    prefixes: dict[str, tuple[Digest, ...]] = msgspec.field(default_factory=dict)
    spans: dict[str, tuple[TagSpan, ...]] = msgspec.field(default_factory=dict)
    parts: dict[str, tuple[Digest, ...]] = msgspec.field(default_factory=dict)
    part_referrers: tuple[PartReferrers, ...] = ()
    bases: dict[str, LayerImage] = msgspec.field(default_factory=dict)
    upstream: bool = False


class Resolutions(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The body of a response: ``resolutions`` answers the queries in their order.

    The last ones may be missing if the response became too long. ``contents`` are manifests and small blobs
    by digest, as text, which their user verifies; some of the requested ones may be missing.
    """

    resolutions: tuple[Resolution, ...]
    contents: dict[str, str] = msgspec.field(default_factory=dict)


def batch(queries: Sequence[ResolveQuery]) -> int:
    """Return how many of the first ``queries`` fit into one request; at least one of any."""
    things = size = 0
    for position, query in enumerate(queries[:MOST_QUERIES]):
        things += query.things
        size += 40 + len(query.repository) + sum(map(_length, (*query.digests, *query.tags, *query.prefixes)))
        if position and (things > MOST_THINGS or size > LARGEST_REQUEST // 2):
            return position
    return min(len(queries), MOST_QUERIES)


def _length(thing: object) -> int:
    return len(str(thing)) + 3
