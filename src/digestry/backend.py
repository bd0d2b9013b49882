"""The backend of a registry: its catalog, blob store and coordination, built from the configuration."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from digestry.blobs.disk import open_layout
from digestry.blobs.protocols import BlobStore, NoteStore
from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.options import CatalogOptions
from digestry.catalog.reads import CatalogReads
from digestry.catalog.robot_tokens import RobotReads, RobotTokens
from digestry.catalog.sqlite.store import SqliteStore
from digestry.catalog.store import CatalogChanges, CatalogFile, CatalogStore
from digestry.coordination.files import FileCoordination
from digestry.coordination.protocol import Coordination
from digestry.errors import InvalidConfiguration

if TYPE_CHECKING:
    from digestry.blobs.s3.store import S3Blobs

_COORDINATION_CONNECTIONS: Final = 8
_POOL_SECONDS: Final = 4.0


@dataclass(frozen=True, slots=True)
class Backend:
    """A registry's stores, and the coordination of its processes. It holds nothing open: each process opens
    the catalog from it.

    ``location`` is where a person finds the registry, for messages. ``notes`` keeps notes beside the content
    (None: a disk has files for that). ``disk`` is a directory on the file
    system that the registry fills, or None if neither its catalog nor its content is in files.
    """

    location: str
    catalog_store: CatalogStore
    blobs: BlobStore
    coordination: Coordination
    disk: Path | None = None
    options: CatalogOptions = field(default_factory=CatalogOptions)
    now: clock.Clock = clock.now
    notes: NoteStore | None = None

    def open_catalog(self) -> Catalog:
        """Open the catalog, making it if it is not there; :meth:`Catalog.migrate` gives it its tables."""
        return Catalog(self.catalog_store.open(), self.options, now=self.now)

    def open_reads(self) -> CatalogReads:
        """Open the reads of one event loop. Raises :class:`StorageError`."""
        return self.catalog_store.open_reads()

    def open_robot_tokens(self) -> RobotTokens:
        """Open the robot tokens, for the registry's operator."""
        return RobotTokens(self.catalog_store.open(), now=self.now)

    def open_robot_reads(self) -> RobotReads:
        """Open the look-ups of robot tokens for one event loop. Raises :class:`StorageError`."""
        return self.catalog_store.open_robot_reads(self.now)

    def open_changes(self) -> CatalogChanges:
        """Open the listener for changes of the catalog. Raises :class:`StorageError`."""
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
    catalog_store: CatalogStore = SqliteStore(directory)
    coordination: Coordination = FileCoordination(directory)
    if stores.database is not None:
        catalog_store, coordination, database_clock = _postgresql(stores.database)
        now = database_clock if now is clock.now else now
    notes: NoteStore | None = None
    blobs: BlobStore
    if stores.blobs is None:
        blobs = open_layout(directory)
    else:
        blobs = notes = _s3_blobs(stores, catalog_store, largest_blob, now)
    return Backend(
        str(directory) if stores.needs_root else catalog_store.describe(),
        catalog_store,
        blobs,
        coordination,
        directory if stores.needs_root else None,
        options,
        now,
        notes,
    )


def _postgresql(url: str) -> tuple[CatalogStore, Coordination, clock.Clock]:
    # Read here and not above, because other registries need none of it.
    import psycopg  # noqa: PLC0415
    from sqlalchemy import create_engine  # noqa: PLC0415

    from digestry.catalog.postgresql.address import parse_address  # noqa: PLC0415
    from digestry.catalog.postgresql.failures import failure  # noqa: PLC0415
    from digestry.catalog.postgresql.store import PostgresqlStore  # noqa: PLC0415
    from digestry.coordination.postgresql.clock import DatabaseClock  # noqa: PLC0415
    from digestry.coordination.postgresql.connections import Connections  # noqa: PLC0415
    from digestry.coordination.postgresql.coordination import PostgresCoordination  # noqa: PLC0415

    address = parse_address(url)
    engine = create_engine(
        "postgresql+psycopg://",
        creator=partial(psycopg.connect, address.conninfo, prepare_threshold=None),
        pool_size=_COORDINATION_CONNECTIONS,
        max_overflow=0,
        pool_timeout=_POOL_SECONDS,
        use_native_hstore=False,
    )
    connections = Connections(engine, partial(failure, address.name))
    return PostgresqlStore(address), PostgresCoordination(connections), DatabaseClock(connections)


def _s3_blobs(
    stores: StoreLocations, catalog_store: CatalogStore, largest_blob: int, now: clock.Clock
) -> S3Blobs:
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
    """Return the coordination of the processes of this host that use ``directory``. It creates no
    files yet.
    """
    return FileCoordination(directory)


def catalog_file(directory: Path) -> CatalogFile:
    """Return the catalog that is a file in ``directory``, as in a backup. Nothing is made or opened."""
    return SqliteStore(directory)
