"""The images that advisories name, looked for in registries: by digest, by package URL, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from digestry.advisories.products import ProductIdentity, identify_product
from digestry.advisories.statements import Product
from digestry.audit.graph_explorer import GraphExplorer
from digestry.audit.registry_queries import RegistryQueries
from digestry.errors import DigestryError
from digestry.model.digest import Digest
from digestry.model.history import TagSpan
from digestry.model.image_parts import LayerImages
from digestry.model.reference import DOCKER_HUB, Reference

_MOST_REPOSITORIES: Final = 64
"""Repositories of one registry in which a digest alone is looked for."""
_MOST_TAGS: Final = 256
"""Tags of a repository that is named without one."""


@dataclass(frozen=True, slots=True)
class NamedImages:
    """The images that a product names, each with its digest; ``reason`` says why there is none, or which
    were not looked for."""

    images: tuple[Reference, ...] = ()
    reason: str = ""


class ImageFinder:
    """Finds images that registries have or had. Thread-safe as ``queries`` is.

    ``everywhere`` returns when tags of any repository of ``host`` pointed to a digest, or to what holds it,
    and None if the registry cannot say; ``with_layer`` returns the images of ``host`` with a layer. A layer
    is found as such, in the repository of the image that it came with. Names without a registry are of Docker
    Hub, as in every document.
    """

    def __init__(
        self,
        queries: RegistryQueries,
        host: str,
        everywhere: Callable[[Digest], Sequence[TagSpan] | None],
        with_layer: Callable[[Digest], LayerImages | None] = lambda _: None,
    ) -> None:
        self._queries = queries
        self._host = host
        self._everywhere = everywhere
        self._with_layer = with_layer
        self._known: dict[ProductIdentity, NamedImages] = {}

    def find(self, product: Product) -> NamedImages:
        """Return the images that ``product`` names. Raises nothing: a failure is the reason."""
        identity = identify_product(product)
        if not identity.digests and not identity.images:
            return NamedImages(reason=f"{product.shown} is not the name of an image")
        known = self._known.get(identity)
        if known is None:
            try:
                known = self._find(identity)
            except DigestryError as error:
                known = NamedImages(reason=f"{product.shown}: {error.message}")
            self._known[identity] = known
        return known

    def _find(self, identity: ProductIdentity) -> NamedImages:
        """Look in the registry first, under the product's names and others, and then where else it names."""
        if not identity.digests:
            return self._tagged(identity)
        repositories = tuple(dict.fromkeys(image.repository_only() for image in identity.images))
        here = tuple(one for one in repositories if one.host == self._host)
        elsewhere = tuple(one for one in repositories if one.host != self._host)
        steps: list[Callable[[], NamedImages]] = [
            lambda: NamedImages(self._holding(here, identity.digests)),
            lambda: self._anywhere(identity),
            lambda: NamedImages(self._holding(elsewhere, identity.digests)),
            lambda: NamedImages(self._layers(repositories, identity.digests)),
        ]
        names = ", ".join(str(digest) for digest in identity.digests)
        reasons = []
        for step in steps:
            try:
                found = step()
            except DigestryError as error:
                reasons.append(error.message)
                continue
            if found.images:
                return found
            reasons += [found.reason] if found.reason else []
        where = ", ".join(one.name for one in repositories)
        lacking = [f"{where} {'has' if len(repositories) == 1 else 'have'} no such digest"] if where else []
        return NamedImages(reason=f"{names}: {'; '.join(lacking + reasons)}")

    def _holding(self, repositories: Iterable[Reference], digests: Sequence[Digest]) -> tuple[Reference, ...]:
        """Return the images of ``repositories`` that have one of ``digests``. If one is a config, an index
        that contains it is not returned: a scanner looks at one platform."""
        found: dict[Reference, None] = {}
        for repository in repositories:
            explorer = GraphExplorer.of(self._queries, repository)
            for digest in digests:
                explorer.expand(digest, None)
            nodes = explorer.nodes
            chosen = [one for one in nodes if nodes[one].config in digests]
            chosen = chosen or [one for one in digests if one in nodes]
            found.update(dict.fromkeys(repository.with_digest(one) for one in chosen))
        return tuple(found)

    def _anywhere(self, identity: ProductIdentity) -> NamedImages:
        """Return the images of the registry that have, or had, one of the digests, under any names."""
        if self._host == DOCKER_HUB:
            return NamedImages()
        repositories: dict[Reference, None] = {}
        for digest in identity.digests:
            spans = self._everywhere(digest)
            if spans is None:
                return NamedImages(reason=f"{self._host} cannot say which other repository has it")
            repositories.update(dict.fromkeys(Reference(self._host, one.repository) for one in spans))
        chosen = list(repositories)
        found = self._holding(chosen[:_MOST_REPOSITORIES], identity.digests)
        if not found:
            return NamedImages(reason=f"no tag of what you may see in {self._host} points, or pointed, to it")
        left = len(chosen) - _MOST_REPOSITORIES
        return NamedImages(found, f"{left} further repositories have it" if left > 0 else "")

    def _layers(self, repositories: Sequence[Reference], digests: Sequence[Digest]) -> tuple[Reference, ...]:
        """Return the layers among ``digests``: in the first of ``repositories`` that has it, or else in that
        of the image that the layer came with."""
        found = []
        for digest in digests:
            having = [one for one in repositories if self._queries.base_with(one, digest) is not None]
            if not having and self._host != DOCKER_HUB:
                images = self._with_layer(digest)
                having = (
                    [Reference(self._host, image.repository) for image in images.images] if images else []
                )
            found += [one.with_digest(digest) for one in having[:1]]
        return tuple(found)

    def _tagged(self, identity: ProductIdentity) -> NamedImages:
        """Return the images that the names' tags point to now. A package URL without
        a version, of a repository of the registry, means all of its tags."""
        found: dict[Reference, None] = {}
        left = 0
        tagged = [image for image in identity.images if image.tag is not None]
        whole = [] if tagged else [image for image in identity.whole if image.host == self._host]
        for repository in whole:
            tags = self._queries.tags(repository, most=_MOST_TAGS + 1)
            left += max(0, len(tags) - _MOST_TAGS)
            self._queries.prefetch_tags(repository, tags[:_MOST_TAGS])
            tagged += [repository.with_tag(tag) for tag in tags[:_MOST_TAGS]]
        for image in tagged:
            target = self._queries.resolve(image.repository_only(), image.tag or "")
            if target is not None:
                found.setdefault(image.repository_only().with_digest(target.digest))
        if found:
            more = f"of {whole[0].name} the first {_MOST_TAGS} tags were looked at" if left else ""
            return NamedImages(tuple(found), more)
        names = ", ".join(map(str, tagged or identity.images))
        if not tagged:
            lacks = "it has no tags" if whole else "neither a tag nor a digest is named"
            return NamedImages(reason=f"{names}: {lacks}")
        return NamedImages(reason=f"{names}: there is no such tag")
