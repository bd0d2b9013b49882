"""The parts of images, layers and configs, in a registry: what refers to them, and which images have them.

These are wire forms of the ``_digestry`` endpoints (docs/http-api.md), which the registry and the client
share without importing each other.
"""

from __future__ import annotations

from typing import Final

import msgspec

from digestry.model.descriptor import Descriptor, Size
from digestry.model.digest import Digest

MOST_PART_REFERRERS: Final = 101
"""Referrers of one part in one repository that an answer has: one more than an audit reads."""


class PartReferrers(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The referrers of ``part``, a layer's or a config's digest, in one repository, newest first: up to
    :data:`MOST_PART_REFERRERS`."""

    part: Digest
    repository: str
    referrers: tuple[Descriptor, ...]


class LayerImage(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An image that has a layer. ``layers`` is how many distinct layers it has, and ``present`` whether it
    can still be pulled.

    ``tag`` is the one that came last to the image, or to an index that lists it: ``tag_digest`` is which of
    these, and ``still`` is whether the tag points there now. An image that no tag ever pointed to has none.
    """

    repository: str
    digest: Digest
    media_type: str
    size: Size
    layers: int
    present: bool = True
    tag: str = ""
    tag_digest: Digest | None = None
    still: bool = False


class LayerImages(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """``GET /v2/_digestry/layers/<digest>``: the images that have this layer, in all repositories that the
    client may see, those with the fewest layers first. ``more`` means that there are others.

    ``GET /v2/<name>/_digestry/layers/<digest>`` is the same for one repository.
    """

    layer: Digest
    images: tuple[LayerImage, ...]
    more: bool = False
