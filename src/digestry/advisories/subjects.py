"""The subject of an advisory in its registry: an image, or a layer or config of one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final, Protocol

from digestry.advisories.advisory import PartKind
from digestry.advisories.publish import PublishingRepository, TargetImage, find_image
from digestry.errors import NotFound, RemoteNotFound
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.history import Holders
from digestry.model.image_parts import LayerImages
from digestry.model.manifest import Manifest
from digestry.model.reference import Reference

MOST_TAGS: Final = 32
"""Tags whose images are searched for a layer or config, in a registry that cannot say which have it."""
_MOST_CHILDREN: Final = 64


class SearchableRepository(PublishingRepository, Protocol):
    """One repository, as far as the search for a layer or config uses it."""

    def pull_manifest(self, target: str) -> Manifest: ...

    def tags(self) -> Iterator[str]: ...

    def holders(self, digest: Digest) -> Holders | None: ...

    def images_with_layer(self, layer: Digest, *, limit: int = ...) -> LayerImages | None: ...


class SearchableRegistries(Protocol):
    """Where repositories come from: the client's session."""

    def repository(self, reference: Reference) -> SearchableRepository: ...


def find_subject(registries: SearchableRegistries, reference: Reference, *, hint: str) -> TargetImage:
    """Return the image, layer or config that ``reference`` names, its tag resolved.

    A layer or config is named by its whole digest. Raises :class:`NotFound` with ``hint``.
    """
    try:
        return find_image(registries, reference, hint=hint)
    except NotFound:
        if reference.digest is None:
            raise
        found = _find_part(registries.repository(reference), reference, reference.digest)
        if found is None:
            raise
        return found


def _find_part(repository: SearchableRepository, reference: Reference, digest: Digest) -> TargetImage | None:
    for manifest in _images(repository, digest):
        part: PartKind | None = None
        if manifest.config is not None and manifest.config.digest == digest:
            part, descriptor = "config", manifest.config
        else:
            layer = next((layer for layer in manifest.layers if layer.digest == digest), None)
            if layer is not None:
                part, descriptor = "layer", layer
        if part is not None:
            return TargetImage(reference.with_digest(digest), descriptor, part=part)
    return None


def _images(repository: SearchableRepository, digest: Digest) -> Iterator[Manifest]:
    """Yield images of the repository that may have ``digest`` as a layer or config."""
    layered = repository.images_with_layer(digest, limit=_MOST_CHILDREN)
    holding = repository.holders(digest)
    if layered is None and holding is None:
        yield from _tagged(repository)
        return
    known = [image.digest for image in layered.images if image.present] if layered is not None else []
    known += [one.digest for one in holding.holders if one.present] if holding is not None else []
    for image in known:
        yield from _pulled(repository, str(image))


def _tagged(repository: SearchableRepository) -> Iterator[Manifest]:
    """Yield the images that the first tags point to."""
    try:
        names = list(islice(repository.tags(), MOST_TAGS))
    except RemoteNotFound:
        return
    for name in names:
        for manifest in _pulled(repository, name):
            yield manifest
            for child in manifest.manifests[:_MOST_CHILDREN]:
                if child.media_type in media_types.MANIFESTS:
                    yield from _pulled(repository, str(child.digest))


def _pulled(repository: SearchableRepository, target: str) -> Iterator[Manifest]:
    try:
        yield repository.pull_manifest(target)
    except RemoteNotFound:
        return
