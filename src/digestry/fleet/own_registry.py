"""The registry itself, as the audit asks it: over its catalog and its content, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NoReturn

from digestry.audit.registry_queries import RegistryRepository
from digestry.blobs.failures import BytesLost
from digestry.blobs.protocols import BlobStore
from digestry.catalog import clock, signature_tags
from digestry.catalog.age_policy import AgePolicy
from digestry.catalog.blob_links import UnknownRepository
from digestry.catalog.catalog import Catalog
from digestry.catalog.manifest_rows import StoredManifest
from digestry.catalog.referrer_pages import Cursor
from digestry.catalog.resolution import Piece
from digestry.errors import (
    ContentError,
    NotFound,
    RemoteDamaged,
    RemoteError,
    RemoteNotFound,
    StorageError,
    TooLarge,
)
from digestry.model.age_answers import PassedOver, header, read_header
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.history import Holders, TagEvent, TagSpan
from digestry.model.image_parts import LayerImages
from digestry.model.manifest import Manifest
from digestry.model.reference import Reference
from digestry.model.resolution import Resolutions, ResolveQuery
from digestry.model.sightings import SightingReport, SightingsReceipt

_PAGE: Final = 500
_MOST_EVENTS: Final = 1000
_LARGEST_PIECE: Final = 128 << 10
_MOST_CONTENTS: Final = 8 << 20


class OwnRegistries:
    """The registries that this registry can answer for: itself, under all of its names.

    ``is_own`` tells whether a host is a name of it. Questions about other hosts fail: nothing is sent to
    them. The answers are those of the HTTP API to a user who may read everything: tags resolve by ``ages``,
    the minimum ages, at the time that ``now`` returns.
    """

    def __init__(
        self,
        catalog: Catalog,
        blobs: BlobStore,
        is_own: Callable[[str], bool],
        ages: AgePolicy,
        now: clock.Clock,
    ) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._is_own = is_own
        self._ages = ages
        self._now = now

    def repository(self, reference: Reference) -> RegistryRepository:
        """Return a repository, in which every question fails if it is another registry's."""
        if self._is_own(reference.host):
            return OwnRepository(self._catalog, self._blobs, reference.repository, self._ages, self._now)
        return ForeignRepository(reference.host)

    def resolve_many(
        self, host: str, queries: Sequence[ResolveQuery], *, contents: bool = False
    ) -> Resolutions | None:
        """Answer as many of ``queries`` as one response of the API has room for."""
        if not self._is_own(host):
            _refuse(host)
        found = self._catalog.resolve(queries, contents=contents, visible=_everything)
        now, ages = self._now(), self._catalog.tag_ages
        resolutions = tuple(ages.with_served(answer, self._ages, now) for answer in found.resolutions)
        return Resolutions(resolutions, self._contents(found.pieces))

    def _contents(self, pieces: Sequence[Piece]) -> dict[str, str]:
        contents: dict[str, str] = {}
        left = _MOST_CONTENTS
        for piece in pieces:
            if piece.size > min(_LARGEST_PIECE, left):
                continue
            try:
                contents[str(piece.digest)] = self._blobs.read(piece.digest, limit=piece.size).decode()
            except (UnicodeDecodeError, NotFound, ContentError, TooLarge, StorageError):
                continue  # the single question for it gets the error
            left -= piece.size
        return contents

    def authenticated(self, host: str) -> bool:
        """Return False: nothing is hidden from the registry itself."""
        return False

    def staleness(self, repository: Reference, target: str) -> str:
        """Return an empty text: the registry's own answers are current."""
        return ""

    def passed_over(self, repository: Reference, tag: str) -> PassedOver | None:
        """Return where a tag points that a minimum age passes over."""
        rule = self._ages.rule(repository.repository, tag)
        if not self._is_own(repository.host) or not rule.age or signature_tags.is_about(tag):
            return None
        found = self._catalog.tag_ages.tag(repository.repository, tag, rule, self._now())
        return read_header(header(found.aged))

    def head_get_mismatch(self, repository: Reference, tag: str) -> str:
        """Return an empty text: there is one answer."""
        return ""

    def record_sightings(self, host: str, sightings: Sequence[SightingReport]) -> SightingsReceipt | None:
        """Record nothing: what agents report is in the catalog already."""
        return None


class OwnRepository:
    """One repository of this registry. A :class:`~digestry.audit.registry_queries.RegistryRepository`."""

    def __init__(
        self, catalog: Catalog, blobs: BlobStore, name: str, ages: AgePolicy, now: clock.Clock
    ) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._name = name
        self._ages = ages
        self._now = now

    def resolve(self, target: str) -> Descriptor:
        """Return what a pull by a tag gets."""
        (answer,) = self._catalog.resolve(
            [ResolveQuery(self._name, tags=(target,))], contents=False, visible=_everything
        ).resolutions
        answer = self._catalog.tag_ages.with_served(answer, self._ages, self._now())
        if not answer.tags or answer.tags[0].target is None:
            raise self._lacks(f"tag {target}")
        if answer.tags[0].refused:
            raise RemoteError(
                f"no digest of {self._name}:{target} has stood under it for the registry's minimum age"
            )
        served = answer.tags[0].served
        if served is None:
            return answer.tags[0].target
        stored = self._catalog.manifest(self._name, served)
        if stored is None:
            raise self._lacks(f"manifest {served}, which tag {target} resolves to")
        return Descriptor(stored.media_type, served, stored.size)

    def pull_manifest(self, target: str) -> Manifest:
        """Return a manifest by its digest."""
        digest = Digest.parse(target)
        stored = self._catalog.manifest(self._name, digest)
        if stored is None:
            listed = self._catalog.holders(self._name, digest).holders
            if any(holder.digest == digest and holder.present for holder in listed):
                raise self._damaged(digest)
            raise self._lacks(f"manifest {digest}")
        content = self._read(digest, stored.size)
        return Manifest.parse(content, stored.media_type, algorithm=digest.algorithm)

    def read_blob(self, descriptor: Descriptor, *, limit: int = _LARGEST_PIECE) -> bytes:
        """Return the bytes of a blob that is as large as its descriptor says."""
        size = self._catalog.blob_size(self._name, descriptor.digest)
        if size is None:
            raise self._lacks(f"blob {descriptor.digest}")
        if size > limit:
            raise TooLarge(
                f"blob {descriptor.digest} has {size} bytes, and {limit} are the most", limit=limit
            )
        if size != descriptor.size:
            raise RemoteError(f"blob {descriptor.digest} has {size} bytes, not {descriptor.size}")
        return self._read(descriptor.digest, size)

    def tags(self) -> Iterator[str]:
        """Yield the tags."""
        after = ""
        while True:
            try:
                page = self._catalog.tags(self._name, after=after, limit=_PAGE)
            except UnknownRepository as error:
                raise self._lacks("anything") from error
            yield from (row.name for row in page)
            if len(page) < _PAGE:
                return
            after = page[-1].name

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> Sequence[Descriptor]:
        """Return what refers to ``digest``, the newest first."""
        found: list[Descriptor] = []
        after: Cursor | None = None
        while True:
            page = self._catalog.referrers(
                self._name, digest, artifact_type=artifact_type, after=after, limit=_PAGE
            )
            found += map(_descriptor, page.rows)
            if not page.more or not page.rows:
                return found
            after = Cursor(page.rows[-1].pushed_at, str(page.rows[-1].digest))

    def tag_history(self, tag: str) -> Sequence[TagEvent] | None:
        """Return the moves of a tag, the newest first."""
        return self._catalog.journal(self._name, tag=tag, limit=_MOST_EVENTS)

    def holders(self, digest: Digest) -> Holders | None:
        """Return which manifests are or hold ``digest``."""
        return self._catalog.holders(self._name, digest)

    def tags_for_digest(self, digest: Digest, limit: int | None = None) -> Sequence[TagSpan] | None:
        """Return the times that tags came to ``digest``, or to what holds it, the newest first."""
        return self._catalog.tag_history.tags_for_digest(self._name, digest, limit=limit or _MOST_EVENTS)

    def images_with_layer(self, layer: Digest, *, limit: int = _PAGE) -> LayerImages | None:
        """Return the images with ``layer``, those with the fewest layers first."""
        found = self._catalog.images_with_layer(self._name, layer, limit=limit + 1)
        return LayerImages(layer, tuple(found[:limit]), more=len(found) > limit)

    def _read(self, digest: Digest, size: int) -> bytes:
        try:
            content = self._blobs.read(digest, limit=size)
        except (NotFound, ContentError, TooLarge, BytesLost) as error:
            raise self._damaged(digest) from error
        if len(content) != size:
            raise self._damaged(digest)
        return content

    def _lacks(self, what: str) -> RemoteNotFound:
        return RemoteNotFound(f"{self._name} does not have {what}", status=404)

    def _damaged(self, digest: Digest) -> RemoteDamaged:
        return RemoteDamaged(f"{digest} of {self._name} is damaged", status=404)


class ForeignRepository:
    """A repository of another registry, of which this one knows nothing: each question fails."""

    def __init__(self, host: str) -> None:
        self._host = host

    def resolve(self, target: str) -> Descriptor:
        """Raise :class:`RemoteError`, as all methods do."""
        _refuse(self._host)

    def pull_manifest(self, target: str) -> Manifest:
        _refuse(self._host)

    def read_blob(self, descriptor: Descriptor, *, limit: int = 0) -> bytes:
        _refuse(self._host)

    def tags(self) -> Iterator[str]:
        _refuse(self._host)

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> Sequence[Descriptor]:
        _refuse(self._host)

    def tag_history(self, tag: str) -> Sequence[TagEvent] | None:
        _refuse(self._host)

    def holders(self, digest: Digest) -> Holders | None:
        _refuse(self._host)

    def tags_for_digest(self, digest: Digest, limit: int | None = None) -> Sequence[TagSpan] | None:
        _refuse(self._host)

    def images_with_layer(self, layer: Digest, *, limit: int = _PAGE) -> LayerImages | None:
        _refuse(self._host)


def _everything(_repository: str) -> bool:
    """Return that a repository may be read."""
    return True


def _refuse(host: str) -> NoReturn:
    raise RemoteError(refusal(host), hint="digestry audit --fleet asks it with your own access")


def refusal(host: str) -> str:
    """Return why nothing is known of the images of another registry, and what to do if it is not another."""
    return (
        f"{host} is another registry, which this one does not ask (if it is a name of this registry, list it"
        " in hosts in registry.toml)"
    )


def _descriptor(row: StoredManifest) -> Descriptor:
    return Descriptor(
        row.media_type,
        row.digest,
        row.size,
        annotations=row.annotations or None,
        artifact_type=row.artifact_type,
    )
