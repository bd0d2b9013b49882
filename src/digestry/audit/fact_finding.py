"""Fact finding about one image: what it is, where its tag points, and what advisories say of it.

Where a registry supports bulk queries, it is asked about many images at once first; so each step is taken for
all images in turn, and announces its queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from digestry.advisories.advisory import AdvisoryReading
from digestry.advisories.attachments import attachment_tags
from digestry.audit.assessment import AdvisoryIndex, known_in_force
from digestry.audit.facts import ImageUse, PossibleImage, RegistryFacts
from digestry.audit.fixed_images import FixSearch
from digestry.audit.image_advisories import ImageAdvisories, counted_for, subjects_of
from digestry.audit.image_identity import ImageIdentity
from digestry.audit.image_names import ImageNames
from digestry.audit.registry_queries import RegistryQueries
from digestry.audit.repository_search import RepositoryQuestions, RepositorySearch
from digestry.audit.tag_inspection import TagInspector
from digestry.audit.tag_placement import NOWHERE, TagPlacement, find_tag_placement
from digestry.audit.tag_verdict import TagFacts, TagVerdict, judge_tag
from digestry.errors import DigestryError, InvalidReference, Unreachable
from digestry.inventory.observation import Claim, ImageFacts, Unseen
from digestry.model.reference import Reference


@dataclass(frozen=True, slots=True)
class InquiryResult:
    """The facts of one image; ``placement`` is its place in its registry, ``missed`` the failed queries."""

    container: ImageUse
    facts: RegistryFacts
    placement: TagPlacement = NOWHERE
    missed: tuple[Unseen, ...] = ()


class ImageInquiry:
    """Finds out the facts of the image of ``container``, by :meth:`identify` and then :meth:`find_facts`."""

    def __init__(
        self,
        queries: RegistryQueries,
        container: ImageUse,
        names: ImageNames,
        advisories: ImageAdvisories,
    ) -> None:
        self._queries = queries
        self._advisories = advisories
        self._names = names
        self._container = container
        self._reasons: list[str] = []
        self._reference = self._named(container.image)
        self._search = self._begin()
        self._identity: ImageIdentity | None = None

    # -- identification -----------------------------------------------------------------------------

    def questions(self) -> Iterator[RepositoryQuestions]:
        """Return the queries that :meth:`identify` will send, as far as they are known in advance."""
        return self._search.questions()

    def identify(self) -> None:
        """Identify the image, and record the queries that failed."""
        if not self._container.runs:
            self._container = replace(self._container, image=self._next_run(self._container.image))
            self._search = self._begin()
        self._identity = self._search.find()

    def _begin(self) -> RepositorySearch:
        seen = self._container
        return RepositorySearch(
            self._queries, seen.image, self._reference, self._names, remarked=seen.remarked
        )

    def _named(self, image: ImageFacts) -> Reference | None:
        if image.reference is None:
            return None
        try:
            return Reference.parse(image.reference).or_latest()
        except InvalidReference as error:
            self._reasons.append(error.message)
            return None

    def _next_run(self, template: ImageFacts) -> ImageFacts:
        """Return ``template`` as if it had been started just now: with a claim of the digest that its tag
        points to."""
        reference = self._reference
        if reference is None or reference.tag is None or reference.digest is not None:
            return template
        if not template.registry_named:
            return template
        repository = reference.repository_only()
        try:
            target = self._queries.resolve(repository, reference.tag)
        except DigestryError:
            return template  # the inspection of the tag meets the same error, and reports it
        if target is None:
            return template
        claim = Claim(target.digest, "unknown", repository, "the tag", "repo-digest", obtained=True)
        return replace(template, claims=(*template.claims, claim))

    # -- its tag and its advisories ---------------------------------------------

    def attachments(self) -> Iterator[RepositoryQuestions]:
        """Yield the tags that :meth:`find_facts` will ask for: something may be attached there."""
        identity = self._identity
        if identity is None:
            return
        without = self._without_tags()
        where = {identity.repository: identity.closure} | self._search.elsewhere(identity)
        for repository, there in where.items():
            if repository not in without:
                subjects = sorted(subjects_of(identity, there))
                tags = [tag for subject in subjects for tag in attachment_tags(subject)]
                # The image's own repository was asked about the digests already.
                digests = () if repository == identity.repository else tuple(subjects)
                yield RepositoryQuestions(repository, digests, tuple(tags))

    def find_facts(self) -> InquiryResult:
        """Return the facts, but for those that depend on other images; call it after :meth:`identify`."""
        container, identity, search = self._container, self._identity, self._search
        facts = self._tag_facts()
        tag = judge_tag(facts, identity, container.image)
        missed = list(search.missed)
        if facts.failure and self._reference is not None:
            missed.append(Unseen(f"registry {self._reference.name}", facts.failure))
        reading = AdvisoryReading() if identity is None else self._read(identity, tag)
        # One for each repository: more would be as many as there are images.
        first = dict(reversed(reading.missed))
        missed += [Unseen(f"registry {where.name}", reason) for where, reason in first.items()]
        placement = self._placement(tag, missed)
        return InquiryResult(
            container,
            RegistryFacts(
                identity,
                facts,
                reading,
                reasons=(*self._reasons, *search.reasons),
                unanswered=bool(missed),
            ),
            placement,
            tuple(missed),
        )

    def _tag_facts(self) -> TagFacts:
        image, identity, reference, failure = (
            self._container.image, self._identity, self._reference, self._search.failure,
        )  # fmt: skip
        if reference is None or reference.digest is not None or not image.registry_named:
            return TagFacts(reference)
        inspector = TagInspector(self._queries, identity, image.platform, self._search.digests, self._names)
        if isinstance(failure, Unreachable):
            return inspector.inspect_elsewhere(reference, failure)
        if failure is not None:
            return TagFacts(reference, asked=False)  # the search has reported why
        if image.claims or (image.abbreviations and identity is not None):
            return inspector.inspect(reference)
        return inspector.point(reference)

    def _without_tags(self) -> frozenset[Reference]:
        """Return the mirrors of the image's repository whose tags do not count."""
        if self._reference is None:
            return frozenset()
        others = self._names.others(self._reference.repository_only())
        return frozenset(other.repository for other in others if not other.tags)

    def _read(self, identity: ImageIdentity, tag: TagVerdict) -> AdvisoryReading:
        """Return the advisories of the image that runs, including those of the index that the container's tag
        points to now."""
        search = self._search
        own = self._reference.repository_only() if self._reference is not None else None
        if tag.state == "current" and tag.digest is not None and identity.repository == own:
            identity = replace(identity, closure=identity.closure | {tag.digest})
        others = search.elsewhere(identity)
        reading = self._advisories.gather(identity, others, without_tags=self._without_tags(), own=own)
        if search.failure is not None and own not in (identity.repository, *others):
            why = f"what is attached to it in its own repository is not known: {search.failure.message}"
            reading.miss(own or identity.repository, why)
        for repository, why in search.silent.items():
            reading.miss(repository, f"what is attached to it in {repository.name} is not known: {why}")
        return reading

    def _placement(self, tag: TagVerdict, missed: list[Unseen]) -> TagPlacement:
        identity = self._identity
        if identity is None or not self._container.runs:
            return NOWHERE
        try:
            return find_tag_placement(self._queries, identity, self._reference, tag)
        except DigestryError as error:
            missed.append(Unseen(f"registry {identity.repository.name}", error.message, error.hint))
            return NOWHERE


def finish(
    queries: RegistryQueries, advisories: ImageAdvisories, found: InquiryResult, others: AdvisoryIndex
) -> InquiryResult:
    """Return ``found`` with the facts that depend on ``others``, the advisories of all images: advisories
    about the same code, a fixed image in place of an affected one, and the advisories of other images that
    may be the one that runs."""
    facts, identity = found.facts, found.facts.identity
    if identity is None:
        return found
    counted, objections = counted_for([identity.repository], others.about(identity), queries.trust)
    elsewhere = tuple(counted)
    facts = replace(facts, reasons=(*facts.reasons, *objections))
    bad = [
        advisory
        for advisory in known_in_force(facts.reading, elsewhere)
        if advisory.statement.status == "affected"
    ]
    if bad:
        fix = FixSearch(queries, advisories).find(identity, facts.tag, bad)
        return replace(found, facts=replace(facts, elsewhere=elsewhere, fix=fix))
    possible = _possible(advisories, identity)
    return replace(found, facts=replace(facts, elsewhere=elsewhere, possible=possible))


def _possible(advisories: ImageAdvisories, identity: ImageIdentity) -> tuple[PossibleImage, ...]:
    return tuple(
        PossibleImage(digest, advisories.read_possible(identity, digest))
        for digest in sorted(identity.possible)
    )
