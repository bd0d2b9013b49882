"""The reads of one repository: the face of the catalog, and of a catalog with nothing in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Unpack

from digestry.catalog.journal import Filters
from digestry.catalog.observation_rows import Span
from digestry.catalog.referrer_pages import Cursor, Page
from digestry.model.digest import Digest
from digestry.model.digest_prefix import DigestPrefix
from digestry.model.history import Holders, TagEvent, TagSpan
from digestry.model.image_parts import LayerImage
from digestry.model.sightings import SightingsOf
from digestry.translog.entries import Opening


class Tag(Protocol):
    """A tag in a list."""

    @property
    def name(self) -> str: ...


class TagHistoryQueries(Protocol):
    """Questions about where tags pointed."""

    def latest(self, repository: str, /) -> int: ...

    def tag_at(self, repository: str, tag: str, at: int, /) -> TagSpan | None: ...

    def tags_at(self, repository: str, at: int, /, *, after: str = "", limit: int) -> list[TagSpan]: ...

    def tags_for_digest(
        self,
        repository: str,
        digest: Digest,
        /,
        *,
        before: int | None = None,
        before_time: int | None = None,
        layers: bool = False,
        limit: int,
    ) -> list[TagSpan]: ...


class DigestPrefixQueries(Protocol):
    """The question which digests begin with a prefix."""

    def in_repository(self, repository: str, prefix: DigestPrefix, /, *, limit: int) -> list[Digest]: ...


class SightingQueries(Protocol):
    """The question where a digest ran."""

    def of(self, repository: str, digest: Digest, /, *, limit: int) -> SightingsOf: ...


class ObservationQueries(Protocol):
    """The question what was observed of a tag in another registry."""

    def spans(
        self, repository: str, tag: str, /, *, before: int | None = None, limit: int
    ) -> Sequence[Span]: ...


class LogQueries(Protocol):
    """The question what the log has of a repository."""

    def openings(
        self,
        repository: str,
        /,
        *,
        audits: bool,
        tag: str | None = None,
        first: int = 0,
        index: int | None = None,
        limit: int,
    ) -> list[Opening]: ...


class RepositoryQueries(Protocol):
    """Reads of one repository. Thread-safe; each blocks, and raises :class:`StorageError`."""

    @property
    def tag_history(self) -> TagHistoryQueries: ...

    @property
    def digest_prefixes(self) -> DigestPrefixQueries: ...

    @property
    def sightings(self) -> SightingQueries: ...

    @property
    def observations(self) -> ObservationQueries: ...

    @property
    def log(self) -> LogQueries: ...

    def has_repository(self, repository: str, /) -> bool: ...

    def tags(self, repository: str, /, *, after: str = "", limit: int | None = None) -> Sequence[Tag]:
        """Return tags in the order of their bytes. Raises :class:`UnknownRepository`."""
        ...

    def referrers(
        self,
        repository: str,
        subject: Digest,
        /,
        *,
        artifact_type: str | None = None,
        after: Cursor | None = None,
        limit: int,
    ) -> Page: ...

    def advisories(
        self, repository: str, predicate_prefix: str, /, *, after: str | None = None, limit: int
    ) -> Page: ...

    def holders(self, repository: str, digest: Digest, /) -> Holders: ...

    def images_with_layer(self, repository: str, layer: Digest, /, *, limit: int) -> list[LayerImage]: ...

    def journal(self, repository: str, **filters: Unpack[Filters]) -> list[TagEvent]: ...
