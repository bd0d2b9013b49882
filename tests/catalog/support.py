"""What the catalog's tests share: content that needs no server."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from digestry.backend import Backend
from digestry.catalog.catalog import Catalog
from digestry.catalog.journal import Origin
from digestry.catalog.journal_sequencing import JournalSequencing
from digestry.catalog.options import CatalogOptions
from digestry.catalog.removals import Removed, Stayed
from digestry.catalog.retention_rules import Retention, TagRetention
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest

ORIGIN = Origin("tester", "127.0.0.1", "pytest")


class Clock:
    """A clock that a test sets, in microseconds since 1970."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000_000

    def __call__(self) -> int:
        return self.now


def image(catalog: Catalog, name: str, salt: bytes | None = None) -> Manifest:
    """An image's manifest, whose blobs the repository has; not put."""
    layer = os.urandom(8) if salt is None else salt
    config = Digest.of(b"config of " + layer)
    for digest in (config, Digest.of(layer)):
        catalog.add_blob(name, digest, 8)
    body = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": {"mediaType": media_types.OCI_CONFIG, "digest": str(config), "size": 8},
        "layers": [{"mediaType": media_types.OCI_LAYER, "digest": str(Digest.of(layer)), "size": 8}],
    }
    return Manifest.parse(json.dumps(body).encode())


def index(*children: Manifest) -> Manifest:
    """An index of ``children``, and something that makes it different from any other."""
    body = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [
            {"mediaType": child.media_type, "digest": str(child.digest), "size": child.size}
            for child in children
        ],
        "annotations": {"salt": os.urandom(8).hex()},
    }
    return Manifest.parse(json.dumps(body).encode())


def put(catalog: Catalog, name: str, manifest: Manifest, *tags: str) -> Manifest:
    catalog.put_manifest(name, manifest, tag_names=tags, origin=ORIGIN)
    return manifest


def give_positions(catalog: Catalog) -> None:
    """Give the entries that have no position in the registry their positions."""
    JournalSequencing(catalog._database, ()).run()


def pushed(catalog: Catalog, name: str, tags: Sequence[str] = ("t",)) -> Manifest:
    """A new image, put under ``tags``."""
    return put(catalog, name, image(catalog, name), *tags)


AT_ONCE = Retention(untagged=0.0, sighted=86400.0)


def collected(catalog: Catalog, retention: Retention = AT_ONCE) -> list[Removed | Stayed]:
    """One collection of everything but bytes."""
    collection = catalog.garbage(retention)
    return [
        item
        for key in collection.repositories()
        for step in (collection.drop_tags, collection.delete_manifests, collection.unlink)
        for batch in step(key)
        for item in batch
    ]


def names(items: list[Removed | Stayed], kind: str) -> list[str]:
    return sorted(item.name for item in items if item.kind == kind and isinstance(item, Removed))


def there(catalog: Catalog, *found: Manifest, name: str = "x") -> list[bool]:
    return [catalog.manifest(name, manifest.digest) is not None for manifest in found]


def rules(*given: TagRetention) -> Retention:
    return replace(AT_ONCE, rules=given)


def with_options(backend: Backend, **options: Any) -> Backend:
    """Return the same stores under other options of the configuration."""
    return replace(backend, options=CatalogOptions(**options))
