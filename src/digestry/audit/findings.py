"""The result of an audit: one finding for each container, and what could not be seen."""

from __future__ import annotations

from dataclasses import dataclass

from digestry.audit.assessment import Assessment
from digestry.audit.image_identity import ImageIdentity
from digestry.audit.tag_placement import NOWHERE, TagPlacement
from digestry.audit.tag_verdict import TagVerdict
from digestry.inventory.observation import ContainerObservation, Note, Unseen
from digestry.model.reference import Reference


@dataclass(frozen=True, slots=True)
class ContainerFinding:
    """One container, with the verdict of the audit.

    A template does not run and so has no ``identity``: the image that would be started from it now is judged.
    """

    container: ContainerObservation
    identity: ImageIdentity | None
    tag: TagVerdict
    assessment: Assessment
    action: str
    """The advice, in one line for a person."""
    reasons: tuple[str, ...]
    fixed_image: Reference | None = None
    """The image to run in its place, if it is vulnerable and one is known."""
    placement: TagPlacement = NOWHERE
    refused: tuple[str, ...] = ()
    """The images that were called a fix and are none, and why."""
    bases: tuple[Reference, ...] = ()
    """The images to build its image on anew, if a layer is bad that came with another image."""


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The result of an audit: the findings, worst first, what could not be seen, the notes of the sources,
    and their names."""

    findings: tuple[ContainerFinding, ...]
    problems: tuple[Unseen, ...]
    notes: tuple[Note, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def affected(self) -> bool:
        """Whether something runs, or will, that an advisory calls affected."""
        return any(finding.assessment.state == "affected" for finding in self.findings)
