"""The reads that every pull makes, on the event loop: the face that each database gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol


class CachedManifest(NamedTuple):
    """Where a manifest's bytes are, and how to label them. ``size`` is in bytes.

    ``lease_end`` is when its lease ends (microseconds since 1970, or None), if it was asked for by its
    digest; what a tag points to needs no lease.
    """

    digest: str
    media_type: str
    size: int
    lease_end: int | None = None


class CachedBlob(NamedTuple):
    """A blob's size in bytes, and when its lease ends (microseconds since 1970, or 0)."""

    size: int
    lease_end: int


class CachedContent(NamedTuple):
    """What a repository has under a digest: its size in bytes, when its lease ends (microseconds since 1970,
    or 0), whether it is a blob and not a manifest alone, and whether it cannot be served for its damage."""

    size: int
    lease_end: int
    is_blob: bool
    damaged: bool


class SeenTag(NamedTuple):
    """What a tag of another registry pointed to, and when that was asked (microseconds since 1970)."""

    digest: str
    checked_at: int


class MirroredTag(NamedTuple):
    """A tag of a mirrored repository: ``seen`` at its registry, and ``here``; None for what is not known."""

    seen: SeenTag | None
    here: CachedManifest | None


class CatalogReads(Protocol):
    """Reads that begin after the request came: each sees what any worker has committed by then.

    Each is awaited on the event loop and raises :class:`StorageError`. Not thread-safe: one for each event
    loop.
    """

    async def manifest(self, repository: str, target: str) -> CachedManifest | None:
        """Return what ``target``, a tag or a digest, is in the repository now."""
        ...

    async def blob(self, repository: str, digest: str) -> CachedBlob | None:
        """Return a blob that the repository may serve, or None."""
        ...

    async def content(self, repository: str, digest: str) -> CachedContent | None:
        """Return what the repository has under a digest, a blob or a manifest, damaged or not; or None."""
        ...

    async def serves_all(self, repository: str, sizes: Mapping[str, int], *, manifests: bool) -> bool:
        """Return whether the repository can serve all of these blobs, or with ``manifests`` manifests, and
        they have these sizes in bytes."""
        ...

    async def damaged(self, repository: str, target: str) -> bool:
        """Return whether ``target``, a tag or a digest, would be served but for the damage to its content."""
        ...

    async def repository(self, name: str) -> bool:
        """Return whether there is such a repository, with anything in it."""
        ...

    async def tags(self, repository: str, *, after: str, limit: int) -> list[str] | None:
        """Return the first ``limit`` tags after ``after``, in the order of their bytes; None if there is no
        such repository. For a page, not for a list of any length."""
        ...

    async def mirrored_tag(self, repository: str, tag: str) -> MirroredTag:
        """Return what an upstream's tag pointed to when it was last asked, and what the tag is here, both at
        one moment."""
        ...

    async def close(self) -> None:
        """End the connections."""
        ...
