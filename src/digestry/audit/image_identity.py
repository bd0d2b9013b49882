"""The identity of the image that a container runs, as far as one repository can tell.

A container's code is a config; its closure is every node of the repository's graph that is that config or
holds it. Whether a container runs a digest is membership in its closure, never a comparison of two strings.
"""

from __future__ import annotations

from dataclasses import dataclass

from digestry.audit.image_graph import ImageGraph
from digestry.inventory.observation import Claim, FoundBy
from digestry.model.digest import Digest
from digestry.model.reference import Reference


@dataclass(frozen=True, slots=True)
class ImageIdentity:
    """The image that a container runs, as one repository knows it."""

    repository: Reference
    graph: ImageGraph
    running: Digest
    """The digest that the runtime obtained."""
    found_by: FoundBy
    confirmed: bool
    """Whether the registry knows ``running``."""
    closure: frozenset[Digest]
    """Everything that is or holds the code."""
    config: Digest | None = None
    """The code."""
    manifest: Digest | None = None
    """The platform's manifest, if it is known."""
    possible: frozenset[Digest] = frozenset()
    """An index's children that may be the one that runs: all of them if that is not known, and the others if
    one was chosen by a platform that the runtime is not certain of."""
    reasons: tuple[str, ...] = ()
    contested: tuple[Digest, ...] = ()
    """Digests of other code that the source also gave, though no runtime can have made them up: the container
    runs one or the other."""
    assumed: bool = False
    """Whether one of ``possible`` was chosen by a platform that need not be the one that runs."""

    def holding(self, image: Digest) -> frozenset[Digest]:
        """Return ``image``, one of the possible ones, and everything that holds its code."""
        config = self.graph.config_of(image)
        return self.graph.closure(config) - ({config} - {image})


def unconfirmed(repository: Reference, claims: tuple[Claim, ...], reason: str) -> ImageIdentity:
    """Return an identity on the runtime's word alone: that of the first of ``claims``."""
    first = claims[0]
    config = next((claim.digest for claim in claims if claim.kind == "config"), None)
    return ImageIdentity(
        repository=repository,
        graph=ImageGraph(repository),
        running=first.digest,
        found_by=first.found_by,
        confirmed=False,
        closure=frozenset({first.digest} if config is None else {first.digest, config}),
        config=config,
        reasons=(reason,),
    )
