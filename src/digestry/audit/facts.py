"""The facts by which a container is judged: the answers of registries and advisories about its image."""

from __future__ import annotations

from dataclasses import dataclass, field

from digestry.advisories.advisory import Advisory, AdvisoryReading
from digestry.audit.image_identity import ImageIdentity
from digestry.audit.tag_verdict import TagFacts
from digestry.inventory.observation import ImageFacts
from digestry.inventory.waiting_reasons import Waiting
from digestry.model.digest import Digest
from digestry.model.reference import Reference


@dataclass(frozen=True, slots=True)
class ImageUse:
    """An image as containers use it: those of one image, in one state, are judged together."""

    image: ImageFacts
    runs: bool = True
    """False for a template: nothing of it runs now, but something will be started from it."""
    waiting: Waiting = ""
    """Why nothing of it runs yet, if it waits to be started."""
    remarked: bool = False
    """Whether the source itself has reported why something is not known."""


@dataclass(frozen=True, slots=True)
class PossibleImage:
    """Another image that may be the one that runs, with its advisories."""

    digest: Digest
    reading: AdvisoryReading


@dataclass(frozen=True, slots=True)
class FixedImage:
    """``image`` fixes the vulnerabilities, None if none is known; ``refused`` are the images that an advisory
    calls a fix, with the reasons against them. ``bases`` are the images to build it on anew, if a layer is
    bad that came with another image. ``remarks`` say how the image was found."""

    image: Reference | None = None
    refused: tuple[str, ...] = ()
    bases: tuple[Reference, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegistryFacts:
    """The facts that registries have about the image of a container."""

    identity: ImageIdentity | None = None
    """The image that runs; None if neither a registry nor anything else identifies it."""
    tag: TagFacts = field(default_factory=TagFacts)
    reading: AdvisoryReading = field(default_factory=AdvisoryReading)
    """The advisories that are attached to the image."""
    elsewhere: tuple[Advisory, ...] = ()
    """Advisories about the same code that were read of other images."""
    possible: tuple[PossibleImage, ...] = ()
    """The other images that may be the one that runs; not searched if that is affected."""
    fix: FixedImage = FixedImage()
    """The image to run instead; searched only if the image that runs is affected."""
    reasons: tuple[str, ...] = ()
    """Remarks of the search."""
    unanswered: bool = False
    """Whether a registry left something unanswered."""
