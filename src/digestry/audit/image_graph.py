"""The part of a repository's graph, index → manifest → config, that one image needs.

Overwritten and untagged manifests belong to it, if the registry still knows them.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.history import Holder
from digestry.model.manifest import Manifest
from digestry.model.platform import Platform, possible
from digestry.model.reference import Reference


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
    """The nodes of one repository that are known here."""

    repository: Reference
    nodes: dict[Digest, ImageNode] = field(default_factory=dict)
    complete: bool = False
    """Whether the registry itself listed the holders, so that a holder that is not listed does not exist."""

    def add(self, manifest: Manifest) -> None:
        """Add one manifest or index that was fetched."""
        config = None if manifest.config is None else manifest.config.digest
        children = tuple(child.digest for child in manifest.manifests)
        self.nodes[manifest.digest] = ImageNode(manifest.digest, config, children)

    def add_holder(self, holder: Holder) -> None:
        """Add one manifest or index, as a registry describes it."""
        self.nodes[holder.digest] = ImageNode(holder.digest, holder.config, holder.manifests)

    def has_config(self, configs: Container[Digest]) -> bool:
        """Return whether a manifest known here has one of ``configs``."""
        return any(node.config in configs for node in self.nodes.values())

    def config_of(self, manifest: Digest) -> Digest:
        """Return the config of an image; the manifest itself, if the repository does not have it."""
        node = self.nodes.get(manifest)
        return manifest if node is None or node.config is None else node.config

    def closure(self, code: Digest) -> frozenset[Digest]:
        """Return ``code``, a config or manifest, and every node known here that holds it."""
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
    """Return the children of ``index``, images and inner indexes, that may run on ``platform``, or on any if
    it is None: all of them that cannot be ruled out."""
    children = [child for child in index.manifests if child.media_type in media_types.MANIFESTS]
    chosen = possible([child.platform for child in children], platform)
    inner = [n for n, child in enumerate(children) if child.media_type in media_types.INDEXES]
    if not any(n not in inner for n in chosen):
        # Nothing says that it is for the platform, but inner images may be.
        chosen = sorted({*chosen, *(n for n in inner if children[n].platform is None)})
    return list(dict.fromkeys(children[n].digest for n in chosen))
