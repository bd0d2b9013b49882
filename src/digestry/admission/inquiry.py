"""The questions to registries about the images that pods name: the audit's own, and the ages of tags."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from digestry.admission.image_knowledge import ImageKnowledge
from digestry.admission.proof_cache import ProofCache
from digestry.advisories.advisory import Advisory
from digestry.advisories.trust import TRUST_EVERYBODY, TrustPolicy
from digestry.audit.assessment import Assessment
from digestry.audit.audit import judge_images
from digestry.audit.fact_finding import InquiryResult
from digestry.audit.facts import ImageUse
from digestry.audit.image_names import NO_NAMES, ImageNames
from digestry.audit.judge import Verdict
from digestry.audit.query_cache import TIMEOUT
from digestry.audit.registry_queries import Registries, RegistryQueries
from digestry.errors import DigestryError, InvalidReference, Unreachable
from digestry.inventory.observation import Claim, ImageFacts
from digestry.model.digest import Digest
from digestry.model.history import TagEvent
from digestry.model.reference import Reference

NOT_ASKED: Final = "no proof was asked for yet"


@dataclass(frozen=True, slots=True)
class InquiryOptions:
    """How registries are asked. ``timeout`` is in seconds, for each question; ``names`` are aliases and
    mirrors. ``proofs`` asks transparency logs."""

    trust: TrustPolicy = TRUST_EVERYBODY
    names: ImageNames = NO_NAMES
    timeout: float = TIMEOUT
    proofs: ProofCache | None = None


def parse_image(image: str) -> Reference:
    """Return the image that a pod's field names. Raises :class:`InvalidReference`.

    A name without a registry is of Docker Hub, and one without a tag or digest has the tag ``latest``, as
    kubelets have it.
    """
    return Reference.parse(image).or_latest()


def inquire(
    images: Iterable[str], registries: Registries, options: InquiryOptions, *, prove: bool = False
) -> dict[str, ImageKnowledge]:
    """Return what the registries know of ``images``, which are asked about together; ``prove`` asks their
    transparency logs, too.

    Raises nothing for a registry that fails: that is part of the answer.
    """
    asked_at = datetime.datetime.now(datetime.UTC)
    found: dict[str, ImageKnowledge] = {}
    named: dict[str, Reference] = {}
    for image in images:
        try:
            named[image] = parse_image(image)
        except InvalidReference as error:
            found[image] = not_a_name(image, error, asked_at)
    queries = RegistryQueries(registries, timeout=options.timeout, trust=options.trust)
    judged = judge_images([_use(one) for one in named.values()], queries, options.names)
    silent = dict(queries.unreachable())
    for (image, reference), one in zip(named.items(), judged, strict=True):
        found[image] = _knowledge(image, reference, one, queries, silent=silent, asked_at=asked_at)
    if prove and options.proofs is not None:
        return {known.image: known for known in options.proofs.of_all(list(found.values()))}
    return found


def not_a_name(image: str, error: InvalidReference, at: datetime.datetime) -> ImageKnowledge:
    """Return the knowledge of a text that is no image's name."""
    return ImageKnowledge(
        image,
        None,
        at,
        missing=f"it is not the name of an image: {error.message}",
        assessment_reasons=(error.message,),
        asked_registry=False,
    )


def _use(reference: Reference) -> ImageUse:
    """Return the image as the audit takes it.

    A name with a tag and a digest is judged as if the digest ran from that tag: then the audit looks whether
    the tag ever pointed to it.
    """
    if reference.digest is None:
        return ImageUse(ImageFacts(str(reference)), runs=False)
    claim = Claim(
        reference.digest,
        "unknown",
        reference.repository_only(),
        "the pod's image name",
        "repo-digest",
        obtained=True,
    )
    name = reference if reference.tag is None else reference.repository_only().with_tag(reference.tag)
    return ImageUse(ImageFacts(str(name), (claim,)))


def _knowledge(
    image: str,
    reference: Reference,
    judged: tuple[InquiryResult, Verdict],
    queries: RegistryQueries,
    *,
    silent: Mapping[str, Unreachable],
    asked_at: datetime.datetime,
) -> ImageKnowledge:
    result, verdict = judged
    facts = result.facts
    digest = reference.digest or verdict.tag.digest
    known = ImageKnowledge(
        image,
        reference,
        asked_at,
        digest=digest,
        tag=verdict.tag.state,
        tag_reasons=verdict.tag.reasons,
        assessment=verdict.assessment.state,
        assessment_reasons=_reasons(verdict, result),
        affecting=_affecting(verdict.assessment),
        fixed_image=facts.fix.image,
        own=queries.is_own(reference.repository_only()),
        proof_unknown=NOT_ASKED,
    )
    error = silent.get(reference.host)
    if error is not None:
        # What another name of the image confirmed stays; what its own registry alone can say does not.
        return replace(known, away=error.message, age_unknown=error.message)
    repository = reference.repository_only()
    behind = "" if reference.tag is None else queries.staleness(repository, reference.tag)
    known = replace(known, missing=_missing(reference, result, verdict), behind=behind)
    if reference.tag is None or known.missing or digest is None:
        return known
    return _with_age(known, repository.with_tag(reference.tag), result, digest, queries)


def _reasons(verdict: Verdict, result: InquiryResult) -> tuple[str, ...]:
    missed = tuple(f"{one.source}: {one.message}" for one in result.missed)
    return tuple(dict.fromkeys((*verdict.assessment.reasons, *result.facts.reasons, *missed)))


def _affecting(assessment: Assessment) -> tuple[Advisory, ...]:
    return tuple(one for one in assessment.advisories if one.statement.status == "affected")


def _missing(reference: Reference, result: InquiryResult, verdict: Verdict) -> str:
    """Return why the registry has no such image; empty if it has one, or did not answer."""
    facts = result.facts
    if facts.unanswered or facts.tag.failure:
        return ""
    if reference.digest is not None:
        if facts.identity is not None and facts.identity.confirmed:
            return ""
        return "the repository does not have this digest, or it is not visible to this account"
    if verdict.tag.digest is None and facts.tag.asked:
        return f"the repository has no tag {reference.tag}, or it is not visible to this account"
    return ""


def _with_age(
    known: ImageKnowledge,
    tag: Reference,
    result: InquiryResult,
    digest: Digest,
    queries: RegistryQueries,
) -> ImageKnowledge:
    """Return ``known`` with the time at which the tag came to ``digest``, by the registry's journal."""
    try:
        history = queries.tag_history(tag.repository_only(), tag.tag or "")
    except DigestryError as error:
        return replace(known, age_unknown=f"the tag's history could not be read: {error.message}")
    if history is None:
        return replace(known, age_unknown=f"{tag.host} keeps no tag history")
    if not history:
        return replace(known, age_unknown=f"{tag.host} has no history of this tag")
    pinned = known.reference is not None and known.reference.digest is not None
    event = _arrival(history, result, digest) if pinned else history[0]
    if event is None:
        why = f"by the history that {tag.host} keeps, the tag never came to {digest}"
        return replace(known, age_unknown=why)
    if not pinned and event.to_digest != digest:
        why = "the tag moved while it was looked at, or its registry contradicts its own history"
        return replace(known, age_unknown=why)
    return replace(known, since=event.at.astimezone(datetime.UTC), not_before=event.not_before)


def _arrival(history: tuple[TagEvent, ...], result: InquiryResult, digest: Digest) -> TagEvent | None:
    """Return the latest event by which the tag came to ``digest`` or an index that holds it."""
    identity = result.facts.identity
    closure = frozenset({digest}) if identity is None else identity.closure | {digest}
    return next((event for event in history if event.to_digest in closure), None)
