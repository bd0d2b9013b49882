"""The audit: one row for every container, and one line for everything that could not be seen."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from digestry.errors import DigestryError, InvalidReference, Unreachable
from digestry.fleet.advice import advise
from digestry.fleet.advisories import Advisory, AdvisoryVerdict, Reading, State, conclude, gather
from digestry.fleet.identity import Identity, identify, unconfirmed
from digestry.fleet.lookup import Lookup
from digestry.fleet.sighting import Claim, Problem, Sighting, Source
from digestry.fleet.tags import TagVerdict, judge_tag, point
from digestry.model.digest import Digest
from digestry.model.platform import Platform
from digestry.model.reference import Reference

_PARALLEL: Final = 8
_WORST_FIRST: Final[dict[State, int]] = {"affected": 0, "unknown": 1, "fixed": 2, "clear": 3}

_Image: TypeAlias = tuple[
    str | None, tuple[Claim, ...], Digest | None, Digest | None, Platform | None, bool, bool
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One container, and what is known of it. ``action`` is one line for a person: what to do;
    ``cure`` is the image to run in its place, if it is vulnerable and one is known. Of a template,
    which does not run and so has no ``identity``, it is what would be started now that is judged."""

    sighting: Sighting
    identity: Identity | None
    tag: TagVerdict
    verdict: AdvisoryVerdict
    action: str
    reasons: tuple[str, ...]
    cure: Reference | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The result of an audit: the findings, worst first, and what could not be seen."""

    findings: tuple[Finding, ...]
    problems: tuple[Problem, ...]

    @property
    def affected(self) -> bool:
        """Whether something runs, or will, that an advisory calls affected."""
        return any(finding.verdict.state == "affected" for finding in self.findings)


def audit(sources: Sequence[Source], lookup: Lookup) -> Report:
    """Asks every source, looks up every image that was seen, and judges each container.

    Raises nothing for a source or a registry that fails: that is part of the report.
    """
    sightings: list[Sighting] = []
    problems: list[Problem] = []
    with ThreadPoolExecutor(max(len(sources), 1), "source") as pool:
        for observations in pool.map(lambda source: list(source.observe()), sources):
            for seen in observations:
                if isinstance(seen, Problem):
                    problems.append(seen)
                else:
                    sightings.append(seen)
    # Containers of one image have one answer.
    images: dict[_Image, Sighting] = {}
    for sighting in sightings:
        images.setdefault(_image(sighting), sighting)
    with ThreadPoolExecutor(_PARALLEL, "audit") as pool:
        seen_images = list(pool.map(lambda one: _look(lookup, one), images.values()))
        # The same code may run from several repositories, of which one has the advisory.
        stated = [
            (one.identity.config, advisory)
            for one in seen_images
            if one.identity is not None
            for advisory in one.reading.advisories
        ]
        judged = dict(
            zip(images, pool.map(lambda one: _judge(lookup, one, stated), seen_images), strict=True)
        )
    findings = []
    for sighting in sightings:
        finding = judged[_image(sighting)]
        reasons = tuple(dict.fromkeys([*sighting.remarks, *finding.reasons]))
        findings.append(replace(finding, sighting=sighting, reasons=reasons))
    problems += _registry_problems(lookup, [one.missed for one in seen_images])
    return Report(tuple(sorted(findings, key=_order)), tuple(problems))


def _image(sighting: Sighting) -> _Image:
    return (
        sighting.reference,
        sighting.claims,
        sighting.image_id,
        sighting.platform_manifest,
        sighting.platform,
        sighting.registry_named,
        sighting.runs,
    )


def _order(finding: Finding) -> tuple[int, str, str, str, str]:
    seen = finding.sighting
    return _WORST_FIRST[finding.verdict.state], seen.host, seen.namespace, seen.name, seen.id


def _registry_problems(lookup: Lookup, missed: Sequence[Sequence[Problem]]) -> list[Problem]:
    """One line for each registry that did not answer, and one for each other failure."""
    silent = lookup.unreachable()
    lines = [
        Problem(f"registry {host}", error.message, error.hint or "what it holds was not looked at")
        for host, error in silent
    ]
    hosts = tuple(f"registry {host}/" for host, _ in silent)
    others = dict.fromkeys(problem for problems in missed for problem in problems)
    return lines + [problem for problem in others if not problem.source.startswith(hosts)]


@dataclass(frozen=True, slots=True)
class _Seen:
    """One image, and what its registry says of it. ``missed`` is what the registry withheld."""

    sighting: Sighting
    identity: Identity | None
    tag: TagVerdict
    reading: Reading
    reasons: tuple[str, ...]
    missed: tuple[Problem, ...]


def _look(lookup: Lookup, sighting: Sighting) -> _Seen:
    reasons: list[str] = []
    reference = _reference(sighting, reasons)
    if not sighting.runs:
        sighting = _next_run(lookup, sighting, reference)
    finder = _Finder(lookup, sighting, reference)
    identity = finder.find()
    reasons += finder.reasons
    missed = list(finder.missed)
    if identity is not None:
        reasons += identity.reasons
    if reference is None:
        tag = TagVerdict("unknown")
    elif reference.digest is not None:
        tag = TagVerdict("pinned")
    elif not sighting.registry_named:
        tag = TagVerdict("unknown", reasons=("the name has no registry in it, so that none was asked",))
    elif finder.failure is not None:
        tag = TagVerdict("unknown")
    elif sighting.claims:
        tag = judge_tag(lookup, reference, identity, sighting.platform)
    else:
        tag = point(lookup, reference)
    reasons += tag.reasons
    reading = Reading() if identity is None else gather(lookup, identity, finder.elsewhere(identity))
    if reference is not None and not tag.complete:
        missed += [Problem(f"registry {reference.name}", reason) for reason in tag.reasons]
    if identity is not None and not reading.complete:
        missed += [Problem(f"registry {identity.repository.name}", reason) for reason in reading.reasons[:1]]
    return _Seen(sighting, identity, tag, reading, tuple(reasons), tuple(missed))


def _judge(lookup: Lookup, seen: _Seen, stated: Sequence[tuple[Digest | None, Advisory]]) -> Finding:
    verdict = conclude(lookup, seen.identity, seen.reading, stated)
    advice = advise(
        lookup, seen.identity, seen.tag, verdict, failed=bool(seen.missed), runs=seen.sighting.runs
    )
    return Finding(
        sighting=seen.sighting,
        identity=seen.identity if seen.sighting.runs else None,
        tag=seen.tag,
        verdict=verdict,
        action=advice.text,
        reasons=(*seen.reasons, *verdict.reasons),
        cure=advice.image,
    )


def _next_run(lookup: Lookup, template: Sighting, reference: Reference | None) -> Sighting:
    """``template`` as if it had been started just now: with a claim of what its tag points to."""
    if reference is None or reference.tag is None or reference.digest is not None:
        return template
    if not template.registry_named:
        return template
    repository = reference.repository_only()
    try:
        target = lookup.resolve(repository, reference.tag)
    except DigestryError:
        return template  # whoever judges the tag meets the same error, and reports it
    if target is None:
        return template
    claim = Claim(target.digest, "unknown", repository, "the tag", "repo-digest", obtained=True)
    return replace(template, claims=(*template.claims, claim))


def _reference(sighting: Sighting, reasons: list[str]) -> Reference | None:
    if sighting.reference is None:
        return None
    try:
        return Reference.parse(sighting.reference).or_latest()
    except InvalidReference as error:
        reasons.append(error.message)
        return None


class _Finder:
    """Looks for what a container runs: in its own repository first, then in any that was named."""

    def __init__(self, lookup: Lookup, sighting: Sighting, reference: Reference | None) -> None:
        self._lookup = lookup
        self._sighting = sighting
        self._reference = reference
        self._own = None if reference is None else reference.repository_only()
        self._bare = tuple(claim for claim in sighting.claims if claim.repository is None)
        self.failure: DigestryError | None = None
        self.reasons: list[str] = []
        self.missed: list[Problem] = []

    def find(self) -> Identity | None:
        own = self._claims(self._own)
        identity = None
        if self._reference is not None and self._sighting.registry_named:
            identity = self._identify(self._reference, own)
        if identity is not None:
            return identity
        for repository in self._others():
            identity = self._identify(repository, self._claims(repository))
            if identity is not None:
                at_home = self._at_home(identity)
                if at_home is not None:
                    return at_home
                if self._own is not None:
                    self.reasons.append(
                        f"known to {repository.name} only, another repository than the container's own"
                    )
                return identity
        identity = self._believed(own)
        if identity is None:
            self._explain()
        return identity

    def _at_home(self, identity: Identity) -> Identity | None:
        """The same code, which another repository knows, in the container's own; None if it is not
        there. A runtime may name one of several repositories from which it had pulled that code."""
        own = self._reference
        if own is None or identity.config is None or not self._sighting.registry_named:
            return None
        where = f"the config that {identity.repository.name} has"
        claim = Claim(identity.config, "config", None, where, "image-id", obtained=False)
        found = self._identify(own, (claim,))
        if found is not None:
            self.reasons.append(
                f"the digest that was given, {identity.running}, is of {identity.repository.name}: "
                "the container's own repository has the same code"
            )
        return found

    def elsewhere(self, identity: Identity) -> list[Reference]:
        """Other repositories of which the runtime says that they have the code of ``identity``."""
        named = dict.fromkeys(
            claim.repository for claim in self._sighting.claims if claim.digest in identity.closure
        )
        return [one for one in named if one is not None and one != identity.repository]

    def _claims(self, repository: Reference | None) -> tuple[Claim, ...]:
        named = tuple(
            c for c in self._sighting.claims if c.repository is not None and c.repository == repository
        )
        return named + self._bare

    def _others(self) -> list[Reference]:
        named = dict.fromkeys(claim.repository for claim in self._sighting.claims)
        return [one for one in named if one is not None and one != self._own]

    def _identify(self, reference: Reference, claims: tuple[Claim, ...]) -> Identity | None:
        if not claims:
            return None
        try:
            return identify(
                self._lookup,
                reference,
                claims,
                platform=self._sighting.platform,
                platform_manifest=self._sighting.platform_manifest,
            )
        except DigestryError as error:
            if reference == self._reference:
                self.failure = error
            message = error.message
            self.reasons.append(f"{reference.name} could not be asked: {message}")
            self.missed.append(Problem(f"registry {reference.name}", message, error.hint))
            return None

    def _believed(self, own: tuple[Claim, ...]) -> Identity | None:
        """What the runtime says, where no registry confirms it and it is still worth saying."""
        rest = tuple(claim for claim in self._sighting.claims if claim not in own)
        for claims in (own, rest):
            for claim in claims:
                where = claim.repository or self._own
                if claim.found_by == "image-id" or where is None:
                    continue
                if claim.obtained:
                    why = f"{where.name} does not have {claim.digest} any more, or never had it"
                elif isinstance(self.failure, Unreachable):
                    why = "the runtime may have put this digest together itself"
                else:
                    continue
                if self.failure is not None:
                    why = f"the digest is the runtime's word ({claim.read_from}): no registry confirmed it"
                ordered = (claim, *(other for other in self._sighting.claims if other != claim))
                return unconfirmed(self._lookup, where, ordered, why)
        return None

    def _explain(self) -> None:
        """Says why nothing is known of what runs."""
        named = [claim for claim in self._sighting.claims if claim.found_by != "image-id"]
        if self.failure is not None:
            return
        if named:
            self.reasons.append(
                f"{named[0].read_from} names {named[0].digest}, which its registry never had: "
                "built or loaded locally, never pushed or pulled"
            )
        elif self._sighting.image_id is not None:
            self.reasons.append(
                "the image has no digest in any registry: built or loaded locally, never pushed or pulled"
            )
        elif not self._sighting.remarks:
            self.reasons.append("nothing is known of the image that runs")
