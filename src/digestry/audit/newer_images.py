"""Newer images of a repository, to run in place of one with a bad layer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from digestry.audit.image_identity import ImageIdentity
from digestry.audit.registry_queries import RegistryQueries
from digestry.audit.tag_verdict import TagFacts
from digestry.model.digest import Digest
from digestry.model.reference import Reference

MOST_TAGS: Final = 32
"""Tags of a repository that are looked at."""
_ATTACHMENT: Final = re.compile(r"sha(256|512)-[0-9a-f]{64,128}(\.[a-z]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class TaggedImage:
    """An image, ``REPOSITORY@DIGEST``, and the tag that points to it now."""

    image: Reference
    tag: str


def newer_images(queries: RegistryQueries, identity: ImageIdentity, tag: TagFacts) -> Iterator[TaggedImage]:
    """Yield the images to which tags point, and that came to them after the one that runs: that of the
    container's own ``tag`` first, then the newest. Only a registry with a tag history knows others.

    Raises what the queries raise.
    """
    repository = identity.repository
    seen: set[Digest] = set(identity.closure)
    own, target = tag.reference, tag.target
    if own is not None and own.repository_only() == repository and target is not None and target not in seen:
        seen.add(target)
        yield TaggedImage(repository.with_digest(target), own.tag or "latest")
    spans = queries.tags_for_digest(repository, identity.running)
    if not spans:
        return
    first = min(span.since for span in spans)
    names = [name for name in queries.tags(repository, most=MOST_TAGS) if not _ATTACHMENT.fullmatch(name)]
    queries.prefetch_tags(repository, names)
    later = []
    for name in names:
        pointed = queries.resolve(repository, name)
        events = queries.tag_history(repository, name) if pointed is not None else None
        if pointed is not None and events and events[0].at > first:
            later.append((events[0].at, name, pointed.digest))
    for _, name, digest in sorted(later, reverse=True):
        if digest not in seen:
            seen.add(digest)
            yield TaggedImage(repository.with_digest(digest), name)
