"""A pod's image name and its kubelet's ``imageID``, joined.

A cluster runs few images in many containers. Those of one image share the very same claims, by
which an audit knows them for one without comparing them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, TypeAlias, TypeVar

from digestry.client.options import is_loopback
from digestry.inventory.engine_values import platform_of, reference_of
from digestry.inventory.formats.image_ids import NO_HOST, NO_REGISTRY, ImageID, read_image_id
from digestry.inventory.observation import ImageFacts, pinned_claim
from digestry.model.platform import Platform
from digestry.model.reference import DOCKER_HUB

_MOST: Final = 1 << 16
"""The most of each kind that are remembered: a list in which nothing repeats must not be kept twice."""
_UNKNOWN_MOUNT: Final = ImageID(
    remarks=("the kubelet does not say which image is mounted (newer kubelets do)",)
)

_K = TypeVar("_K")
_V = TypeVar("_V")

_Key: TypeAlias = tuple[str | None, str | None, str, Platform | None, bool]
"""An image's name, its ID by the kubelet, the runtime, the node's platform; True for a volume."""


@dataclass(frozen=True, slots=True)
class PodImage:
    """An image that pods run, as they describe it. ``local`` is its registry, if that is one on the pod's own
    node; ``remarks`` are of its ID."""

    facts: ImageFacts
    remarks: tuple[str, ...]
    local: str


class PodImages:
    """The images of many pods, and other values that these repeat."""

    def __init__(self) -> None:
        self._images: dict[_Key, PodImage] = {}
        self._platforms: dict[tuple[str, str], Platform | None] = {}
        self._texts: dict[str, str] = {}
        self._remarks: dict[tuple[str, ...], tuple[str, ...]] = {(): ()}

    def container(
        self, reference: str | None, image_id: str | None, runtime: str, platform: Platform | None
    ) -> PodImage:
        """Return a container's image. ``image_id`` is its ``imageID``; None if that is not about it now."""
        return self._image(reference, image_id, runtime, platform, False)

    def volume(
        self, reference: str | None, image_id: str, runtime: str, platform: Platform | None
    ) -> PodImage:
        """Return the image of a volume. ``image_id`` is its ``imageRef``, if there is one."""
        return self._image(reference, image_id, runtime, platform, True)

    def platform(self, architecture: str, system: str) -> Platform | None:
        """Return the platform of those names, or None if it has none."""
        key = architecture, system
        if key not in self._platforms:
            _make_room(self._platforms)
            self._platforms[key] = platform_of(architecture, system)
        return self._platforms[key]

    def text(self, text: str) -> str:
        """Return ``text``, the same object for all that are equal."""
        known = self._texts.get(text)
        if known is None:
            _make_room(self._texts)
            known = self._texts[text] = text
        return known

    def remarks(self, *remarks: str) -> tuple[str, ...]:
        """Return ``remarks``, each once and without empty ones, the same object for all that are equal."""
        known = self._remarks.get(remarks)
        if known is None:
            _make_room(self._remarks)
            known = tuple(dict.fromkeys(remark for remark in remarks if remark))
            known = self._remarks[remarks] = self._remarks.get(known, known)
        return known

    def _image(self, *key: *_Key) -> PodImage:
        known = self._images.get(key)
        if known is None:
            _make_room(self._images)
            known = self._images[key] = _read(*key)
        return known


def _read(
    reference: str | None, image_id: str | None, runtime: str, platform: Platform | None, volume: bool
) -> PodImage:
    named = reference_of(reference)
    unpublished = named is not None and named.host == NO_HOST
    own = None if named is None or unpublished else named.repository_only()
    if image_id is None:
        image, pinned = ImageID(), None
    elif volume:
        image = (
            read_image_id(image_id, runtime=runtime, own=own, field="imageRef")
            if image_id
            else _UNKNOWN_MOUNT
        )
        pinned = pinned_claim(named, "the volume's image name")
    else:
        image = read_image_id(image_id, runtime=runtime, own=own)
        pinned = pinned_claim(named, "the pod's image name")
    if pinned is not None and unpublished:
        pinned = replace(pinned, repository=None, obtained=False)
    # The kubelet's word comes first: a pod's image can be changed while the old one still runs.
    claims = image.claims if pinned is None else (*image.claims, pinned)
    has_host = (
        named is not None
        and not unpublished
        and (named.host != DOCKER_HUB or (reference or "").startswith(DOCKER_HUB + "/"))
    )
    return PodImage(
        facts=ImageFacts(
            reference=reference,
            claims=tuple(dict.fromkeys(claims)),
            image_id=image.image_id,
            platform=platform,
            registry_named=has_host or any(claim.repository is not None for claim in claims),
        ),
        remarks=(f"{reference}: {NO_REGISTRY}", *image.remarks) if unpublished else image.remarks,
        local=named.host if named is not None and not unpublished and is_loopback(named.host) else "",
    )


def _make_room(known: dict[_K, _V]) -> None:
    if len(known) >= _MOST:
        known.clear()
