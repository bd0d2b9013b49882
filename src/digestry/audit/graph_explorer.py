"""The explorer of a repository's graph, which asks the registry for the nodes that one image needs.

Every method raises what the queries raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from digestry.audit.image_graph import ImageGraph, ImageNode, runnable
from digestry.audit.registry_queries import RegistryQueries
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.platform import Platform
from digestry.model.reference import Reference

MOST_CHILDREN: Final = 64
"""Children of one index that are read, in a registry without the query for holders."""
MOST_TAGS: Final = 32
"""Other tags that are read there, to find an image by its config."""


@dataclass(frozen=True, slots=True)
class GraphExplorer:
    """An explorer that adds the nodes of the repository's registry to ``graph``."""

    queries: RegistryQueries
    graph: ImageGraph

    @classmethod
    def of(cls, queries: RegistryQueries, repository: Reference) -> GraphExplorer:
        """Return an explorer with an empty graph."""
        return cls(queries, ImageGraph(repository))

    @property
    def repository(self) -> Reference:
        """Return the repository whose graph this is."""
        return self.graph.repository

    @property
    def nodes(self) -> dict[Digest, ImageNode]:
        """Return the known nodes, by digest."""
        return self.graph.nodes

    def explore(self, digest: Digest, *, is_config: bool = False) -> bool:
        """Add everything that is or holds ``digest``; return False if the repository never had it."""
        holders = self.queries.holders(self.repository, digest)
        if holders is not None:
            self.graph.complete = True
            for holder in holders.holders:
                self.graph.add_holder(holder)
            return bool(holders.holders)
        if digest in self.nodes or self.graph.has_config({digest}):
            return True
        manifest = None if is_config else self.queries.manifest(self.repository, digest)
        if manifest is None:
            return False
        self.graph.add(manifest)
        return True

    def expand_children(self, index: Digest, platform: Platform | None) -> None:
        """Add an index's children, those of ``platform`` alone if it is known."""
        for child in self.images_of(index, platform)[:MOST_CHILDREN]:
            self.explore(child)

    def expand(self, digest: Digest, platform: Platform | None) -> bool:
        """Add ``digest``, and its children if it is an index; return False if the repository never had it."""
        known = self.explore(digest)
        node = self.nodes.get(digest)
        if known and node is not None and node.is_index:
            self.expand_children(digest, platform)
        return known

    def images_of(self, index: Digest, platform: Platform | None) -> list[Digest]:
        """Return the images of an index, and of the indexes in it, that may run on ``platform``, or on any if
        it is None; add the inner indexes."""
        found: dict[Digest, None] = {}
        seen = {index}
        level = [index]
        while level:
            inner: list[Digest] = []
            for member in level:
                manifest = self.queries.manifest(self.repository, member)
                if manifest is None:
                    found.setdefault(member)  # its content is unknown
                    continue
                if member not in self.nodes:
                    self.graph.add(manifest)
                indexes = {e.digest for e in manifest.manifests if e.media_type in media_types.INDEXES}
                for digest in runnable(manifest, platform):
                    if digest not in indexes:
                        found.setdefault(digest)
                    elif digest not in seen and len(seen) <= MOST_CHILDREN:
                        seen.add(digest)
                        inner.append(digest)
            level = inner
        return list(found)

    def unknown_inside(self, index: Digest) -> Digest | None:
        """Return a digest that an index lists, at any depth, and that the registry never had; None if the
        registry had all. Add the nodes that it had."""
        pending = list(self._children(index))
        seen: set[Digest] = set()
        while pending:
            child = pending.pop()
            if child in seen:
                continue
            seen.add(child)
            if child not in self.nodes and not self.explore(child):
                return child
            pending += self._children(child)
        return None

    def _children(self, digest: Digest) -> tuple[Digest, ...]:
        node = self.nodes.get(digest)
        return () if node is None else node.children


@dataclass(frozen=True, slots=True)
class PrefixMatches:
    """The digests of a repository that have one prefix, a few at most.

    ``among`` says which digests were looked at, if not all.
    """

    digests: tuple[Digest, ...]
    among: str = ""


def digests_with_prefix(queries: RegistryQueries, repository: Reference, encoded: str) -> PrefixMatches:
    """Return the manifests, indexes and configs whose digests begin with the hex digits ``encoded``.

    If the registry has no such query, search the digests that its first tags point, and pointed, to.
    """
    known = queries.digests_with_prefix(repository, encoded)
    if known is not None:
        return PrefixMatches(known)
    explorer = GraphExplorer.of(queries, repository)
    names = queries.tags(repository, most=MOST_TAGS)
    digests: set[Digest] = set()
    for name in names:
        target = queries.resolve(repository, name)
        if target is not None:
            explorer.expand(target.digest, None)
        events = queries.tag_history(repository, name) or ()
        digests.update(event.to_digest for event in events if event.to_digest is not None)
    digests |= explorer.nodes.keys()
    digests |= {node.config for node in explorer.nodes.values() if node.config is not None}
    found = sorted(digest for digest in digests if digest.encoded.startswith(encoded))
    return PrefixMatches(tuple(found), f", as far as its first {len(names)} tags tell,")
