"""Registries that move, and what is in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Table, select

from digestry.backend import Backend
from digestry.blobs.s3.store import S3Blobs
from digestry.catalog import schema
from digestry.catalog.stored_objects import StoredObjects
from digestry.coordination.postgresql.coordination import PostgresCoordination
from digestry.model.digest import Digest
from digestry.registry import server as serving
from digestry.registry.backup.copying import Flow
from digestry.registry.migration import migrating
from digestry.registry.migration.migrating import MigratedRegistry
from digestry.registry.migration.stores import MigratingStores, read_stores
from digestry.registry.scratch import with_scratch
from tests.registry.backup.support import Unseen

SAME = (
    schema.repositories,
    schema.links,
    schema.manifests,
    schema.manifest_references,
    schema.tags,
    schema.journal,
    schema.robot_tokens,
    schema.leases,
    schema.sightings,
    schema.upstream_tags,
    schema.usage,
    schema.sighting_usage,
)


@dataclass(frozen=True)
class Place:
    """A configuration file, and the stores that it names."""

    file: Path
    opened: list[Backend] = field(default_factory=list)

    @property
    def stores(self) -> MigratingStores:
        stores = read_stores(self.file)
        self.opened.append(stores.backend)
        return stores

    def close(self) -> None:
        """Close what a process has open to its end: the rows of S3 stores, and of the coordination."""
        for backend in self.opened:
            blobs, coordination = backend.blobs, backend.coordination
            if isinstance(blobs, S3Blobs) and blobs._opened is not None:
                rows = blobs.session.rows
                assert isinstance(rows, StoredObjects)
                rows._database.close()
            if isinstance(coordination, PostgresCoordination):
                coordination.close()

    @property
    def backend(self) -> Backend:
        return self.stores.backend

    def read_only(self) -> Place:
        """The same, as somebody configured it to take no pushes."""
        self.file.write_text("read-only = true\n" + self.file.read_text())
        return self


MakePlace = Callable[[str], Place]


def root_of(place: Place) -> Path:
    root = place.stores.config.root
    assert root is not None
    return root


def prepare(place: Place) -> None:
    """Do what a server does before it serves."""
    with with_scratch(place.stores.config) as (config, _):
        serving.prepare(config)


def migrate(old: Place, new: Place, **options: Any) -> MigratedRegistry:
    return migrating.migrate(old.stores, new.stores, flow=Flow(), watcher=Unseen(), **options)


def rows(backend: Backend, table: Table) -> list[tuple[Any, ...]]:
    """All rows of a table, sorted."""
    database = backend.catalog_store.open()
    try:
        with database.read() as connection:
            return sorted(map(tuple, connection.execute(select(table))), key=repr)
    finally:
        database.close()


def everything(backend: Backend) -> dict[str, list[tuple[Any, ...]]]:
    """All rows that are the same in each place where the registry is."""
    return {table.name: rows(backend, table) for table in SAME}


def content(backend: Backend) -> dict[Digest, bytes]:
    """All content that is stored, verified."""
    return {digest: backend.blobs.read(digest) for digest in backend.blobs.digests()}
