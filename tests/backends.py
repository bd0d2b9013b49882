"""The stores of a registry, for tests that need no server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from digestry.backend import Backend, open_backend
from digestry.blobs.protocols import BlobStore
from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.options import CatalogOptions
from digestry.catalog.reads import CachedBlob, CachedContent, CachedManifest, CatalogReads, MirroredTag
from digestry.catalog.sqlite.database import SqliteDatabase
from digestry.coordination.protocol import Coordination
from digestry.registry import garbage_collection
from digestry.registry.config import RegistryConfig
from digestry.registry.disk_reserve import Reserve, reserve_of
from digestry.registry.garbage_collection import CollectionJob
from digestry.registry.garbage_run import CollectionCounts


def open_catalog(root: Path, *, now: clock.Clock = clock.now, **options: Any) -> Catalog:
    """Open the catalog under ``root``; ``options`` are those of :class:`CatalogOptions`."""
    return open_backend(root, CatalogOptions(**options), now=now).open_catalog()


def open_blobs(root: Path) -> BlobStore:
    """Return the blob store of the registry in ``root``."""
    return open_backend(root).blobs


def open_coordination(root: Path) -> Coordination:
    """Return the coordination of the registry in ``root``."""
    return open_backend(root).coordination


def open_reserve(root: Path) -> Reserve:
    """Return the disk reserve of the registry in ``root``."""
    return reserve_of(open_backend(root))


def file_of(catalog: Catalog) -> Path:
    """Return the file of a catalog that is in one."""
    return Path(catalog.describe())


def sqlite_database(catalog: Catalog) -> SqliteDatabase:
    """Return the database of a catalog that is in SQLite."""
    database = catalog._database
    assert isinstance(database, SqliteDatabase)
    return database


def collect(config: RegistryConfig, *, now: clock.Clock = clock.now, **more: Any) -> CollectionCounts:
    """Run garbage collection on the registry of ``config`` once."""
    return garbage_collection.collect(config, config.backend(now), **more)


def dry_run(config: RegistryConfig, *, now: clock.Clock = clock.now, **more: Any) -> CollectionCounts:
    """Run a dry run of garbage collection on the registry of ``config``."""
    return garbage_collection.dry_run(config, config.backend(now), **more)


def collection_job(config: RegistryConfig, *, now: clock.Clock = clock.now) -> CollectionJob:
    """Return the job that collects the garbage of the registry of ``config``."""
    return CollectionJob(config, config.backend(now))


class BlockingReads:
    """The reads of an event loop of their own, for tests that have none."""

    def __init__(self, backend: Backend) -> None:
        self._runner = asyncio.Runner()
        self.reads = self._runner.run(_open_reads(backend))

    def manifest(self, repository: str, target: str) -> CachedManifest | None:
        return self._runner.run(self.reads.manifest(repository, target))

    def blob(self, repository: str, digest: str) -> CachedBlob | None:
        return self._runner.run(self.reads.blob(repository, digest))

    def content(self, repository: str, digest: str) -> CachedContent | None:
        return self._runner.run(self.reads.content(repository, digest))

    def serves_all(self, repository: str, sizes: Mapping[str, int], *, manifests: bool = False) -> bool:
        return self._runner.run(self.reads.serves_all(repository, sizes, manifests=manifests))

    def damaged(self, repository: str, target: str) -> bool:
        return self._runner.run(self.reads.damaged(repository, target))

    def repository(self, name: str) -> bool:
        return self._runner.run(self.reads.repository(name))

    def tags(self, repository: str, *, after: str, limit: int) -> list[str] | None:
        return self._runner.run(self.reads.tags(repository, after=after, limit=limit))

    def mirrored_tag(self, repository: str, tag: str) -> MirroredTag:
        return self._runner.run(self.reads.mirrored_tag(repository, tag))

    def close(self) -> None:
        self._runner.run(self.reads.close())
        self._runner.close()


async def _open_reads(backend: Backend) -> CatalogReads:
    return backend.open_reads()
