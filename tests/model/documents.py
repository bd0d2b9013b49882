"""Small documents to vary: a descriptor, a manifest, an index and a config, as JSON."""

from __future__ import annotations

import json
from typing import Any

from digestry.model import media_types
from digestry.model.digest import Digest

SOME: Digest = Digest.of(b"some content")
OTHER: Digest = Digest.of(b"other content", "sha512")


def descriptor(**changes: Any) -> dict[str, Any]:
    return {"mediaType": media_types.OCI_LAYER_GZIP, "digest": str(SOME), "size": 12, **changes}


def manifest(**changes: Any) -> bytes:
    base = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": descriptor(mediaType=media_types.OCI_CONFIG),
        "layers": [descriptor()],
    }
    return json.dumps({**base, **changes}).encode()


def index(**changes: Any) -> bytes:
    child = descriptor(mediaType=media_types.OCI_MANIFEST)
    base = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [child]}
    return json.dumps({**base, **changes}).encode()


def config(**changes: Any) -> bytes:
    base = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [str(SOME)]},
        "history": [{"created_by": "ADD"}, {"created_by": "ENV", "empty_layer": True}],
    }
    return json.dumps({**base, **changes}).encode()


def without(document: bytes, *keys: str) -> bytes:
    parsed = json.loads(document)
    return json.dumps({key: value for key, value in parsed.items() if key not in keys}).encode()
