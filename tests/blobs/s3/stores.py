"""S3 stores with their rows in a catalog, as tests open them."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from digestry.blobs.s3.config import S3Config
from digestry.blobs.s3.rows import ObjectRows
from digestry.blobs.s3.store import S3Blobs
from digestry.catalog import clock
from digestry.catalog.sqlite.store import SqliteStore
from digestry.catalog.stored_objects import StoredObjects
from digestry.model.digest import Digest


def open_rows(root: Path, now: clock.Clock = clock.now) -> ObjectRows:
    """The rows in the catalog under ``root``, which is there."""
    return StoredObjects(SqliteStore(root).open(), now)


def make_store(root: Path, config: S3Config, **changed: Any) -> S3Blobs:
    """A store with new rows in ``root``. ``changed`` are other values of the configuration."""
    root.mkdir(parents=True, exist_ok=True)
    SqliteStore(root).open().migrate()
    return S3Blobs(dataclasses.replace(config, **changed), partial(open_rows, root))


def damage(store: S3Blobs, digest: Digest, content: bytes) -> None:
    """Put other bytes in the place of some content's."""
    found = store.session.rows.find(digest)
    assert found is not None
    store.session.client.put(found.key, content)
