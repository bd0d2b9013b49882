"""The search for a fixed image to run in place of a vulnerable one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from digestry.advisories.advisory import Advisory, AdvisoryReading
from digestry.audit.facts import FixedImage
from digestry.audit.graph_explorer import GraphExplorer
from digestry.audit.image_advisories import ImageAdvisories
from digestry.audit.image_graph import ImageGraph
from digestry.audit.image_identity import ImageIdentity
from digestry.audit.registry_queries import RegistryQueries
from digestry.errors import DigestryError
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from digestry.model.text import few

_LONGEST_CHAIN: Final = 8
_MOST_CANDIDATES: Final = 16


def find_fix(
    queries: RegistryQueries, advisories: ImageAdvisories, identity: ImageIdentity, bad: Sequence[Advisory]
) -> FixedImage:
    """Return the image that fixes most of ``bad`` and is known not to be affected itself.

    If a named fix is affected, the search continues with the images that fix it. An image that may be
    affected is no fix.
    """
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
        why, following = _why_no_fix(queries, advisories, image, identity.config)
        if not why:
            return FixedImage(image, tuple(refused))
        refused.append(f"{image} was named as the fix, but {why}")
        for further in following:
            if further not in depth and depth[image] < _LONGEST_CHAIN and len(depth) < _MOST_CANDIDATES:
                depth[further] = depth[image] + 1
                pending.append(further)
    return FixedImage(None, tuple(refused))


def _why_no_fix(
    queries: RegistryQueries, advisories: ImageAdvisories, image: Reference, bad_config: Digest | None
) -> tuple[str, Iterable[Reference]]:
    """Return why an image is no fix (empty if it is one), and the fixes that its advisories name."""
    if image.digest is None:
        return "is named without a digest", ()
    explorer = GraphExplorer.of(queries, image.repository_only())
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
    return _rejection(advisories.read(explorer.repository, manifests, same_code=closure, indexes=indexes))


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
