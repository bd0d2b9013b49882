"""The part of a repository's graph, index → manifest → config, that an image needs.

Overwritten and untagged manifests belong to it, as far as the registry still knows of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from digestry.audit.registry_queries import RegistryQueries
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from digestry.model.platform import Platform, possible
from digestry.model.reference import Reference

MOST_CHILDREN: Final = 64
"""Children of one index that are looked into, in a registry that cannot say who holds what."""
MOST_TAGS: Final = 32
"""Other tags that are looked into there, to find an image of which only the config is known."""


@dataclass(frozen=True, slots=True)
class ImageNode:
    """A manifest or index that a repository has or had."""

    digest: Digest
    config: Digest | None = None
    children: tuple[Digest, ...] = ()

    @property
    def is_index(self) -> bool:
        return self.config is None


@dataclass(slots=True)
class ImageGraph:
    """The part of one repository's graph that one container needs."""

    repository: Reference
    lookup: RegistryQueries
    nodes: dict[Digest, ImageNode] = field(default_factory=dict)
    complete: bool = False
    """Whether the registry itself said who holds what, so that what is not here does not exist."""

    def learn(self, digest: Digest, *, is_config: bool = False) -> bool:
        """Adds everything that is or holds ``digest``; False if the repository never had it.

        Raises what the lookup raises.
        """
        holders = self.lookup.holders(self.repository, digest)
        if holders is not None:
            self.complete = True
            for holder in holders.holders:
                self.nodes[holder.digest] = ImageNode(holder.digest, holder.config, holder.manifests)
            return bool(holders.holders)
        if digest in self.nodes or any(node.config == digest for node in self.nodes.values()):
            return True
        manifest = None if is_config else self.lookup.manifest(self.repository, digest)
        if manifest is None:
            return False
        self.add(manifest)
        return True

    def add(self, manifest: Manifest) -> None:
        """Adds one manifest or index that was fetched."""
        config = None if manifest.config is None else manifest.config.digest
        children = tuple(child.digest for child in manifest.manifests)
        self.nodes[manifest.digest] = ImageNode(manifest.digest, config, children)

    def learn_children(self, index: Digest, platform: Platform | None) -> None:
        """Adds an index's children, those of ``platform`` alone if it is known."""
        for child in self.images_of(index, platform)[:MOST_CHILDREN]:
            self.learn(child)

    def images_of(self, index: Digest, platform: Platform | None) -> list[Digest]:
        """The images of an index, and of the indexes in it, that may be what runs on ``platform``, or
        on any if it is None; the inner indexes are added here. Raises what the lookup raises."""
        found: dict[Digest, None] = {}
        seen = {index}
        level = [index]
        while level:
            inner: list[Digest] = []
            for one in level:
                manifest = self.lookup.manifest(self.repository, one)
                if manifest is None:
                    found.setdefault(one)  # what is in it, nobody knows
                    continue
                if one not in self.nodes:
                    self.add(manifest)
                indexes = {e.digest for e in manifest.manifests if e.media_type in media_types.INDEXES}
                for digest in runnable(manifest, platform):
                    if digest not in indexes:
                        found.setdefault(digest)
                    elif digest not in seen and len(seen) <= MOST_CHILDREN:
                        seen.add(digest)
                        inner.append(digest)
            level = inner
        return list(found)

    def closure(self, code: Digest) -> frozenset[Digest]:
        """``code``, a config or manifest, and every node known here that holds it."""
        found = {code}
        grew = True
        while grew:
            grew = False
            for node in self.nodes.values():
                holds = node.config in found or any(child in found for child in node.children)
                if holds and node.digest not in found:
                    found.add(node.digest)
                    grew = True
        return frozenset(found)


def runnable(index: Manifest, platform: Platform | None) -> list[Digest]:
    """The children of ``index``, images and inner indexes, that may be what runs on ``platform``, or on
    any if it is None: all of them that cannot be ruled out."""
    children = [child for child in index.manifests if child.media_type in media_types.MANIFESTS]
    chosen = possible([child.platform for child in children], platform)
    inner = [n for n, child in enumerate(children) if child.media_type in media_types.INDEXES]
    if not any(n not in inner for n in chosen):
        # Nothing says that it is for the platform: what is further inside may be.
        chosen = sorted({*chosen, *(n for n in inner if children[n].platform is None)})
    return list(dict.fromkeys(children[n].digest for n in chosen))


@dataclass(frozen=True, slots=True)
class Beginning:
    """The digests of a repository that begin in one way, a few at most; ``among`` says which were
    looked at, if not all."""

    digests: tuple[Digest, ...]
    among: str = ""


def beginning_with(lookup: RegistryQueries, repository: Reference, encoded: str) -> Beginning:
    """The manifests, indexes and configs whose digests begin with the hex digits ``encoded``.

    A registry that cannot be asked that is asked for what its first tags point to, and pointed to.
    Raises what the lookup raises.
    """
    known = lookup.beginning_with(repository, encoded)
    if known is not None:
        return Beginning(known)
    graph = ImageGraph(repository, lookup)
    names = lookup.tags(repository, most=MOST_TAGS)
    digests: set[Digest] = set()
    for name in names:
        target = lookup.resolve(repository, name)
        if target is not None and graph.learn(target.digest) and graph.nodes[target.digest].is_index:
            graph.learn_children(target.digest, None)
        events = lookup.tag_history(repository, name) or ()
        digests.update(event.to_digest for event in events if event.to_digest is not None)
    digests |= graph.nodes.keys()
    digests |= {node.config for node in graph.nodes.values() if node.config is not None}
    found = sorted(one for one in digests if one.encoded.startswith(encoded))
    return Beginning(tuple(found), f", as far as its first {len(names)} tags tell,")
