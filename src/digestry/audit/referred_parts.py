"""The layers and configs of an image that something refers to, as a registry lists them."""

from __future__ import annotations

from dataclasses import dataclass

from digestry.advisories.advisory import PartKind
from digestry.errors import InvalidReference
from digestry.model.digest import Digest
from digestry.model.image_parts import LayerImage
from digestry.model.reference import Reference


@dataclass(frozen=True, slots=True)
class ReferredPart:
    """A layer or config with referrers in ``repositories``. ``base`` is the image that a layer came with."""

    digest: Digest
    kind: PartKind
    repositories: tuple[Reference, ...]
    base: Reference | None = None


@dataclass(frozen=True, slots=True)
class ReferredParts:
    """The parts of one image that something refers to. ``everywhere``: all repositories of the registry were
    looked at; else the image's own must be asked about each part."""

    parts: tuple[ReferredPart, ...] = ()
    everywhere: bool = True


def base_reference(host: str, image: LayerImage) -> Reference | None:
    """Return the name by which a base image was known: its tag, and the digest that the tag pointed to."""
    try:
        return Reference(
            host, image.repository, image.tag or None, (image.tag and image.tag_digest) or image.digest
        )
    except InvalidReference:
        return None
