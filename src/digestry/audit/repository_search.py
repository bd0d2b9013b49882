"""The search for a repository that has a running image: the image's own, under any name, or another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from digestry.audit.graph_explorer import MOST_TAGS, GraphExplorer, digests_with_prefix
from digestry.audit.identification import identify
from digestry.audit.image_identity import ImageIdentity, unconfirmed
from digestry.audit.image_names import NO_NAMES, ImageNames
from digestry.audit.registry_queries import RegistryQueries
from digestry.errors import DigestryError, Unreachable
from digestry.inventory.observation import Claim, ImageFacts, Unseen
from digestry.model.digest import Digest
from digestry.model.reference import Reference


@dataclass(frozen=True, slots=True)
class RepositoryQuestions:
    """The queries that one repository will be sent. ``named`` is False if only a runtime named it."""

    repository: Reference
    digests: tuple[Digest, ...]
    tags: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    named: bool = True


class RepositorySearch:
    """A search for the image that a container runs: in its own repository first, under all its names, then in
    others that the runtime named.

    ``failure`` is the error of its own repository, ``missed`` are all failed queries, and ``silent`` are the
    repositories that may have the same code, with the errors.
    """

    def __init__(
        self,
        queries: RegistryQueries,
        image: ImageFacts,
        reference: Reference | None,
        names: ImageNames = NO_NAMES,
        *,
        remarked: bool = False,
    ) -> None:
        self._queries = queries
        self._image = image
        self._remarked = remarked
        self._reference = reference
        self._own = None if reference is None else reference.repository_only()
        self._bare = tuple(claim for claim in image.claims if claim.repository is None)
        self._names = names
        searchable = self._own is not None and image.registry_named
        self._same = names.others(self._own) if self._own is not None and searchable else ()
        self.failure: DigestryError | None = None
        self.reasons: list[str] = []
        self.missed: list[Unseen] = []
        self.silent: dict[Reference, str] = {}

    @property
    def digests(self) -> tuple[Digest, ...]:
        """Return every digest that the runtime reported, of any kind."""
        seen = self._image
        given = [claim.digest for claim in seen.claims]
        return tuple(
            dict.fromkeys(given if seen.platform_manifest is None else [*given, seen.platform_manifest])
        )

    def find(self) -> ImageIdentity | None:
        """Return the image that runs, None if nothing is known of it, and note the reasons."""
        identity = self._at_its_name() or self._by_another_name() or self._abbreviated() or self._in_others()
        if identity is None:
            identity = self._believed()
        if identity is None:
            why = self._why_unknown()
            self.reasons += [why] if why else []
        return identity

    def _at_its_name(self) -> ImageIdentity | None:
        """Return the image that runs, confirmed by the repository of its own name."""
        if self._reference is None or not self._image.registry_named:
            return None
        return self._identify(self._reference, self._claims(self._own))

    def _in_others(self) -> ImageIdentity | None:
        """Return the image that runs, confirmed by another repository that the runtime names."""
        for repository in self._others():
            identity = self._identify(repository, self._claims(repository))
            if identity is None:
                continue
            at_home = self._in_own_repository(identity)
            if at_home is not None:
                return at_home
            if self._own is not None:
                self.reasons.append(
                    f"known to {repository.name} only, another repository than the container's own"
                )
            return identity
        return None

    def _in_own_repository(self, identity: ImageIdentity) -> ImageIdentity | None:
        """Return the same code, which another repository knows, in the container's own; None if it is not
        there. A runtime may name one of several repositories from which it had pulled that code."""
        own = self._reference
        if own is None or identity.config is None or not self._image.registry_named:
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

    def _by_another_name(self) -> ImageIdentity | None:
        """Return the image that runs, confirmed under the first other name that knows the digest."""
        for other in self._same:
            tag = self._reference.tag if self._reference is not None and other.tags else None
            named = other.repository if tag is None else other.repository.with_tag(tag)
            identity = self._identify(named, self._claims(other.repository))
            if identity is not None:
                own = "" if self._own is None else self._own.name
                self.reasons.append(f"confirmed by {other.repository.name}, another name of {own}")
                return identity
        return None

    def _abbreviated(self) -> ImageIdentity | None:
        """Return the image that runs, found by a digest's prefix, if only one digest has that prefix."""
        if self._own is None or not self._image.registry_named:
            return None
        for given in self._image.abbreviations:
            origin = f"{given.read_from} has only the beginning of a digest, {given.encoded}"
            try:
                found = digests_with_prefix(self._queries, self._own, given.encoded)
            except DigestryError as error:
                self._failed(self._own, error)
                return None
            if len(found.digests) != 1:
                number = f"{len(found.digests)} digests begin so" if found.digests else "no digest begins so"
                self.reasons.append(f"{origin}: {number} in {self._own.name}{found.among}")
                continue
            claim = Claim(found.digests[0], "unknown", self._own, given.read_from, given.found_by, False)
            identity = self._identify(self._reference or self._own, (claim, *self._claims(self._own)))
            if identity is not None:
                self.reasons.append(f"{origin}: one digest of {self._own.name}{found.among} begins so")
                return identity
        return None

    def elsewhere(self, identity: ImageIdentity) -> dict[Reference, frozenset[Digest]]:
        """Return the other repositories that have the code of ``identity``, with the digests that are or hold
        it there.

        They are repositories that the runtime names, or other names of its own.
        """
        named: dict[Reference, frozenset[Digest]] = {}
        for claim in self._image.claims:
            if claim.repository is None or claim.repository in named:
                continue
            if claim.digest in identity.closure:
                named[claim.repository] = identity.closure
            elif claim.repository != identity.repository:
                # The image that was pulled from there may be another manifest with the same config.
                there = self._same_code(claim.repository, identity)
                if there:
                    named[claim.repository] = identity.closure | there
        other_names = [other.repository for other in self._same]
        for repository in [*other_names, *([self._own] if other_names and self._own is not None else [])]:
            named.setdefault(repository, identity.closure)
        named.pop(identity.repository, None)
        return named

    def _same_code(self, repository: Reference, identity: ImageIdentity) -> frozenset[Digest]:
        """Return the digests of the code of ``identity`` in another repository, which the runtime names."""
        if identity.config is None:
            return frozenset()
        explorer = GraphExplorer.of(self._queries, repository)
        try:
            for claim in self._image.claims:
                if claim.repository == repository:
                    explorer.explore(claim.digest)
                    explorer.expand_children(claim.digest, self._image.platform)
            explorer.explore(identity.config, is_config=True)
        except DigestryError as error:
            self.reasons.append(f"{repository.name} could not be asked: {error.message}")
            self.missed.append(Unseen(f"registry {repository.name}", error.message, error.hint))
            self.silent[repository] = error.message
        return explorer.graph.closure(identity.config) - {identity.config}

    def questions(self) -> Iterator[RepositoryQuestions]:
        """Yield the queries that each repository will be sent, as far as they are known in advance."""
        reference, seen = self._reference, self._image
        if reference is not None and self._own is not None and seen.registry_named:
            tag = reference.tag if reference.digest is None else None
            for repository, tags in (
                (self._own, True),
                *((found.repository, found.tags) for found in self._same),
            ):
                yield RepositoryQuestions(
                    repository,
                    self._digests(repository),
                    (tag,) if tag is not None and tags else (),
                    tuple(given.encoded for given in seen.abbreviations),
                )
        for repository in self._others():
            yield RepositoryQuestions(repository, self._digests(repository), named=False)

    def _digests(self, repository: Reference) -> tuple[Digest, ...]:
        more = self._image.platform_manifest
        claimed = tuple(claim.digest for claim in self._claims(repository))
        return claimed if more is None else (*claimed, more)

    def _claims(self, repository: Reference | None) -> tuple[Claim, ...]:
        names = [repository]
        group = [self._own, *(other.repository for other in self._same)]
        if repository in group:
            names += [name for name in group if name != repository]
        claims = self._image.claims
        named = [claim for name in names if name is not None for claim in claims if claim.repository == name]
        return (*named, *self._bare)

    def _others(self) -> list[Reference]:
        named = dict.fromkeys(claim.repository for claim in self._image.claims)
        own = {self._own, *(other.repository for other in self._same)}
        return [name for name in named if name is not None and name not in own]

    def _identify(self, reference: Reference, claims: tuple[Claim, ...]) -> ImageIdentity | None:
        if not claims:
            return None
        try:
            return identify(self._queries, reference, claims, self._image)
        except DigestryError as error:
            self._failed(reference, error)
            return None

    def _failed(self, reference: Reference, error: DigestryError) -> None:
        if reference.repository_only() == self._own:
            self.failure = error
        self.reasons.append(f"{reference.name} could not be asked: {error.message}")
        self.missed.append(Unseen(f"registry {reference.name}", error.message, error.hint))

    def _believed(self) -> ImageIdentity | None:
        """Return the image that the runtime names, if no registry confirms it and it is still useful."""
        own = self._claims(self._own)
        rest = tuple(claim for claim in self._image.claims if claim not in own)
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
                ordered = (claim, *(other for other in self._image.claims if other != claim))
                return unconfirmed(where, ordered, why)
        return None

    def _why_unknown(self) -> str:
        """Return why nothing is known of the image that runs; empty if the reason was reported already."""
        if self.failure is not None or self._image.abbreviations:
            return ""
        claims = self._image.claims
        if not claims:
            return "" if self._remarked else "nothing is known of the image that runs"
        given = next((claim for claim in claims if claim.found_by != "image-id"), claims[0])
        origin = f"{given.read_from} is {given.digest}"
        repository = self._own if self._image.registry_named else None
        local = "built or loaded locally, never pushed or pulled"
        if repository is None:
            lack = "no name is known" if self._own is None else "its name has no registry in it"
            return f"{origin}, and {lack} to look it up by: perhaps {local}"
        if self._can_deny(repository, given.digest):
            return f"{origin}, which {repository.name} never had as a manifest, an index or a config: {local}"
        return (
            f"{origin}, which {repository.name} does not have now, as far as its first {MOST_TAGS} tags "
            f"tell; {repository.host} does not say what it had before: perhaps {local}"
        )

    def _can_deny(self, repository: Reference, digest: Digest) -> bool:
        """Return whether the registry itself can say that it never had ``digest``."""
        try:
            known = self._queries.holders(repository, digest) is not None
            return known and self._queries.may_see(repository)
        except DigestryError:
            return False
