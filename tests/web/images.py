"""Images for the pages: of several platforms, with a history, settings, and fields that others write."""

from __future__ import annotations

import json
from typing import Any

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.support import RegistryServer, descriptor

STEPS = [
    {"created": "2026-10-01T10:00:00Z", "created_by": "ADD file:3b2b0c107ddf in /"},
    {"created": "2026-10-01T10:00:01Z", "created_by": 'CMD ["sh"]', "empty_layer": True},
    {"created": "2026-11-20T10:00:00Z", "created_by": "RUN install curl # buildkit"},
]


def image(
    server: RegistryServer,
    name: str,
    mark: str,
    *,
    architecture: str = "amd64",
    history: list[dict[str, Any]] | None = None,
    settings: dict[str, Any] | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """Push the blobs of an image of two layers, the first of which is every image's; return its manifest."""
    layers = [b"the base", f"{mark} {architecture}".encode()]
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Entrypoint": ["/run"], "Env": ["LANG=C.UTF-8"]} if settings is None else settings,
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer)) for layer in layers]},
            "history": STEPS if history is None else history,
        }
    ).encode()
    return {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": descriptor(media_types.OCI_CONFIG, server.push_blob(name, config), len(config)),
        "layers": [
            descriptor(media_types.OCI_LAYER, server.push_blob(name, layer), len(layer)) for layer in layers
        ],
        **extra,
    }


def push_index(server: RegistryServer, name: str, tag: str, mark: str, **extra: Any) -> Digest:
    """Push an index of two platforms, and an attestation beside them; return its digest."""
    entries = []
    for architecture in ("amd64", "arm64"):
        raw = json.dumps(image(server, name, mark, architecture=architecture)).encode()
        digest = server.push_manifest(name, str(Digest.of(raw)), raw)
        platform = {"os": "linux", "architecture": architecture}
        entries.append(descriptor(media_types.OCI_MANIFEST, digest, len(raw), platform=platform))
    raw = json.dumps(server.image(name, b"{}")).encode()
    digest = server.push_manifest(name, str(Digest.of(raw)), raw)
    platform = {"os": "unknown", "architecture": "unknown"}
    entries.append(descriptor(media_types.OCI_MANIFEST, digest, len(raw), platform=platform))
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries, **extra}
    return server.push_manifest(name, tag, index)


def attach(server: RegistryServer, name: str, subject: Digest, document: dict[str, Any]) -> Digest:
    """Attach an OpenVEX document to a manifest; return the referrer's digest."""
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {subject.algorithm: subject.encoded}}],
        "predicateType": "https://openvex.dev/ns/v0.2.0",
        "predicate": document,
    }
    content = json.dumps(statement).encode()
    empty = server.push_blob(name, b"{}")
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": media_types.IN_TOTO,
        "config": descriptor(media_types.OCI_EMPTY, empty, 2),
        "layers": [descriptor(media_types.IN_TOTO, server.push_blob(name, content), len(content))],
        "subject": descriptor(media_types.OCI_MANIFEST, subject, 1),
        "annotations": {media_types.PREDICATE_TYPE: "https://openvex.dev/ns/v0.2.0"},
    }
    raw = json.dumps(manifest).encode()
    return server.push_manifest(name, str(Digest.of(raw)), raw)


def openvex(*statements: dict[str, Any], author: str = "somebody") -> dict[str, Any]:
    """An OpenVEX document."""
    return {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "@id": "https://example.com/vex/1",
        "author": author,
        "timestamp": "2026-11-20T10:00:00Z",
        "version": 1,
        "statements": list(statements),
    }
