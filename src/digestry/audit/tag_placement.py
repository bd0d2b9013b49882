"""The placement of an image: the indexes that hold it, the tags that point to it, and those that did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from digestry.audit.image_identity import ImageIdentity
from digestry.audit.registry_queries import RegistryQueries
from digestry.audit.tag_verdict import TagVerdict
from digestry.model.digest import Digest
from digestry.model.history import TagSpan
from digestry.model.reference import Reference

MOST_PAST: Final = 100
"""Times that tags pointed there, the newest."""


@dataclass(frozen=True, slots=True)
class TagPlacement:
    """``indexes`` hold the image that runs. ``tags`` point to it, or to one of them; None if that is not
    known.

    ``past`` are the times, now over, that a tag pointed there, newest first; None if the registry keeps no
    history.
    """

    indexes: tuple[Digest, ...] = ()
    tags: tuple[str, ...] | None = None
    past: tuple[TagSpan, ...] | None = None


NOWHERE: Final = TagPlacement()


def find_tag_placement(
    queries: RegistryQueries, identity: ImageIdentity, reference: Reference | None, tag: TagVerdict
) -> TagPlacement:
    """Return the placement in the registry that confirmed ``identity``; if that has no query for all tags,
    only the container's own tag is checked. Raises what the queries raise."""
    graph = identity.graph
    inside = (node for node in graph.nodes.values() if node.digest in identity.closure)
    indexes = tuple(sorted(node.digest for node in inside if node.is_index))
    spans = None
    if identity.confirmed and graph.complete:
        spans = queries.tags_for_digest(
            identity.repository, identity.config or identity.manifest or identity.running
        )
    if spans is not None:
        pointing = tuple(sorted({span.tag for span in spans if span.still}))
        return TagPlacement(indexes, pointing, tuple(span for span in spans if not span.still)[:MOST_PAST])
    if tag.state == "current" and reference is not None and reference.tag is not None:
        return TagPlacement(indexes, (reference.tag,))
    return TagPlacement(indexes)
