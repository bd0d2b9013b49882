"""The inspection of a container's tag: ask its registry for the facts that a verdict needs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

from digestry.audit.graph_explorer import GraphExplorer
from digestry.audit.identification import extended
from digestry.audit.image_identity import ImageIdentity
from digestry.audit.image_names import NO_NAMES, ImageNames
from digestry.audit.registry_queries import RegistryQueries
from digestry.audit.tag_verdict import TagFacts, contradicted, cut_off, left_at
from digestry.errors import DigestryError, RemoteError, Unreachable
from digestry.model.digest import Digest
from digestry.model.history import TagEvent
from digestry.model.platform import Platform
from digestry.model.reference import Reference


@dataclass(frozen=True, slots=True)
class TagInspector:
    """The inspector of the tags of one container's image, which runs ``identity``.

    None for ``identity`` is code that the tag's repository does not know. ``claims`` are all digests that the
    runtime gave: the verdict "never pointed there" requires that the registry's whole history has none of
    them, as an index, a manifest or a config. The repository's other ``names`` are asked only if its registry
    is unreachable.
    """

    queries: RegistryQueries
    identity: ImageIdentity | None
    platform: Platform | None
    claims: tuple[Digest, ...] = ()
    names: ImageNames = NO_NAMES

    def inspect(self, reference: Reference) -> TagFacts:
        """Return the facts about the tag of ``reference``. Errors are in the result."""
        if reference.digest is not None or reference.tag is None:
            return TagFacts(reference)
        try:
            target = self.queries.resolve(reference.repository_only(), reference.tag)
        except Unreachable as error:
            return self.inspect_elsewhere(reference, error)
        except DigestryError as error:
            young = self.queries.passed_over(reference.repository_only(), reference.tag)
            if young is None or not young.refused:
                return _failed(TagFacts(reference), "the tag could not be looked up", error)
            return self._inspect_refused(TagFacts(reference, target=young.digest, refused=True))
        passed = self.queries.passed_over(reference.repository_only(), reference.tag)
        newest = None if passed is None or passed.refused else passed.digest
        facts = TagFacts(reference, target=None if target is None else target.digest, passed_over=newest)
        identity = self.identity
        if identity is None:
            return self._with_history(facts)
        if facts.target is not None:
            try:
                for pointed in filter(None, (facts.target, newest)):
                    identity = self._extended(identity, reference.repository_only(), pointed)
            except DigestryError as error:
                return _failed(facts, "what the tag points to could not be read", error)
        facts = replace(facts, closure=identity.closure)
        if facts.target is None:
            return self._with_history(facts)
        if not identity.closure.isdisjoint(filter(None, (facts.target, newest))):
            return facts if identity.contested else self._with_objection(facts, reference, reference.tag)
        try:
            facts = replace(facts, instead=self._pointed_instead(reference, identity, facts.target))
        except DigestryError as error:
            return _failed(facts, "what the tag points to could not be read", error)
        return facts if facts.instead is not None else self._with_history(facts)

    def _inspect_refused(self, facts: TagFacts) -> TagFacts:
        """Return the facts about a tag to whose target no pull leads."""
        reference, identity, target = facts.reference, self.identity, facts.target
        if reference is None or identity is None or target is None:
            return self._with_history(facts)
        # What is too young may not be readable by its digest either.
        with contextlib.suppress(RemoteError):
            identity = self._extended(identity, reference.repository_only(), target)
        facts = replace(facts, closure=identity.closure)
        return facts if target in identity.closure else self._with_history(facts)

    def inspect_elsewhere(self, reference: Reference, error: Unreachable) -> TagFacts:
        """Return the facts about the tag after an ``error`` of the reference's own registry: from the first
        of the repository's other names whose tags count. A mirror may be behind."""
        alone = replace(self, names=NO_NAMES)
        for other in self.names.others(reference.repository_only()):
            if not other.tags or reference.tag is None:
                continue
            facts = alone.inspect(other.repository.with_tag(reference.tag))
            if not facts.failure:
                why = f"{reference.host} does not answer: the tag is judged by {other.repository.name}"
                return replace(facts, remarks=(why,))
        return _failed(TagFacts(reference), "the tag could not be looked up", error)

    def point(self, reference: Reference) -> TagFacts:
        """Return where the tag points, without a digest to compare. Errors are in the result."""
        facts = TagFacts(reference, comparable=False)
        try:
            target = self.queries.resolve(reference.repository_only(), reference.tag or "")
        except DigestryError as error:
            young = self.queries.passed_over(reference.repository_only(), reference.tag or "")
            if young is not None and young.refused:
                return replace(facts, target=young.digest, refused=True)
            return _failed(facts, "the tag could not be looked up", error)
        return replace(facts, target=None if target is None else target.digest)

    def _extended(self, identity: ImageIdentity, repository: Reference, target: Digest) -> ImageIdentity:
        own = identity.repository == repository
        if own or any(other.repository == identity.repository for other in self.names.others(repository)):
            return extended(self.queries, identity, target, self.platform, repository)
        return identity

    def _with_objection(self, facts: TagFacts, reference: Reference, tag: str) -> TagFacts:
        """Return ``facts`` with the reason why its registry may be wrong that the tag points to the image
        that runs."""
        repository = reference.repository_only()
        stale = self.queries.staleness(repository, tag)
        if stale:
            why = f"{repository.host} mirrors the tag, and could not see where it points now: {stale}"
            return replace(facts, objection=why)
        try:
            return replace(facts, objection=self.queries.head_get_mismatch(repository, tag))
        except DigestryError as error:
            return _failed(facts, "the tag could not be requested again", error)

    def _pointed_instead(
        self, reference: Reference, identity: ImageIdentity, target: Digest
    ) -> Digest | None:
        """Return another image that may be the one that runs, and that is or is in ``target``, where the tag
        points; None if there is none."""
        known = GraphExplorer(self.queries, identity.graph)
        others: set[Digest] = set(identity.possible)
        for digest in identity.contested:
            node = known.nodes.get(digest)
            inside = known.images_of(digest, None) if node is not None and node.is_index else [digest]
            others.update((digest, *inside))
        if not others - identity.closure:
            return None
        explorer = GraphExplorer.of(self.queries, reference.repository_only())
        explorer.expand(target, None)
        for digest in sorted(others - identity.closure):
            node = known.nodes.get(digest)
            config = None if node is None else node.config
            explorer.explore(config or digest, is_config=config is not None)
            if target in explorer.graph.closure(config or digest):
                return digest
        return None

    def _with_history(self, facts: TagFacts) -> TagFacts:
        """Return ``facts`` with the history of the tag and, if the image that runs is not in it, the reason
        why it may be missing."""
        reference = facts.reference
        if reference is None or reference.tag is None:
            return facts
        repository = reference.repository_only()
        try:
            history = self.queries.tag_history(repository, reference.tag)
        except DigestryError as error:
            return _failed(facts, "the tag's history could not be read", error)
        facts = replace(facts, history=history)
        if history is None or contradicted(facts, history) or left_at(history, facts.closure) is not None:
            return facts
        if cut_off(facts, history):
            return facts
        try:
            doubt = self._why_uncertain(repository, history, facts.closure.union(self.claims))
        except DigestryError as error:
            return _failed(facts, "what the tag pointed to could not be looked up", error)
        return replace(facts, doubt=doubt)

    def _why_uncertain(
        self, repository: Reference, history: tuple[TagEvent, ...], digests: frozenset[Digest]
    ) -> str:
        """Return why the tag may have pointed to one of ``digests`` all the same; empty if it never did.

        It never did if the registry knows everything that the tag pointed to, down to the configs, and none
        of that is one of ``digests``.
        """
        observed = next((event.observed_in for event in history if event.observed_in), "")
        if observed:
            return (
                f"{repository.host} only mirrors {observed}: it knows what the tag pointed to when it was "
                "asked, not in between"
            )
        if not digests:
            return "nothing is known of what runs that could be compared with the tag's history"
        if not history and not self.queries.may_see(repository):
            return f"{repository.name} does not exist, or is not visible to this account"
        pointed = tuple(dict.fromkeys(event.to_digest for event in history if event.to_digest is not None))
        self.queries.prefetch_digests(repository, (*pointed, *digests))
        explorer = GraphExplorer.of(self.queries, repository)
        for digest in digests:
            explorer.explore(digest)
        return (
            _forgotten(explorer, pointed)
            or _incomplete(explorer, pointed)
            or _cannot_say(explorer)
            or _held(explorer, pointed, digests)
        )


def _failed(facts: TagFacts, what: str, error: DigestryError) -> TagFacts:
    return replace(facts, failure=f"{what}: {error.message}")


def _forgotten(explorer: GraphExplorer, pointed: tuple[Digest, ...]) -> str:
    for digest in pointed:
        if digest not in explorer.nodes and not explorer.explore(digest):
            host = explorer.repository.host
            return f"the tag pointed to {digest}, and {host} no longer knows what that was"
    return ""


def _incomplete(explorer: GraphExplorer, pointed: tuple[Digest, ...]) -> str:
    for digest in pointed:
        missing = explorer.unknown_inside(digest)
        if missing is not None:
            host = explorer.repository.host
            return f"the tag pointed to {digest}, and {host} never had {missing}, which belongs to it"
    return ""


def _cannot_say(explorer: GraphExplorer) -> str:
    if explorer.graph.complete:
        return ""
    return f"{explorer.repository.host} cannot say which images hold what runs"


def _held(explorer: GraphExplorer, pointed: tuple[Digest, ...], digests: frozenset[Digest]) -> str:
    for digest in digests:
        holding = explorer.graph.closure(digest)
        found = next((holder for holder in pointed if holder in holding), None)
        if found is not None:
            return (
                f"the tag pointed to {found}, which holds {digest}: it is not certain that this is what runs"
            )
    return ""
