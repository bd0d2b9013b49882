"""What the catalog's tests share: content that needs no server."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from digestry.catalog.catalog import Catalog
from digestry.catalog.journal import Origin
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


def pushed(catalog: Catalog, name: str, tags: Sequence[str] = ("t",)) -> Manifest:
    """A new image, put under ``tags``."""
    return put(catalog, name, image(catalog, name), *tags)
