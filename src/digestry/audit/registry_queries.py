"""The audit's queries to registries, each sent once.

:class:`Registries` and :class:`RegistryRepository` are the parts of the client that are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Final, Protocol

from digestry.advisories.trust import TRUST_EVERYBODY, TrustPolicy
from digestry.audit.bulk_answers import single_answers
from digestry.audit.query_cache import TIMEOUT, QueryCache
from digestry.audit.referred_parts import ReferredParts, base_reference
from digestry.errors import DigestryError, RemoteDamaged, RemoteError, RemoteNotFound, Unreachable
from digestry.model.age_answers import PassedOver
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.history import Holders, TagEvent, TagSpan
from digestry.model.image_parts import LayerImages
from digestry.model.manifest import Manifest
from digestry.model.reference import Reference
from digestry.model.resolution import MOST_QUERIES, Resolutions, ResolveQuery
from digestry.model.sightings import SightingReport, SightingsReceipt, batch

MOST_SPANS: Final = 1000
"""The most spans of tags at one digest that a query returns, the newest first."""

_EACH: Final = 200  # digests of one query
_LARGEST_REMEMBERED: Final = 256 << 10  # bytes of a blob


class RegistryRepository(Protocol):
    """One repository of a registry, as far as this package uses it. Its methods raise
    :class:`~digestry.errors.DigestryError`."""

    def resolve(self, target: str) -> Descriptor: ...

    def pull_manifest(self, target: str) -> Manifest: ...

    def read_blob(self, descriptor: Descriptor, *, limit: int = ...) -> bytes: ...

    def tags(self) -> Iterator[str]: ...

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> Sequence[Descriptor]: ...

    def tag_history(self, tag: str) -> Sequence[TagEvent] | None: ...

    def holders(self, digest: Digest) -> Holders | None: ...

    def tags_for_digest(self, digest: Digest, limit: int | None = ...) -> Sequence[TagSpan] | None: ...

    def images_with_layer(self, layer: Digest, *, limit: int = ...) -> LayerImages | None: ...


class Registries(Protocol):
    """The source of repositories: the client's session."""

    def repository(self, reference: Reference) -> RegistryRepository: ...

    def resolve_many(
        self, host: str, queries: Sequence[ResolveQuery], *, contents: bool = False
    ) -> Resolutions | None: ...

    def authenticated(self, host: str) -> bool: ...

    def staleness(self, repository: Reference, target: str) -> str: ...

    def passed_over(self, repository: Reference, tag: str) -> PassedOver | None: ...

    def head_get_mismatch(self, repository: Reference, tag: str) -> str: ...

    def record_sightings(self, host: str, sightings: Sequence[SightingReport]) -> SightingsReceipt | None: ...


class RegistryQueries:
    """Queries to registries, whose answers are cached during one audit. Thread-safe.

    Each takes ``timeout`` seconds at the most. A registry that does not answer is not asked again, as
    :class:`~digestry.audit.query_cache.QueryCache` says. ``trust`` decides which advisories count.
    A tag resolves to what a pull gets now, which a minimum age may make another digest than the one that the
    tag points to by the journal: :meth:`passed_over`.
    """

    def __init__(
        self,
        registries: Registries,
        *,
        timeout: float = TIMEOUT,
        trust: TrustPolicy = TRUST_EVERYBODY,
    ) -> None:
        self._registries = registries
        self._cache = QueryCache(timeout)
        self._trust = trust
        self._own: set[Reference] = set()

    @property
    def trust(self) -> TrustPolicy:
        """The policy that decides which advisories count."""
        return self._trust

    def resolve(self, repository: Reference, tag: str) -> Descriptor | None:
        """Return the descriptor that a pull by ``tag`` gets now; None if there is no such tag."""

        def ask() -> Descriptor | None:
            try:
                return self._registries.repository(repository).resolve(tag)
            except RemoteNotFound:
                return None

        return self._cache.ask_once(repository.host, ("resolve", repository, tag), ask)

    def passed_over(self, repository: Reference, tag: str) -> PassedOver | None:
        """Return where a tag points that was resolved, if a minimum age has a pull get an older digest or,
        when :meth:`resolve` fails, none; as far as the registry said so."""
        question = "passed over", repository, tag
        if question not in self._cache:
            return self._registries.passed_over(repository, tag)
        return self._cache.ask_once(repository.host, question, lambda: None)

    def manifest(self, repository: Reference, digest: Digest) -> Manifest | None:
        """Return the manifest or index; None if the repository lacks it or has it damaged."""
        try:
            return self.listed_manifest(repository, digest)
        except RemoteDamaged:
            return None

    def listed_manifest(self, repository: Reference, digest: Digest) -> Manifest | None:
        """Return a manifest that the registry has listed, as :meth:`manifest` does. Raises
        :class:`RemoteDamaged` if the registry cannot send it: it may be the only advisory on an image."""

        def ask() -> Manifest | None:
            try:
                return self._registries.repository(repository).pull_manifest(str(digest))
            except RemoteDamaged:
                raise
            except RemoteNotFound:
                return None

        return self._cache.ask_once(repository.host, ("manifest", repository, digest), ask)

    def blob(self, repository: Reference, descriptor: Descriptor, *, limit: int) -> bytes:
        """Return a small blob's verified bytes. Raises :class:`~digestry.errors.TooLarge` over ``limit``."""

        def ask() -> bytes:
            return self._registries.repository(repository).read_blob(descriptor, limit=limit)

        if descriptor.size > _LARGEST_REMEMBERED:
            return self._cache.ask_uncached(repository.host, "blob", ask)
        return self._cache.ask_once(
            repository.host, ("blob", repository, descriptor.digest, descriptor.size), ask
        )

    def tags(self, repository: Reference, *, most: int) -> tuple[str, ...]:
        """Return the repository's tags, up to ``most`` of them; empty if there is no such repository."""

        def ask() -> tuple[str, ...]:
            try:
                return tuple(islice(self._registries.repository(repository).tags(), most))
            except RemoteNotFound:
                return ()

        return self._cache.ask_once(repository.host, ("tags", repository, most), ask)

    def referrers(self, repository: Reference, digest: Digest) -> tuple[Descriptor, ...]:
        """Return the referrers of ``digest``; empty if there are none."""

        def ask() -> tuple[Descriptor, ...]:
            try:
                found = tuple(self._registries.repository(repository).referrers(digest))
            except RemoteNotFound:
                return ()
            stale = self._registries.staleness(repository, str(digest))
            if stale:
                raise RemoteError(f"{repository.host} could not ask the registry that it mirrors: {stale}")
            return found

        return self._cache.ask_once(repository.host, ("referrers", repository, digest), ask)

    def tag_history(self, repository: Reference, tag: str) -> tuple[TagEvent, ...] | None:
        """Return where ``tag`` has pointed, newest first; None if the registry keeps no history."""

        def ask() -> tuple[TagEvent, ...] | None:
            try:
                events = self._registries.repository(repository).tag_history(tag)
            except RemoteNotFound:
                return None
            return None if events is None else tuple(events)

        return self._cache.ask_once(repository.host, ("history", repository, tag), ask)

    def tags_for_digest(self, repository: Reference, digest: Digest) -> tuple[TagSpan, ...] | None:
        """Return the spans of tags at ``digest``, or at an index that holds it, newest first; None if the
        registry has no such query."""

        def ask() -> tuple[TagSpan, ...] | None:
            try:
                spans = self._registries.repository(repository).tags_for_digest(digest, MOST_SPANS)
            except RemoteNotFound:
                return None
            return None if spans is None else tuple(spans)

        return self._cache.ask_once(repository.host, ("whose", repository, digest), ask)

    def holders(self, repository: Reference, digest: Digest) -> Holders | None:
        """Return which manifests are or hold ``digest``; None if the registry cannot say."""

        def ask() -> Holders | None:
            try:
                return self._registries.repository(repository).holders(digest)
            except RemoteNotFound:
                return None

        return self._cache.ask_once(repository.host, ("holders", repository, digest), ask)

    def digests_with_prefix(self, repository: Reference, encoded: str) -> tuple[Digest, ...] | None:
        """Return a few of the digests that begin with these hex digits; None if the registry cannot say."""
        query = ResolveQuery(repository.repository, prefixes=(encoded,))

        def ask() -> tuple[Digest, ...] | None:
            found = self._registries.resolve_many(repository.host, [query])
            return None if found is None else found.resolutions[0].prefixes.get(encoded)

        return self._cache.ask_once(repository.host, ("prefix", repository, encoded), ask)

    def base_with(self, repository: Reference, layer: Digest) -> Reference | None:
        """Return the image of ``repository`` that a layer came with, by tag and digest; None if none has it,
        or the registry cannot say."""

        def ask() -> Reference | None:
            try:
                found = self._registries.repository(repository).images_with_layer(layer, limit=1)
            except RemoteNotFound:
                return None
            if found is None or not found.images:
                return None
            return base_reference(repository.host, found.images[0])

        return self._cache.ask_once(repository.host, ("base", repository, layer), ask)

    def referred_parts(self, repository: Reference, image: Digest) -> ReferredParts | None:
        """Return the layers and configs of ``image``, a manifest, that something refers to; None if the
        registry cannot say. The referrers are answers of :meth:`referrers` then."""
        question = "parts", repository, image
        query = ResolveQuery(repository.repository, (image,))

        def ask() -> ReferredParts | None:
            try:
                found = self._registries.resolve_many(repository.host, [query], contents=True)
            except Unreachable:
                raise
            except DigestryError:
                return None  # the single queries remain
            if found is None:
                return None
            answers = dict(single_answers(repository.host, found.resolutions[0], found.contents))
            for key, value in answers.items():
                if key != question:
                    self._cache.store(key, value)
            parts = answers.get(question)
            if isinstance(parts, ReferredParts):
                return parts
            known = any(node.digest == image for node in found.resolutions[0].nodes)
            return None if known else ReferredParts()

        return self._cache.ask_once(repository.host, question, ask)

    def is_own(self, repository: Reference) -> bool:
        """Return whether the registry said that a repository is its own, and not a copy of another
        registry's."""
        return repository in self._own

    def staleness(self, repository: Reference, tag: str) -> str:
        """Return why the answer of :meth:`resolve` may be out of date; empty if nothing indicates that."""
        return self._registries.staleness(repository, tag)

    def head_get_mismatch(self, repository: Reference, tag: str) -> str:
        """Return why the registry's answer about the tag is not credible; empty if it is."""

        def ask() -> str:
            return self._registries.head_get_mismatch(repository, tag)

        return self._cache.ask_once(repository.host, ("contradiction", repository, tag), ask)

    def may_see(self, repository: Reference) -> bool:
        """Return whether the account may see the repository, if it exists. A registry hides a repository from
        an account that may not read it. Raises what the queries raise."""
        if not self._registries.authenticated(repository.host):
            return True
        return bool(self.tags(repository, most=1))

    def prefetch_digests(self, repository: Reference, digests: Sequence[Digest]) -> None:
        """Do as :meth:`prefetch` does, for many digests of one repository."""
        unasked = [
            digest for digest in dict.fromkeys(digests) if ("holders", repository, digest) not in self._cache
        ]
        if len(unasked) > 1:
            queries = [
                ResolveQuery(repository.repository, tuple(unasked[start : start + _EACH]))
                for start in range(0, len(unasked), _EACH)
            ]
            self.prefetch(repository.host, queries)

    def prefetch_tags(self, repository: Reference, tags: Sequence[str]) -> None:
        """Do as :meth:`prefetch` does, for the tags of one repository."""
        unasked = tuple(tag for tag in tags if ("resolve", repository, tag) not in self._cache)
        if len(unasked) > 1:
            self.prefetch(repository.host, [ResolveQuery(repository.repository, tags=unasked)])

    def prefetch(self, host: str, queries: Sequence[ResolveQuery]) -> None:
        """Send ``host`` all of these queries in as few requests as possible, and cache the answers.

        Raises nothing: a query without an answer is sent again when it is needed.
        """
        left = list(queries)
        while left:
            try:
                found = self._cache.ask_uncached(
                    host, "many", partial(self._ask_many, host, left[:MOST_QUERIES])
                )
            except DigestryError:
                return
            if found is None:
                return
            for resolution in found.resolutions:
                if not resolution.upstream:
                    self._own.add(Reference(host, resolution.repository))
                for key, value in single_answers(host, resolution, found.contents):
                    self._cache.store(key, value)
            left = left[len(found.resolutions) :]

    def record(self, host: str, sightings: Sequence[SightingReport]) -> SightingsReceipt | None:
        """Report to ``host`` where images of its repositories run; None if it keeps no sightings."""
        result = SightingsReceipt()
        left = list(sightings)
        while left:
            some = left[: batch(left)]
            noted = self._cache.ask_uncached(
                host, "record", partial(self._registries.record_sightings, host, some)
            )
            if noted is None:
                return None
            result += noted
            left = left[len(some) :]
        return result

    def _ask_many(self, host: str, queries: Sequence[ResolveQuery]) -> Resolutions | None:
        return self._registries.resolve_many(host, queries, contents=True)

    def unreachable(self) -> list[tuple[str, Unreachable]]:
        """Return the registries that did not answer, by name."""
        return self._cache.unreachable()
