"""The backend of a registry: its catalog, blob store and coordination, built from the configuration."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from digestry.blobs.disk import open_layout
from digestry.blobs.protocols import BlobStore
from digestry.catalog import clock
from digestry.catalog.catalog import Catalog, CatalogOptions
from digestry.catalog.reads import CatalogReads
from digestry.catalog.robot_tokens import RobotReads, RobotTokens
from digestry.catalog.sqlite.store import SqliteStore
from digestry.catalog.store import CatalogChanges, CatalogFile, CatalogStore
from digestry.coordination.files import FileCoordination
from digestry.coordination.protocol import Coordination
from digestry.errors import InvalidConfiguration


@dataclass(frozen=True, slots=True)
class Backend:
    """A registry's stores, and what its processes agree by. It holds nothing open: each process opens the
    catalog from it.

    ``location`` is where a person finds the registry, for messages. ``disk`` is a directory on the file
    system that the registry fills, or None if neither its catalog nor its content is in files.
    """

    location: str
    catalog_store: CatalogStore
    blobs: BlobStore
    coordination: Coordination
    disk: Path | None = None
    options: CatalogOptions = field(default_factory=CatalogOptions)
    now: clock.Clock = clock.now

    def open_catalog(self) -> Catalog:
        """Open the catalog, making it if it is not there; :meth:`Catalog.migrate` gives it its tables."""
        return Catalog(self.catalog_store.open(), self.options, now=self.now)

    def open_reads(self) -> CatalogReads:
        """Open the reads of one event loop. Raises :class:`StorageError`."""
        return self.catalog_store.open_reads()

    def open_robot_tokens(self) -> RobotTokens:
        """Open the robot tokens, for who runs the registry."""
        return RobotTokens(self.catalog_store.open(), now=self.now)

    def open_robot_reads(self) -> RobotReads:
        """Open the look-ups of robot tokens for one event loop. Raises :class:`StorageError`."""
        return self.catalog_store.open_robot_reads(self.now)

    def open_changes(self) -> CatalogChanges:
        """Open what tells whether the catalog was written to. Raises :class:`StorageError`."""
        return self.catalog_store.open_changes()

    @contextlib.contextmanager
    def open_copy(self, directory: Path) -> Iterator[Catalog]:
        """Open a copy of the catalog as it is at one moment, which may be changed and ends with the block.

        A copy that is a file is in ``directory``. Raises :class:`NotFound`, :class:`StorageError`.
        """
        with self.catalog_store.copied(directory) as database:
            yield Catalog(database, self.options, now=self.now)


@dataclass(frozen=True, slots=True)
class StoreLocations:
    """Where the catalog and the content of a registry are; None for its root directory.

    ``database`` is the URL of a PostgreSQL database, which may have a password and is not shown. ``blobs`` is
    ``s3://BUCKET/PREFIX``; ``endpoint`` is the URL of the S3 server, ``region`` its region.
    """

    database: str | None = field(default=None, repr=False)
    blobs: str | None = None
    endpoint: str | None = None
    region: str | None = None

    @property
    def needs_root(self) -> bool:
        """Return whether a directory is needed that is kept: for the catalog's file or the content."""
        return self.database is None or self.blobs is None


def open_backend(
    root: Path | None,
    options: CatalogOptions = CatalogOptions(),  # noqa: B008 - frozen
    stores: StoreLocations = StoreLocations(),
    *,
    largest_blob: int = 0,
    now: clock.Clock = clock.now,
) -> Backend:
    """Return the backend of the registry in the directory ``root``, or in ``stores``. Nothing is made or
    opened.

    ``largest_blob`` is the size in bytes of the largest blob that a store must be able to take.
    """
    if root is None and stores.needs_root:
        raise InvalidConfiguration("a registry without a root names a database and an S3 store")
    if stores.blobs is not None:
        options = replace(options, uploads_last=True)
    directory = root or Path()
    catalog_store = SqliteStore(directory) if stores.database is None else _postgresql(stores.database)
    blobs = (
        open_layout(directory)
        if stores.blobs is None
        else _s3_blobs(stores, catalog_store, largest_blob, now)
    )
    return Backend(str(directory), catalog_store, blobs, FileCoordination(directory), directory, options, now)


def _s3_blobs(
    stores: StoreLocations, catalog_store: CatalogStore, largest_blob: int, now: clock.Clock
) -> BlobStore:
    # Read here and not above, because other registries need none of it.
    from digestry.blobs.s3.config import parse_s3_url  # noqa: PLC0415
    from digestry.blobs.s3.store import S3Blobs  # noqa: PLC0415
    from digestry.catalog.stored_objects import StoredObjects  # noqa: PLC0415

    config = parse_s3_url(
        stores.blobs or "",
        os.environ,
        endpoint=stores.endpoint,
        region=stores.region,
        largest=largest_blob,
    )
    return S3Blobs(config, lambda: StoredObjects(catalog_store.open(), now))


def host_coordination(directory: Path) -> Coordination:
    """Return what the processes of this host that use ``directory`` agree by. Nothing is touched."""
    return FileCoordination(directory)


def _postgresql(url: str) -> CatalogStore:
    # Read here and not above, because other registries need none of it.
    from digestry.catalog.postgresql.address import parse_address  # noqa: PLC0415
    from digestry.catalog.postgresql.store import PostgresqlStore  # noqa: PLC0415

    return PostgresqlStore(parse_address(url))


def catalog_file(directory: Path) -> CatalogFile:
    """Return the catalog that is a file in ``directory``, as in a backup. Nothing is made or opened."""
    return SqliteStore(directory)
