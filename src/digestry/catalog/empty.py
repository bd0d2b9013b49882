"""The catalog of a registry with nothing in it.

It answers for a repository that the rules hide, so that the answers are those of one that does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NoReturn

from digestry.catalog.blob_links import UnknownRepository
from digestry.catalog.observation_rows import Span
from digestry.catalog.reads import CatalogReads, MirroredTag
from digestry.catalog.referrer_pages import Page
from digestry.model.digest import Digest
from digestry.model.history import Holders, TagEvent, TagSpan
from digestry.model.image_parts import LayerImage
from digestry.model.sightings import SightingsOf
from digestry.translog.entries import Opening

_NOTHING: Final = Page((), more=False)


class _NoTagHistory:
    def latest(self, repository: str, /) -> int:
        return 0

    def tag_at(self, repository: str, tag: str, at: int, /) -> None:
        return None

    def tags_at(self, repository: str, at: int, /, **_: object) -> list[TagSpan]:
        return []

    def tags_for_digest(self, repository: str, digest: Digest, /, **_: object) -> list[TagSpan]:
        return []


class _NoDigests:
    def in_repository(self, repository: str, prefix: object, /, **_: object) -> list[Digest]:
        return []


class _NoSightings:
    def of(self, repository: str, digest: Digest, /, **_: object) -> SightingsOf:
        return SightingsOf(digest=digest, places=0)


class _NoObservations:
    def spans(self, repository: str, tag: str, /, **_: object) -> list[Span]:
        return []


class _NoLog:
    def openings(self, repository: str, /, **_: object) -> list[Opening]:
        return []


class EmptyCatalog:
    """The :class:`~.queries.RepositoryQueries` of no repository."""

    def __init__(self) -> None:
        self.tag_history = _NoTagHistory()
        self.digest_prefixes = _NoDigests()
        self.sightings = _NoSightings()
        self.observations = _NoObservations()
        self.log = _NoLog()

    def has_repository(self, repository: str, /) -> bool:
        return False

    def tags(self, repository: str, /, **_: object) -> NoReturn:
        raise UnknownRepository(repository)

    def referrers(self, repository: str, subject: Digest, /, **_: object) -> Page:
        return _NOTHING

    def advisories(self, repository: str, predicate_prefix: str, /, **_: object) -> Page:
        return _NOTHING

    def images_with_layer(self, repository: str, layer: Digest, /, *, limit: int) -> list[LayerImage]:
        return []

    def holders(self, repository: str, digest: Digest, /) -> Holders:
        return Holders(digest=digest, holders=())

    def journal(self, repository: str, **_: object) -> list[TagEvent]:
        return []


class EmptyReads(CatalogReads):
    """The :class:`~.reads.CatalogReads` of no repository."""

    async def manifest(self, repository: str, target: str) -> None:
        return None

    async def blob(self, repository: str, digest: str) -> None:
        return None

    async def content(self, repository: str, digest: str) -> None:
        return None

    async def serves_all(self, repository: str, sizes: Mapping[str, int], *, manifests: bool) -> bool:
        return False

    async def damaged(self, repository: str, target: str) -> bool:
        return False

    async def repository(self, name: str) -> bool:
        return False

    async def tags(self, repository: str, *, after: str, limit: int) -> None:
        return None

    async def mirrored_tag(self, repository: str, tag: str) -> MirroredTag:
        return MirroredTag(None, None)

    async def close(self) -> None:
        return None
