"""The rows of an S3 store: what a repository has, or is about to have, is not forgotten."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from digestry.backend import Backend
from digestry.blobs.s3.rows import StoredObject
from digestry.catalog.catalog import Catalog
from digestry.catalog.stored_objects import StoredObjects
from digestry.model.digest import Digest
from tests.catalog.support import ORIGIN, Clock, pushed

CONTENT = Digest.of(b"content")
SECOND = 1_000_000


@pytest.fixture
def objects(backend: Backend, catalog: Catalog, clock: Clock) -> Iterator[StoredObjects]:
    """The rows, with content that was stored a day ago."""
    assert catalog.identity is not None
    database = backend.catalog_store.open()
    made = StoredObjects(database, clock)
    made.store(StoredObject(CONTENT, "key", 7, "etag"), linger=0.0)
    clock.now += 86_400 * SECOND
    yield made
    database.close()


def forget(objects: StoredObjects) -> bool:
    return objects.forget(CONTENT, linger=0.0, settle=600.0)


def test_what_nobody_needs_is_forgotten(objects: StoredObjects) -> None:
    assert forget(objects)
    assert objects.find(CONTENT) is None
    assert [removal.key for removal in objects.removals(10)] == ["key"]
    assert not forget(objects)


def test_what_was_stored_just_now_stays(objects: StoredObjects, clock: Clock) -> None:
    objects.store(StoredObject(CONTENT, "new", 7, "etag"), linger=0.0)
    clock.now += 599 * SECOND
    assert not forget(objects)
    found = objects.find(CONTENT)
    assert found is not None
    assert found.key == "new"
    clock.now += 2 * SECOND
    assert forget(objects)


def test_what_a_repository_has_stays(objects: StoredObjects, catalog: Catalog, clock: Clock) -> None:
    catalog.add_blob("x", CONTENT, 7)
    assert not forget(objects)
    clock.now += 100 * 86_400 * SECOND  # no lease is left
    assert not forget(objects)
    catalog.delete_blob("x", CONTENT)
    assert forget(objects)


def test_what_is_leased_stays(objects: StoredObjects, catalog: Catalog, clock: Clock) -> None:
    catalog.add_blob("x", CONTENT, 7)
    catalog.delete_blob("x", CONTENT)
    assert not forget(objects)
    clock.now += 2 * 86_400 * SECOND
    assert forget(objects)


def test_a_manifest_that_can_be_pulled_stays(objects: StoredObjects, catalog: Catalog, clock: Clock) -> None:
    manifest = pushed(catalog, "x", ("t",))
    objects.store(StoredObject(manifest.digest, "m", len(manifest.raw), "etag"), linger=0.0)
    clock.now += 100 * 86_400 * SECOND
    assert not objects.forget(manifest.digest, linger=0.0, settle=600.0)
    catalog.delete_manifest("x", manifest.digest, origin=ORIGIN)
    clock.now += 100 * 86_400 * SECOND
    assert objects.forget(manifest.digest, linger=0.0, settle=600.0)
