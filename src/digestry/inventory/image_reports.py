"""Conversion of a container's image between what sources observe and what agents report."""

from __future__ import annotations

from digestry.errors import InvalidReference
from digestry.inventory.observation import Abbreviation, Claim, ImageFacts
from digestry.model.fleet import MOST_CLAIMS, AbbreviationReport, ClaimReport, ImageReport
from digestry.model.reference import Reference


def as_report(image: ImageFacts) -> ImageReport:
    """Return ``image`` as an agent reports it, with its first :data:`MOST_CLAIMS` claims."""
    return ImageReport(
        reference=image.reference,
        claims=tuple(
            ClaimReport(
                claim.digest,
                claim.kind,
                None if claim.repository is None else str(claim.repository),
                claim.read_from,
                claim.found_by,
                claim.obtained,
                claim.rewritten,
            )
            for claim in image.claims[:MOST_CLAIMS]
        ),
        image_id=image.image_id,
        platform_manifest=image.platform_manifest,
        platform=image.platform,
        platform_assumed=image.platform_assumed,
        registry_named=image.registry_named,
        abbreviations=tuple(
            AbbreviationReport(found.encoded, found.read_from, found.found_by)
            for found in image.abbreviations[:MOST_CLAIMS]
        ),
    )


def as_facts(report: ImageReport) -> ImageFacts:
    """Return the image that an agent reported.

    A claim's repository that is not a reference counts as none: the digest is still the engine's.
    """
    return ImageFacts(
        reference=report.reference,
        claims=tuple(
            Claim(
                claim.digest,
                claim.kind,
                _reference(claim.repository),
                claim.read_from,
                claim.found_by,
                claim.obtained,
                claim.rewritten,
            )
            for claim in report.claims
        ),
        image_id=report.image_id,
        platform_manifest=report.platform_manifest,
        platform=report.platform,
        platform_assumed=report.platform_assumed,
        registry_named=report.registry_named,
        abbreviations=tuple(
            Abbreviation(found.encoded, found.read_from, found.found_by) for found in report.abbreviations
        ),
    )


def _reference(text: str | None) -> Reference | None:
    if text is None:
        return None
    try:
        return Reference.parse(text)
    except InvalidReference:
        return None
