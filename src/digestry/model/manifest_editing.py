"""New manifests made from others: annotations set, entries of an index added and removed.

The bytes of the manifest that is edited stay as they are; the new ones have every field that was in it, also
those that are unknown here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from digestry.errors import InvalidManifest
from digestry.model import go_json, media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Index, Manifest, encode
from digestry.model.platform import Platform


def annotated(manifest: Manifest, changes: Mapping[str, str | None]) -> bytes:
    """Return ``manifest`` with other annotations: those of ``changes`` set, or removed for None."""
    document = _document(manifest)
    _change(document, changes)
    return encode(document)


def entry_changed(
    index: Index, digest: Digest, changes: Mapping[str, str | None], platform: Platform | None = None
) -> bytes:
    """Return ``index`` with other annotations, or another platform, of the entry for ``digest``.

    Raises :class:`InvalidManifest` if it has no such entry.
    """
    document = _document(index)
    entries = [entry for entry in document["manifests"] if entry.get("digest") == str(digest)]
    if not entries:
        raise InvalidManifest(f"{index.digest} has no entry for {digest}")
    for entry in entries:
        _change(entry, changes)
        if platform is not None:
            entry["platform"] = msgspec.to_builtins(platform)
    return encode(document)


def new_index(
    entries: Iterable[Descriptor], *, media_type: str = media_types.OCI_INDEX, annotations: Mapping[str, str]
) -> bytes:
    """Return a new index of ``entries``, each digest once. Its bytes depend on nothing else."""
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": list({entry.digest: entry for entry in entries}.values()),
    }
    if annotations:
        document["annotations"] = dict(annotations)
    return encode(document)


def entries_changed(
    index: Index, *, add: Sequence[Descriptor] = (), remove: Collection[Digest] = ()
) -> bytes:
    """Return ``index`` without the entries of ``remove``, and with those of ``add``.

    An added entry takes the place of one for the same digest, or for the same platform.
    """
    document = _document(index)
    gone = {str(digest) for digest in (*remove, *(entry.digest for entry in add))}
    platforms = {
        str(entry.platform) for entry in add if entry.platform is not None and not entry.platform.is_unknown
    }
    replaced = {
        str(entry.digest)
        for entry in index.manifests
        if entry.platform is not None and str(entry.platform) in platforms
    }
    kept = [entry for entry in document["manifests"] or () if entry.get("digest") not in gone | replaced]
    document["manifests"] = [*kept, *add]
    return encode(document)


def new_artifact(
    artifact_type: str,
    layers: Sequence[Descriptor],
    *,
    config: Descriptor,
    subject: Descriptor | None = None,
    annotations: Mapping[str, str],
) -> bytes:
    """Return the manifest of an artifact (image-spec, manifest.md, "Guidelines for Artifact Usage")."""
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": config,
        "layers": list(layers),
    }
    if subject is not None:
        document["subject"] = subject
    if annotations:
        document["annotations"] = dict(annotations)
    return encode(document)


def _document(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest's JSON. Any: fields that are unknown here stay as they are."""
    raw = go_json.plain(manifest.raw) if go_json.is_odd(manifest.raw) else manifest.raw
    document = msgspec.json.decode(raw, type=dict[str, Any])
    if "mediaType" not in document and manifest.media_type in media_types.MANIFESTS:
        document["mediaType"] = manifest.media_type
    return document


def _change(document: dict[str, Any], changes: Mapping[str, str | None]) -> None:
    annotations = dict(document.get("annotations") or {})
    for key, value in changes.items():
        if value is None:
            annotations.pop(key, None)
        else:
            annotations[key] = value
    if annotations:
        document["annotations"] = annotations
    else:
        document.pop("annotations", None)
