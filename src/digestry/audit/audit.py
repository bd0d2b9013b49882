"""The audit: one row for every container, and one line for everything that could not be seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from digestry.advisories.advisory import Reading
from digestry.advisories.attachments import attestation_tag, list_tag
from digestry.audit.advice import advise
from digestry.audit.assessment import AdvisoryVerdict, State, Stated, conclude
from digestry.audit.image_advisories import gather, subjects_of
from digestry.audit.image_identity import ImageIdentity
from digestry.audit.image_names import NO_NAMES, ImageNames
from digestry.audit.prefetch import of_images, prefetch
from digestry.audit.registry_queries import RegistryQueries
from digestry.audit.repository_search import RepositoryQuestions, RepositorySearch
from digestry.audit.tag_placement import NOWHERE, TagPlacement, standing
from digestry.audit.tag_verdict import TagVerdict, judge_tag, judge_tag_elsewhere, point
from digestry.errors import DigestryError, InvalidReference, Unreachable
from digestry.inventory.gathering import SOURCE_TIMEOUT
from digestry.inventory.gathering import gather as gather_sources
from digestry.inventory.observation import Claim, ContainerObservation, ImageFacts, Note, Source, Unseen
from digestry.inventory.waiting import Waiting
from digestry.model.reference import Reference

_PARALLEL: Final = 8
_WORST_FIRST: Final[dict[State, int]] = {
    "affected": 0, "unknown": 1, "not_assessed": 2, "fixed": 3, "not_affected": 4,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ImageUse:
    """An image as containers use it, which are judged together. ``remarked`` tells whether the source
    has said of them why something is not known."""

    image: ImageFacts
    runs: bool
    waiting: Waiting
    remarked: bool


@dataclass(frozen=True, slots=True)
class ContainerFinding:
    """One container, and what is known of it. ``action`` is one line for a person: what to do;
    ``cure`` is the image to run in its place, if it is vulnerable and one is known; ``refused`` name
    those that were called a fix and are none. Of a template,
    which does not run and so has no ``identity``, it is what would be started now that is judged."""

    sighting: ContainerObservation
    identity: ImageIdentity | None
    tag: TagVerdict
    verdict: AdvisoryVerdict
    action: str
    reasons: tuple[str, ...]
    cure: Reference | None = None
    standing: TagPlacement = NOWHERE
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The result of an audit: the findings, worst first, what could not be seen, and what the sources
    say of themselves."""

    findings: tuple[ContainerFinding, ...]
    problems: tuple[Unseen, ...]
    notes: tuple[Note, ...] = ()

    @property
    def affected(self) -> bool:
        """Whether something runs, or will, that an advisory calls affected."""
        return any(finding.verdict.state == "affected" for finding in self.findings)


def audit(
    sources: Sequence[Source],
    lookup: RegistryQueries,
    *,
    names: ImageNames = NO_NAMES,
    source_timeout: float = SOURCE_TIMEOUT,
) -> AuditReport:
    """Asks every source, looks up every image that was seen, and judges each container.

    A source that does not finish within ``source_timeout`` seconds, or its own, is a problem; what
    it said until then counts. Raises nothing for a source or a registry that fails: that is part of
    the report.
    """
    gathered = gather_sources(sources, timeout=source_timeout)
    # Containers of one image have one answer.
    numbers = _Numbers()
    of_sighting = [numbers.number(sighting) for sighting in gathered.sightings]
    looks = [_Look(lookup, use, names) for use in numbers.uses]
    prefetch(lookup, (question for look in looks for question in look.finder.questions()))
    with ThreadPoolExecutor(_PARALLEL, "audit") as pool:
        list(pool.map(_Look.identify, looks))
        prefetch(lookup, (question for look in looks for question in look.attachments()))
        seen_images = list(pool.map(_Look.look, looks))
        # The same code may run from several repositories, of which one has the advisory.
        stated = Stated()
        for one in seen_images:
            if one.identity is not None:
                stated.add(one.identity.config, one.reading.advisories)
        prefetch(lookup, of_images(stated.cures()))
        judged = list(pool.map(lambda one: _judge(lookup, one, stated), seen_images))
    findings = _findings(gathered.sightings, of_sighting, judged)
    problems = gathered.problems + _registry_problems(lookup, [one.missed for one in seen_images])
    return AuditReport(tuple(findings), tuple(problems), tuple(gathered.notes))


class _Numbers:
    """Tells images apart, and numbers them. A source may give half a million containers the same
    few objects, which are then known by their identity; equal ones are one image all the same."""

    def __init__(self) -> None:
        self.uses: list[ImageUse] = []
        self._by_identity: dict[tuple[int, bool, Waiting, bool], int] = {}
        self._by_value: dict[ImageUse, int] = {}

    def number(self, seen: ContainerObservation) -> int:
        # The containers are kept, so that no identity is used again.
        key = id(seen.image), seen.runs, seen.waiting, bool(seen.remarks)
        number = self._by_identity.get(key)
        if number is None:
            use = ImageUse(seen.image, seen.runs, seen.waiting, bool(seen.remarks))
            number = self._by_value.setdefault(use, len(self.uses))
            if number == len(self.uses):
                self.uses.append(use)
            self._by_identity[key] = number
        return number


def _findings(
    sightings: Sequence[ContainerObservation], numbers: Sequence[int], judged: Sequence[_Judged]
) -> list[ContainerFinding]:
    """One finding for each sighting, the worst first."""
    reasons: dict[tuple[int, tuple[str, ...]], tuple[str, ...]] = {}
    findings = []
    for sighting, number in zip(sightings, numbers, strict=True):
        image = judged[number]
        key = number, sighting.remarks
        why = reasons.get(key)
        if why is None:
            why = reasons[key] = tuple(dict.fromkeys([*sighting.remarks, *image.reasons]))
        findings.append(
            ContainerFinding(
                sighting,
                image.identity,
                image.tag,
                image.verdict,
                image.action,
                why,
                image.cure,
                image.standing,
                image.refused,
            )
        )
    findings.sort(key=_order)
    return findings


def _order(finding: ContainerFinding) -> tuple[int, str, str, str, str]:
    seen = finding.sighting
    return _WORST_FIRST[finding.verdict.state], seen.host, seen.namespace, seen.name, seen.id


def _registry_problems(lookup: RegistryQueries, missed: Sequence[Sequence[Unseen]]) -> list[Unseen]:
    """One line for each registry that did not answer, and one for each other failure."""
    silent = lookup.unreachable()
    lines = [
        Unseen(f"registry {host}", error.message, error.hint or "what it holds was not looked at")
        for host, error in silent
    ]
    hosts = tuple(f"registry {host}/" for host, _ in silent)
    others = dict.fromkeys(problem for problems in missed for problem in problems)
    return lines + [problem for problem in others if not problem.source.startswith(hosts)]


@dataclass(frozen=True, slots=True)
class _Seen:
    """One image, and what its registry says of it. ``missed`` is what the registry withheld."""

    use: ImageUse
    identity: ImageIdentity | None
    tag: TagVerdict
    reading: Reading
    reasons: tuple[str, ...]
    missed: tuple[Unseen, ...]
    standing: TagPlacement


@dataclass(frozen=True, slots=True)
class _Judged:
    """One image, and what is known of it: the members of :class:`ContainerFinding`."""

    identity: ImageIdentity | None
    tag: TagVerdict
    verdict: AdvisoryVerdict
    action: str
    reasons: tuple[str, ...]
    cure: Reference | None
    standing: TagPlacement
    refused: tuple[str, ...]


class _Look:
    """Looks at one image: what it is, where its tag points, and what is said of it."""

    def __init__(self, lookup: RegistryQueries, use: ImageUse, names: ImageNames) -> None:
        self._lookup = lookup
        self._names = names
        self._reasons: list[str] = []
        self._use = use
        self._reference = _reference(use.image, self._reasons)
        self.finder = self._search()
        self._identity: ImageIdentity | None = None

    def identify(self) -> None:
        """Finds out what the image is, and remembers what could not be asked."""
        if not self._use.runs:
            self._use = replace(self._use, image=_next_run(self._lookup, self._use.image, self._reference))
            self.finder = self._search()
        self._identity = self.finder.find()

    def _search(self) -> RepositorySearch:
        return RepositorySearch(
            self._lookup, self._use.image, self._reference, self._names, remarked=self._use.remarked
        )

    def attachments(self) -> Iterator[RepositoryQuestions]:
        """The tags at which something may hang on the image, to be asked for with those of others."""
        identity = self._identity
        if identity is None:
            return
        without = self._without_tags()
        where = {identity.repository: identity.closure} | self.finder.elsewhere(identity)
        for repository, there in where.items():
            if repository not in without:
                subjects = sorted(subjects_of(identity, there))
                tags = [tag for one in subjects for tag in (list_tag(one), attestation_tag(one))]
                yield RepositoryQuestions(repository, (), tuple(tags))

    def look(self) -> _Seen:
        """Asks for the rest, after :meth:`identify`."""
        reasons, reference = self._reasons, self._reference
        finder, use, identity = self.finder, self._use, self._identity
        reasons += finder.reasons
        missed = list(finder.missed)
        if identity is not None:
            reasons += identity.reasons
        tag = self._tag(finder, use.image, identity)
        reasons += tag.reasons
        reading = Reading()
        if identity is not None:
            reading = self._gather(finder, identity, tag)
        if reference is not None and not tag.complete:
            missed += [Unseen(f"registry {reference.name}", reason) for reason in tag.reasons]
        # One for each repository: more would be as many as there are images.
        first = dict(reversed(reading.missed))
        missed += [Unseen(f"registry {where.name}", reason) for where, reason in first.items()]
        stands = self._standing(identity, tag, missed) if use.runs else NOWHERE
        return _Seen(use, identity, tag, reading, tuple(reasons), tuple(missed), stands)

    def _without_tags(self) -> frozenset[Reference]:
        """Mirrors of the image's repository that are not to be asked for tags."""
        if self._reference is None:
            return frozenset()
        others = self._names.others(self._reference.repository_only())
        return frozenset(other.repository for other in others if not other.tags)

    def _gather(self, finder: RepositorySearch, identity: ImageIdentity, tag: TagVerdict) -> Reading:
        """What is said of what runs, by the index too that the container's tag points to now."""
        own = self._reference.repository_only() if self._reference is not None else None
        if tag.state == "current" and tag.digest is not None and identity.repository == own:
            identity = replace(identity, closure=identity.closure | {tag.digest})
        others = finder.elsewhere(identity)
        reading = gather(self._lookup, identity, others, without_tags=self._without_tags())
        if finder.failure is not None and own not in (identity.repository, *others):
            why = f"what hangs on it in its own repository is not known: {finder.failure.message}"
            reading.miss(own or identity.repository, why)
        for repository, why in finder.silent.items():
            reading.miss(repository, f"what hangs on it in {repository.name} is not known: {why}")
        return reading

    def _standing(
        self, identity: ImageIdentity | None, tag: TagVerdict, missed: list[Unseen]
    ) -> TagPlacement:
        if identity is None:
            return NOWHERE
        try:
            return standing(self._lookup, identity, self._reference, tag)
        except DigestryError as error:
            missed.append(Unseen(f"registry {identity.repository.name}", error.message, error.hint))
            return NOWHERE

    def _tag(self, finder: RepositorySearch, image: ImageFacts, identity: ImageIdentity | None) -> TagVerdict:
        reference = self._reference
        if reference is None:
            return TagVerdict("unknown")
        if reference.digest is not None:
            return TagVerdict("pinned")
        if not image.registry_named:
            return TagVerdict("unknown", reasons=("the name has no registry in it, so that none was asked",))
        if isinstance(finder.failure, Unreachable):
            return judge_tag_elsewhere(
                self._lookup,
                reference,
                identity,
                image.platform,
                names=self._names,
                error=finder.failure,
                claims=finder.digests,
            )
        if finder.failure is not None:
            return TagVerdict("unknown")  # the finder has said why
        if image.claims or (image.abbreviations and identity is not None):
            verdict = judge_tag(
                self._lookup, reference, identity, image.platform, self._names, claims=finder.digests
            )
            confirmed = identity is not None and identity.confirmed
            if verdict.state == "never" and not confirmed and any(one.rewritten for one in image.claims):
                why = "the engine's store may have written this digest itself, of an image that it loaded"
                return replace(verdict, state="unknown", reasons=(why,))
            return verdict
        return point(self._lookup, reference)


def _judge(lookup: RegistryQueries, seen: _Seen, stated: Stated) -> _Judged:
    verdict = conclude(lookup, seen.identity, seen.reading, stated)
    advice = advise(
        lookup,
        seen.identity,
        seen.tag,
        verdict,
        failed=bool(seen.missed),
        runs=seen.use.runs,
        waiting=seen.use.waiting,
    )
    return _Judged(
        identity=seen.identity if seen.use.runs else None,
        tag=seen.tag,
        verdict=verdict,
        action=advice.text,
        reasons=(*seen.reasons, *verdict.reasons, *advice.notes),
        cure=advice.image,
        standing=seen.standing,
        refused=advice.notes,
    )


def _next_run(lookup: RegistryQueries, template: ImageFacts, reference: Reference | None) -> ImageFacts:
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


def _reference(image: ImageFacts, reasons: list[str]) -> Reference | None:
    if image.reference is None:
        return None
    try:
        return Reference.parse(image.reference).or_latest()
    except InvalidReference as error:
        reasons.append(error.message)
        return None
