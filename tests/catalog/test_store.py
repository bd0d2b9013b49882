"""Where a catalog is kept: opened, copied, installed, and asked what it is, whichever database has it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from digestry.backend import Backend, open_backend
from digestry.catalog.catalog import Catalog
from digestry.catalog.job_states import JobState
from digestry.catalog.store import CatalogChanges
from digestry.coordination.protocol import Job
from digestry.errors import Conflict, NotFound
from tests.catalog.raw import Raw
from tests.catalog.support import pushed
from tests.support import wait_until


def test_nothing_is_made_until_it_is_opened(backend: Backend, tmp_path: Path) -> None:
    assert list(tmp_path.iterdir()) == []
    assert backend.catalog_store.is_empty()
    with pytest.raises(NotFound, match="there is no registry"):
        backend.catalog_store.require()
    with pytest.raises(NotFound, match="there is no registry"), backend.open_copy(tmp_path / "copy"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.only_on("postgresql", reason="it is about servers")
def test_a_database_on_a_server_is_no_file(backend: Backend, catalog: Catalog) -> None:
    with pytest.raises(Conflict) as caught:
        backend.catalog_store.as_file()
    assert "pg_dump" in caught.value.hint


def test_a_catalog_that_is_there(backend: Backend, catalog: Catalog, tmp_path: Path) -> None:
    store = backend.catalog_store
    assert not store.is_empty()
    store.require()
    store.check_schema()
    assert store.identity() == catalog.identity.get()
    assert store.describe() == catalog.describe()
    assert {path.name for path in tmp_path.iterdir()} <= store.file_names()
    assert catalog.size() > 0


@pytest.mark.long
def test_changes_are_told_whoever_makes_them(backend: Backend, catalog: Catalog) -> None:
    changes = backend.open_changes()
    other = backend.open_catalog()
    for writes in (catalog, other):
        seen = changes.number()
        pushed(writes, "x")
        wait_until(lambda seen=seen: changes.number() != seen, what="notice of the change")
        wait_until(lambda: _settled(changes), what="the end of the changes")
    other.close()
    changes.close()


def _settled(changes: CatalogChanges) -> bool:
    before = changes.number()
    time.sleep(1.2)
    return changes.number() == before


@pytest.mark.long
@pytest.mark.only_on("postgresql", reason="of a file's root, locks are files")
def test_locks_of_nodes_are_no_changes(backend: Backend, catalog: Catalog, raw: Raw) -> None:
    changes = backend.open_changes()
    wait_until(lambda: _settled(changes), what="the end of the changes")
    seen = changes.number()
    counted = (
        "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'locks' AND schemaname = current_schema()"
    )
    ((before,),) = raw.query(counted)
    for _ in range(5):
        with backend.coordination.only_one(Job.SCRUB):
            catalog.jobs.store(JobState("scrub", 1, 2, {}))
    wait_until(lambda: raw.query(counted) != [(before,)], what="the server's notice of the locks")
    assert changes.number() == seen
    changes.close()


def test_a_copy_is_of_one_moment(backend: Backend, catalog: Catalog, tmp_path: Path) -> None:
    before = pushed(catalog, "x")
    folder = tmp_path / "copy"
    folder.mkdir()
    with backend.open_copy(folder) as copy:
        after = pushed(catalog, "x")
        assert copy.manifest("x", before.digest) is not None
        assert copy.manifest("x", after.digest) is None
        pushed(copy, "only-in-the-copy")
        assert copy.has_repository("only-in-the-copy")
    assert catalog.has_repository("x")
    assert not catalog.has_repository("only-in-the-copy")


@pytest.mark.only_on("sqlite", reason="a snapshot is a file; PostgreSQL has tools of its own for that")
def test_a_snapshot_is_installed_elsewhere(backend: Backend, catalog: Catalog, tmp_path: Path) -> None:
    manifest = pushed(catalog, "x", ["t"])
    catalog.begin_upload("x", "sha256")
    staging, root = tmp_path / "staging", tmp_path / "root"
    staging.mkdir()
    root.mkdir()
    copy = backend.catalog_store.as_file().snapshot_to(staging)
    assert list(staging.iterdir()) == [copy.path]
    with copy.open_snapshot() as snapshot:
        assert (snapshot.count, snapshot.size(manifest.digest)) == (3, manifest.size)
        assert [held.digest for held in snapshot.held()] == sorted(
            [manifest.digest, *(blob.digest for blob in manifest.blobs())], key=str
        )
        assert snapshot.holders(manifest.digest) == ["x:t"]
        assert not snapshot.any_damaged()
    elsewhere = open_backend(root)
    elsewhere.catalog_store.as_file().install(staging)
    assert elsewhere.catalog_store.verify_journal() == backend.catalog_store.verify_journal()
    assert elsewhere.catalog_store.identity() == backend.catalog_store.identity()
    again = elsewhere.open_catalog()
    assert again.manifest("x", manifest.digest) is not None
    assert again.upload_ids() == set()
    again.close()
