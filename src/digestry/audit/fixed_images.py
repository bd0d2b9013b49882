"""Which image to run in place of a vulnerable one: the one that is named as the fix, if it is one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from digestry.advisories.advisory import Advisory, Reading
from digestry.advisories.attachments import read
from digestry.audit.image_graph import ImageGraph
from digestry.audit.image_identity import ImageIdentity
from digestry.audit.registry_queries import RegistryQueries
from digestry.errors import DigestryError
from digestry.model.digest import Digest
from digestry.model.reference import Reference

_LONGEST_CHAIN: Final = 8
_MOST_CANDIDATES: Final = 16


@dataclass(frozen=True, slots=True)
class Fixes:
    """``image`` is a fix, None if none is known; ``refused`` say which were called one, and why they
    are none."""

    image: Reference | None
    refused: tuple[str, ...] = ()


def find_fix(lookup: RegistryQueries, identity: ImageIdentity | None, bad: Sequence[Advisory]) -> Fixes:
    """The image that fixes most of ``bad``, itself known not to be bad; what fixes a bad fix is followed.

    A fix of which it cannot be told whether it is affected itself is none.
    """
    named: dict[Reference, int] = {}
    for advisory in bad:
        for image in advisory.statement.fixed_by:
            named[image] = named.get(image, 0) + 1
    pending = sorted(named, key=lambda one: -named[one])[:_MOST_CANDIDATES]
    depth = dict.fromkeys(pending, 1)
    refused: list[str] = []
    for image in pending:  # grows while it is walked
        if identity is not None and image.digest in identity.closure:
            refused.append(f"{image} was named as the fix, but is what runs")
            continue
        why, following = _trouble(lookup, image, None if identity is None else identity.config)
        if not why:
            return Fixes(image, tuple(refused))
        refused.append(f"{image} was named as the fix, but {why}")
        for further in following:
            if further not in depth and depth[image] < _LONGEST_CHAIN and len(depth) < _MOST_CANDIDATES:
                depth[further] = depth[image] + 1
                pending.append(further)
    return Fixes(None, tuple(refused))


def _trouble(
    lookup: RegistryQueries, image: Reference, bad_config: Digest | None
) -> tuple[str, Iterable[Reference]]:
    """Why an image is no fix, empty if it is one, and what is said to fix it in turn."""
    if image.digest is None:
        return "is named without a digest", ()
    graph = ImageGraph(image.repository_only(), lookup)
    try:
        if not graph.learn(image.digest):
            return "is not in its registry", ()
        node = graph.nodes[image.digest]
        if node.is_index:
            graph.learn_children(image.digest, None)
        # An index is a fix only if all of its images are.
        codes = {image.digest} | ({node.config} if node.config is not None else set())
        for child in node.children:
            found = graph.nodes.get(child)
            codes |= {child} if found is None else {child, found.config or child}
        closure = frozenset[Digest]().union(*map(graph.closure, codes))
    except DigestryError as error:
        return f"it cannot be told whether it is affected itself: {error.message}", ()
    if bad_config is not None and bad_config in closure:
        return "has the code that runs", ()
    manifests = frozenset(one for one in closure if one in graph.nodes or one == image.digest)
    indexes = frozenset(one for one in manifests if one in graph.nodes and graph.nodes[one].is_index)
    reading = read(lookup, graph.repository, manifests, same_code=closure, indexes=indexes)
    return _said_against(reading)


def _said_against(reading: Reading) -> tuple[str, Iterable[Reference]]:
    current = reading.current()
    bad = [one for one in current if one.statement.status == "affected"]
    if bad:
        names = ", ".join(dict.fromkeys(one.statement.vulnerability for one in bad))
        return f"is itself affected by {names}", [fix for one in bad for fix in one.statement.fixed_by]
    doubted = [one for one in current if one.statement.status == "under_investigation"]
    if doubted:
        return f"is itself under investigation for {doubted[0].statement.vulnerability}", ()
    if not reading.complete:
        return f"it cannot be told whether it is affected itself: {reading.reasons[0]}", ()
    return "", ()
