"""Nodes of two versions on one catalog: the older one was written before the last change of the schema."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.backend import Backend
from digestry.catalog.catalog import Catalog
from digestry.catalog.migrations import versions
from digestry.catalog.postgresql import database
from digestry.catalog.schema_version import newest_schema
from digestry.errors import StorageError
from tests.backends import BlockingReads
from tests.catalog.raw import Raw
from tests.catalog.support import ORIGIN, collected, pushed

NEXT = f"{int(newest_schema()) + 1:04}"
_MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"
{oldest}

def upgrade() -> None:
    op.add_column("manifests", sa.Column("platform", sa.Text))
    op.add_column("repositories", sa.Column("state", sa.Text, nullable=False, server_default="open"))
    op.create_table("followers", sa.Column("name", sa.Text, primary_key=True))
"""


@contextlib.contextmanager
def newer(folder: Path, *, oldest: str | None) -> Iterator[None]:
    """Let this digestry have one more migration, which lets one go on that knows ``oldest``."""
    stated = "" if oldest is None else f'oldest = "{oldest}"'
    text = _MIGRATION.format(revision=NEXT, before=newest_schema(), oldest=stated)
    (folder / f"v{NEXT}_next.py").write_text(text, encoding="utf-8")
    versions.__path__.append(str(folder))
    newest_schema.cache_clear()
    try:
        yield
    finally:
        versions.__path__.remove(str(folder))
        newest_schema.cache_clear()


def migrated_by_newer(backend: Backend, folder: Path, *, oldest: str | None) -> None:
    folder.mkdir()
    with newer(folder, oldest=oldest):
        catalog = backend.open_catalog()
        catalog.migrate()
        pushed(catalog, "new")
        catalog.close()


@pytest.fixture(autouse=True)
def _looked_at_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "SCHEMA_SECONDS", 0.0)


def test_an_older_node_goes_on_and_starts_again(
    catalog: Catalog, backend: Backend, raw: Raw, tmp_path: Path
) -> None:
    """Where the newer schema only adds to the older one: all that the older one does is right."""
    manifest = pushed(catalog, "x")
    migrated_by_newer(backend, tmp_path / "next", oldest=newest_schema())
    assert raw.query("SELECT version_num FROM alembic_version")[0][0] == NEXT
    pushed(catalog, "x")
    again = backend.open_catalog()
    again.migrate()
    backend.catalog_store.check_schema()
    moved = pushed(again, "x")
    again.delete_tag("new", "t", origin=ORIGIN)
    assert [event.event for event in again.journal("x", limit=5)] == ["moved", "moved", "created"]
    reads = BlockingReads(backend)
    found = reads.manifest("x", "t")
    assert found is not None
    assert found.digest == str(moved.digest)
    assert again.manifest("x", manifest.digest) is not None
    collected(again)
    with backend.open_copy(tmp_path / "next") as copy:
        assert copy.has_repository("x")
    assert again.verify_journal() is None
    assert raw.query("SELECT count(*) FROM repositories WHERE state = 'open'")[0][0] == 2
    reads.close()
    again.close()


@pytest.mark.parametrize("oldest", [None, NEXT])
def test_an_older_node_stops_where_the_newer_schema_is_not_for_it(
    catalog: Catalog, backend: Backend, tmp_path: Path, oldest: str | None
) -> None:
    pushed(catalog, "x")
    migrated_by_newer(backend, tmp_path / "next", oldest=oldest)
    starting, going_on = backend.open_catalog(), backend.open_catalog()
    for refused in (starting.migrate, backend.catalog_store.check_schema, lambda: pushed(going_on, "x")):
        with pytest.raises(StorageError, match=f"has schema {NEXT}") as caught:
            refused()
        assert "newer digestry" in caught.value.hint
    starting.close()
    going_on.close()


@pytest.mark.long
@pytest.mark.only_on("postgresql", reason="a file has one digestry at a time")
def test_a_node_that_runs_notices(catalog: Catalog, backend: Backend, tmp_path: Path) -> None:
    pushed(catalog, "x")
    migrated_by_newer(backend, tmp_path / "next", oldest=None)
    with pytest.raises(StorageError, match=f"has schema {NEXT}"):
        pushed(catalog, "x")
