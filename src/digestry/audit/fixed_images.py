"""The search for a fixed image to run in place of a vulnerable one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from digestry.advisories.advisory import Advisory, AdvisoryReading
from digestry.audit.facts import FixedImage
from digestry.audit.graph_explorer import GraphExplorer
from digestry.audit.image_advisories import ImageAdvisories
from digestry.audit.image_graph import ImageGraph
from digestry.audit.image_identity import ImageIdentity
from digestry.audit.newer_images import newer_images
from digestry.audit.registry_queries import RegistryQueries
from digestry.audit.tag_verdict import TagFacts
from digestry.errors import DigestryError
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from digestry.model.text import few

_LONGEST_CHAIN: Final = 8
_MOST_CANDIDATES: Final = 16
_MOST_NEWER: Final = 4


class FixSearch:
    """Searches for the image to run in place of a vulnerable one."""

    def __init__(self, queries: RegistryQueries, advisories: ImageAdvisories) -> None:
        self._queries = queries
        self._advisories = advisories

    def find(self, identity: ImageIdentity, tag: TagFacts, bad: Sequence[Advisory]) -> FixedImage:
        """Return the image that fixes most of ``bad`` and is known not to be affected itself.

        If a named fix is affected, the search continues with the images that fix it. An image that may be
        affected is no fix. Where a layer is bad, the fixes that are named are of the image that it came with:
        then a newer image of the same repository is searched.
        """
        named = self._named(identity, [advisory for advisory in bad if not _on_layer(advisory)])
        layered = [advisory for advisory in bad if _on_layer(advisory)]
        if named.image is not None or not layered:
            return named
        newer = self._newer(identity, tag)
        bases = () if newer.image is not None else self._bases(layered)
        return FixedImage(newer.image, (*named.refused, *newer.refused), bases, newer.remarks)

    def _named(self, identity: ImageIdentity, bad: Sequence[Advisory]) -> FixedImage:
        named: dict[Reference, int] = {}
        for advisory in bad:
            for image in advisory.statement.fixed_by:
                named[image] = named.get(image, 0) + 1
        pending = sorted(named, key=lambda digest: -named[digest])[:_MOST_CANDIDATES]
        depth = dict.fromkeys(pending, 1)
        refused: list[str] = []
        for image in pending:  # grows while it is walked
            if image.digest in identity.closure:
                refused.append(f"{image} was named as the fix, but is what runs")
                continue
            why, following = self._why_no_fix(image, identity.config)
            if not why:
                return FixedImage(image, tuple(refused))
            refused.append(f"{image} was named as the fix, but {why}")
            for further in following:
                if further not in depth and depth[image] < _LONGEST_CHAIN and len(depth) < _MOST_CANDIDATES:
                    depth[further] = depth[image] + 1
                    pending.append(further)
        return FixedImage(None, tuple(refused))

    def _newer(self, identity: ImageIdentity, tag: TagFacts) -> FixedImage:
        """Return a newer image of the same repository that is not known to be affected."""
        refused = []
        try:
            for newer in islice(newer_images(self._queries, identity, tag), _MOST_NEWER):
                why, _ = self._why_no_fix(newer.image, identity.config)
                if not why:
                    found = (
                        f"the tag {newer.tag} points to {newer.image.digest}, which does not have the layer"
                    )
                    return FixedImage(newer.image, remarks=(found,))
                refused.append(f"the tag {newer.tag} points to {newer.image.digest}, but that {why}")
        except DigestryError as error:
            refused.append(f"newer images could not be looked for: {error.message}")
        return FixedImage(None, tuple(refused))

    def _bases(self, bad: Sequence[Advisory]) -> tuple[Reference, ...]:
        """Return the images that statements about layers name as fixed, and that are not affected. In place
        of a layer it is the image that the layer came with."""
        named = dict.fromkeys(image for advisory in bad for image in advisory.statement.fixed_by)
        found: dict[Reference, None] = {}
        for image in list(named)[:_MOST_CANDIDATES]:
            base = self._base(image)
            if base is not None:
                found[base] = None
        return tuple(found)

    def _base(self, image: Reference) -> Reference | None:
        why, _ = self._why_no_fix(image, None)
        if not why:
            return image
        if image.digest is None:
            return None
        try:
            base = self._queries.base_with(image.repository_only(), image.digest)
        except DigestryError:
            return None
        return base if base is not None and not self._why_no_fix(base, None)[0] else None

    def _why_no_fix(self, image: Reference, bad_config: Digest | None) -> tuple[str, Iterable[Reference]]:
        """Return why an image is no fix (empty if it is one), and the fixes that its advisories name."""
        if image.digest is None:
            return "is named without a digest", ()
        explorer = GraphExplorer.of(self._queries, image.repository_only())
        try:
            if not explorer.expand(image.digest, None):
                return "is not in its registry", ()
        except DigestryError as error:
            return f"it is not known whether it is affected itself: {error.message}", ()
        closure = _closure(explorer.graph, image.digest)
        if bad_config is not None and bad_config in closure:
            return "has the code that runs", ()
        nodes = explorer.nodes
        manifests = frozenset(digest for digest in closure if digest in nodes or digest == image.digest)
        indexes = frozenset(digest for digest in manifests if digest in nodes and nodes[digest].is_index)
        return _rejection(
            self._advisories.read(explorer.repository, manifests, same_code=closure, indexes=indexes)
        )


def _on_layer(advisory: Advisory) -> bool:
    return advisory.part is not None and advisory.part.kind == "layer"


def _closure(graph: ImageGraph, image: Digest) -> frozenset[Digest]:
    """Return every digest that has code of ``image``. An index is a fix only if all its images are."""
    node = graph.nodes.get(image)
    codes = {image, graph.config_of(image)}
    codes |= {code for child in (node.children if node else ()) for code in (child, graph.config_of(child))}
    return frozenset[Digest]().union(*map(graph.closure, codes))


def _rejection(reading: AdvisoryReading) -> tuple[str, Iterable[Reference]]:
    current = reading.current()
    bad = [advisory for advisory in current if advisory.statement.status == "affected"]
    if bad:
        names = few(advisory.statement.vulnerability for advisory in bad)
        return f"is itself affected by {names}", [
            fix for advisory in bad for fix in advisory.statement.fixed_by
        ]
    doubted = [advisory for advisory in current if advisory.statement.status == "under_investigation"]
    if doubted:
        return f"is itself under investigation for {doubted[0].statement.vulnerability}", ()
    if not reading.complete:
        return f"it is not known whether it is affected itself: {reading.reasons[0]}", ()
    return "", ()
