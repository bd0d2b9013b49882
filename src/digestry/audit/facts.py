"""The facts by which a container is judged: what registries and advisories say of its image."""

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
    """Whether the source itself has said why something is not known."""


@dataclass(frozen=True, slots=True)
class PossibleImage:
    """Another image that may be what runs, and what is said of it."""

    digest: Digest
    reading: AdvisoryReading


@dataclass(frozen=True, slots=True)
class FixedImage:
    """``image`` fixes what is affected, None if none is known; ``refused`` say which were called a fix, and
    why they are none."""

    image: Reference | None = None
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegistryFacts:
    """What was found out about the image of a container."""

    identity: ImageIdentity | None = None
    """What runs; None if no registry knows it, and nothing else does."""
    tag: TagFacts = field(default_factory=TagFacts)
    reading: AdvisoryReading = field(default_factory=AdvisoryReading)
    """The advisories that are attached to the image."""
    elsewhere: tuple[Advisory, ...] = ()
    """Advisories about the same code that were read of other images."""
    possible: tuple[PossibleImage, ...] = ()
    """The other images that may be what runs; not looked at if what runs is affected."""
    fix: FixedImage = FixedImage()
    """What to run instead; not looked for unless what runs is affected."""
    reasons: tuple[str, ...] = ()
    """What was noticed on the way."""
    unanswered: bool = False
    """Whether a registry left something unanswered."""
