"""The judgement of reported images: the audit's, in the form that the catalog stores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from digestry.advisories.advisory import SEVERITY, Advisory
from digestry.audit.audit import judge_images
from digestry.audit.fact_finding import InquiryResult
from digestry.audit.facts import ImageUse
from digestry.audit.image_identity import ImageIdentity
from digestry.audit.image_names import ImageNames
from digestry.audit.judge import Verdict
from digestry.audit.registry_queries import RegistryQueries
from digestry.catalog.fleet.judgements import FleetJudgements, Judgement, ReportedImage
from digestry.errors import InvalidReference
from digestry.fleet.own_registry import refusal
from digestry.inventory.image_reports import as_facts
from digestry.model.digest import Digest
from digestry.model.fleet_answers import FleetVerdict
from digestry.model.reference import Reference

MOST_REASONS: Final = 20
"""The most reasons that a stored verdict has."""
MOST_VULNERABILITIES: Final = 100
"""The most vulnerabilities that a stored verdict names; the catalog lists them all."""


def judge_reports(
    images: Sequence[ReportedImage], queries: RegistryQueries, names: ImageNames, store: FleetJudgements
) -> list[Judgement]:
    """Return the judgement of each of ``images``. Images of the same code are judged together."""
    uses = [ImageUse(as_facts(image.report)) for image in images]
    judged = judge_images(uses, queries, names)
    layers = store.layers(
        (identity.repository.repository, identity.manifest)
        for result, _ in judged
        if (identity := result.facts.identity) is not None and identity.manifest is not None
    )
    found = []
    for image, (result, verdict) in zip(images, judged, strict=True):
        identity = result.facts.identity
        digests: dict[str, str] = {}
        if identity is not None:
            digests = _digests(identity)
            if identity.manifest is not None:
                mine = layers.get((identity.repository.repository, identity.manifest), [])
                digests |= dict.fromkeys(mine, "layer")
        found.append(
            Judgement(
                image.number,
                _verdict(result, verdict, image.report.reference or ""),
                _statuses(verdict.assessment.advisories),
                digests,
                None if identity is None else str(identity.running),
                "unknown" if identity is None else _kind(identity, identity.running),
            )
        )
    return found


def _verdict(result: InquiryResult, verdict: Verdict, reference: str) -> FleetVerdict:
    assessment, fix = verdict.assessment, result.facts.fix.image
    bad = [advisory for advisory in assessment.advisories if advisory.statement.status == "affected"]
    names = dict.fromkeys(advisory.statement.vulnerability for advisory in bad)
    part = next((advisory.part for advisory in bad if advisory.part is not None), None)
    return FleetVerdict(
        assessment.state,
        vulnerabilities=tuple(names)[:MOST_VULNERABILITIES],
        layer=None if part is None else part.digest,
        base="" if part is None or part.base is None else str(part.base),
        fixed="" if fix is None else str(fix),
        advice=verdict.action,
        tag=verdict.tag.state,
        reasons=verdict.reasons[:MOST_REASONS],
        foreign=_foreign(reference, verdict) if assessment.state == "unknown" else "",
    )


def _foreign(reference: str, verdict: Verdict) -> str:
    """Return the registry that an image is named after, if that is why nothing is known of it."""
    try:
        host = Reference.parse(reference).host
    except InvalidReference:
        return ""
    return host if any(refusal(host) in reason for reason in verdict.reasons) else ""


def _statuses(advisories: Iterable[Advisory]) -> Mapping[str, str]:
    """Return the worst status of each vulnerability, by each of its names."""
    worst: dict[str, str] = {}
    rank: dict[str, int] = {}
    for advisory in advisories:
        statement = advisory.statement
        for name in (statement.vulnerability, *statement.aliases):
            if SEVERITY[statement.status] > rank.get(name, -1):
                rank[name] = SEVERITY[statement.status]
                worst[name] = statement.status
    return worst


def _digests(identity: ImageIdentity) -> dict[str, str]:
    if not identity.confirmed:
        return {}
    return {str(digest): _kind(identity, digest) for digest in identity.closure}


def _kind(identity: ImageIdentity, digest: Digest) -> str:
    node = identity.graph.nodes.get(digest)
    if node is not None:
        return "index" if node.is_index else "manifest"
    return "config" if digest == identity.config else "unknown"
