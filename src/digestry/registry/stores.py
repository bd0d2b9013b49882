"""The stores of one worker process: the catalog, the blob store, and the caches of frequent reads."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from digestry.backend import Backend
from digestry.blobs.failures import BytesLost
from digestry.blobs.protocols import GONE, BlobRanges, BlobStore, InThread
from digestry.catalog.catalog import Catalog
from digestry.catalog.empty import EmptyCatalog, EmptyReads
from digestry.catalog.queries import RepositoryQueries
from digestry.catalog.reads import CatalogReads
from digestry.coordination.protocol import Coordination
from digestry.errors import ContentError, NotFound, StorageError, TooLarge
from digestry.model.digest import Digest
from digestry.registry.bytes_cache import BytesCache
from digestry.registry.quarantine import HEALS

_MANIFEST_CACHE: Final = 64 << 20
_BLOB_CACHE: Final = 32 << 20


class ContentDamaged(StorageError):
    """The blob store lacks ``digest``, of ``size`` bytes, which the catalog lists, or has it damaged."""

    def __init__(self, digest: Digest, size: int, problem: str) -> None:
        super().__init__(f"{digest} is in the catalog, but cannot be served: {problem}", hint=HEALS)
        self.digest = digest
        self.size = size


@dataclass(frozen=True, slots=True)
class Stores:
    """The catalog, the blob store and the read caches of one worker process.

    ``queries`` answers queries about one repository. ``read_cache`` answers those that every pull makes, on
    the event loop. Both read the ``catalog``, or are empty if the repository is hidden from the client.
    """

    catalog: Catalog
    queries: RepositoryQueries
    read_cache: CatalogReads
    blobs: BlobStore
    coordination: Coordination
    manifest_cache: BytesCache = field(default_factory=lambda: BytesCache(_MANIFEST_CACHE))
    blob_cache: BytesCache = field(default_factory=lambda: BytesCache(_BLOB_CACHE))
    """Small blobs of a store that is far away: a store with a small inline limit."""

    @property
    def inline_limit(self) -> int:
        """Return the largest size in bytes for which :meth:`read` may be called on the event loop."""
        return self.blobs.inline_limit

    def hidden(self) -> Stores:
        """Return the stores with an empty catalog, for a client who may not see the repository."""
        return replace(self, queries=EmptyCatalog(), read_cache=EmptyReads())

    def read(self, digest: Digest, size: int) -> bytes:
        """Return content that the catalog lists, verified. Blocks.

        Raises :class:`ContentDamaged` if it is missing or damaged, and :class:`StorageError`. Neither is
        the client's fault.
        """
        try:
            content = self.blobs.read(digest, limit=size)
        except (NotFound, ContentError, TooLarge, BytesLost) as error:
            raise ContentDamaged(digest, size, error.message) from error
        if len(content) != size:
            raise ContentDamaged(digest, size, f"it has {len(content)} bytes, not {size}")
        return content

    async def open_ranges(
        self, digest: Digest, size: int, in_thread: InThread, first: int = 0, last: int | None = None
    ) -> BlobRanges:
        """Open content of ``size`` bytes that the catalog lists, for reading by ranges. It is not verified.

        ``in_thread`` calls a function in a thread; ``first`` and ``last`` are as
        :meth:`BlobReader.open_ranges` has them. Raises as :meth:`read` does.
        """
        try:
            content = await self.blobs.open_ranges(digest, in_thread, first, last)
        except NotFound as error:
            raise ContentDamaged(digest, size, GONE) from error
        except (ContentError, BytesLost) as error:
            raise ContentDamaged(digest, size, error.message) from error
        if content.size != size:
            found = content.size
            content.close()
            raise ContentDamaged(digest, size, f"it has {found} bytes, not {size}")
        return content

    async def close(self) -> None:
        """End the connections to the catalog."""
        await self.read_cache.close()
        self.catalog.close()


def open_stores(backend: Backend) -> Stores:
    """Open the stores of ``backend`` for one worker process. Raises :class:`StorageError`."""
    catalog = backend.open_catalog()
    return Stores(catalog, catalog, backend.open_reads(), backend.blobs, backend.coordination)
