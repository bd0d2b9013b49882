"""The backend of a registry: its catalog, blob store and coordination, built from the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from digestry.blobs.disk import open_layout
from digestry.blobs.protocols import BlobStore
from digestry.catalog import clock
from digestry.catalog.catalog import Catalog, CatalogOptions
from digestry.catalog.reads import CatalogReads
from digestry.catalog.robot_tokens import RobotReads, RobotTokens
from digestry.catalog.snapshot import Snapshot
from digestry.catalog.sqlite.store import SqliteStore
from digestry.catalog.store import CatalogChanges, CatalogStore
from digestry.coordination.files import FileCoordination
from digestry.coordination.protocol import Coordination


@dataclass(frozen=True, slots=True)
class Backend:
    """A registry's stores, and what its processes agree by. It holds nothing open: each process opens the
    catalog from it."""

    root: Path
    catalog_store: CatalogStore
    blobs: BlobStore
    coordination: Coordination
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

    def copy_catalog(self, directory: Path) -> Backend:
        """Copy the catalog, as it is at one moment, to ``directory``; return a backend with that copy.

        Raises :class:`NotFound`, :class:`StorageError`.
        """
        self.catalog_store.copy_to(directory)
        return replace(self, catalog_store=SqliteStore(directory))


def open_backend(
    root: Path,
    options: CatalogOptions = CatalogOptions(),  # noqa: B008 - frozen
    *,
    now: clock.Clock = clock.now,
) -> Backend:
    """Return the backend of the registry in the directory ``root``. Nothing is made or opened."""
    return Backend(root, SqliteStore(root), open_blobs(root), open_coordination(root), options, now)


def open_snapshot(directory: Path) -> Snapshot:
    """Open the snapshot of a catalog that is in ``directory``.

    Raises :class:`StorageError` if it is damaged, or no catalog, and :class:`Conflict` if a newer digestry
    wrote it.
    """
    return SqliteStore(directory).open_snapshot()


def snapshot_file(directory: Path) -> Path:
    """Return the path that the file of a snapshot has in ``directory``."""
    return SqliteStore(directory).path


def open_blobs(root: Path) -> BlobStore:
    """Return the blob store of the registry in ``root``. Nothing is touched."""
    return open_layout(root)


def open_coordination(root: Path) -> Coordination:
    """Return the coordination of the registry in ``root``. Nothing is touched."""
    return FileCoordination(root)
