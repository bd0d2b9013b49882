"""What is known of an image that a pod names, as its registry answered at one moment."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from digestry.advisories.advisory import Advisory
from digestry.audit.assessment import State
from digestry.audit.tag_verdict import TagState
from digestry.model.digest import Digest
from digestry.model.reference import Reference


@dataclass(frozen=True, slots=True)
class ImageKnowledge:
    """What a registry said of an image. ``asked_at`` is when; a reason is empty if there is none."""

    image: str
    reference: Reference | None
    asked_at: datetime.datetime
    away: str = ""
    """Why the registry did not answer: then nothing else here is known."""
    digest: Digest | None = None
    """The digest that would be pulled; None if it is not known."""
    missing: str = ""
    """Why there is no such image in its registry."""
    tag: TagState = "unknown"
    tag_reasons: tuple[str, ...] = ()
    assessment: State = "unknown"
    assessment_reasons: tuple[str, ...] = ()
    affecting: tuple[Advisory, ...] = ()
    """The advisories in force by which the image is affected."""
    fixed_image: Reference | None = None
    since: datetime.datetime | None = None
    """When the tag came to this digest, by the registry's journal; the latest possible time."""
    not_before: datetime.datetime | None = None
    """When the tag was last seen elsewhere, if it was observed in another registry."""
    age_unknown: str = ""
    """Why ``since`` is not known."""
    behind: str = ""
    """Why the registry's answer may differ from that of the registry that it mirrors."""
    own: bool = False
    """Whether its registry said that the repository is its own: then nothing changes of it elsewhere."""
    proven: bool = False
    """Whether the tag's history was proven to be in the registry's transparency log."""
    proof_refused: str = ""
    """Why that log does not prove it."""
    proof_unknown: str = ""
    """Why no such proof was checked."""
    asked_registry: bool = True
    """False if no registry was asked: the name is none, or its registry is not one that is asked."""
