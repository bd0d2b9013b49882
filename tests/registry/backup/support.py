"""A registry's root without a server, small and real; and backups of it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from digestry.backend import Backend, open_backend
from digestry.catalog.journal import Origin
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from digestry.registry.access.keys import KeyRing
from digestry.registry.backup import restoring, taking
from digestry.registry.backup.copying import Flow
from digestry.registry.backup.restoring import RestoredBackup
from digestry.registry.backup.taking import TakenBackup
from digestry.registry.root import BACKUP_LOCK
from tests.backends import open_blobs, open_catalog, open_coordination

ORIGIN = Origin("tester", "127.0.0.1", "pytest")
LARGE = 3 << 20
"""Bytes of a layer that takes more than one reading."""


class Unseen:
    """Nobody watches."""

    def total(self, size: int) -> None:
        pass

    def moved(self, count: int) -> None:
        pass


def descriptor(kind: str, content: bytes, digest: Digest) -> dict[str, Any]:
    return {"mediaType": kind, "digest": str(digest), "size": len(content)}


def push(root: Path, repository: str, tag: str, layer: bytes, algorithm: str = "sha256") -> Digest:
    """Puts a small image there as the server would; returns its digest."""
    return push_to(open_backend(root), repository, tag, layer, algorithm)


def push_to(backend: Backend, repository: str, tag: str, layer: bytes, algorithm: str = "sha256") -> Digest:
    """Puts a small image into the stores of ``backend``; returns its digest."""
    blobs, catalog = backend.blobs, backend.open_catalog()
    try:
        parts = []
        for content in (json.dumps({"of": str(Digest.of(layer))}).encode(), layer):
            digest = blobs.put(content, Digest.of(content, algorithm))
            catalog.add_blob(repository, digest, len(content))
            parts.append((content, digest))
        body = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": descriptor(media_types.OCI_CONFIG, *parts[0]),
            "layers": [descriptor(media_types.OCI_LAYER, *parts[1])],
        }
        manifest = Manifest.parse(json.dumps(body).encode())
        blobs.put(manifest.raw, manifest.digest)
        catalog.put_manifest(repository, manifest, tag_names=[tag], origin=ORIGIN)
        return manifest.digest
    finally:
        catalog.close()


def make_root(root: Path) -> None:
    """Two repositories, a tag that moved, a large layer, a sha512, and a key."""
    root.mkdir()
    open_blobs(root).prepare()
    catalog = open_catalog(root)
    catalog.migrate()
    catalog.close()
    push(root, "golftrack", "1.5", b"bad")
    push(root, "golftrack", "1.5", b"good")
    push(root, "team/large", "1", bytes(range(256)) * (LARGE // 256) + b"end")
    push(root, "team/long", "1", b"of a long digest", "sha512")
    KeyRing(open_coordination(root).keys).ensure()


def back_up(root: Path, destination: Path, *, verify: bool = False, keep: bool = False) -> TakenBackup:
    return taking.to_directory(
        open_backend(root), root, destination, verify=verify, keep=keep, flow=Flow(), watcher=Unseen()
    )


def archive(root: Path) -> tuple[bytes, TakenBackup]:
    stream = io.BytesIO()
    taken = taking.to_archive(open_backend(root), root, stream.write, flow=Flow(), watcher=Unseen())
    return stream.getvalue(), taken


def restore(source: Path | bytes, root: Path, **options: Any) -> RestoredBackup:
    backend, flow, watcher = open_backend(root), Flow(), Unseen()
    if isinstance(source, bytes):
        read = io.BytesIO(source).read
        return restoring.from_archive(read, backend, root, flow=flow, watcher=watcher, **options)
    return restoring.from_directory(source, backend, root, flow=flow, watcher=watcher, **options)


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Every file under ``root``: its inode, and when its content changed."""
    return {
        str(path.relative_to(root)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def blob_files(root: Path) -> dict[str, bytes]:
    """The content under ``root``, a registry's or a backup's, by digest."""
    blobs = open_blobs(root)
    if not (root / BACKUP_LOCK).exists() and blobs.local_path(Digest.of(b"")) is None:
        return {str(digest): blobs.open(digest).read() for digest in blobs.digests()}
    return {
        f"{path.parent.name}:{path.name}": path.read_bytes()
        for path in (root / "blobs").glob("*/*")
        if path.is_file()
    }


def tags(root: Path) -> dict[tuple[str, str], str]:
    catalog = open_catalog(root)
    try:
        return {
            (name, row.name): str(row.digest)
            for name in ("golftrack", "team/large", "team/long")
            for row in catalog.tags(name)
        }
    finally:
        catalog.close()


def damaged(root: Path) -> dict[str, str]:
    """The content that the registry knows to be damaged, and why."""
    catalog = open_catalog(root)
    try:
        return {str(row.digest): row.problem for row in catalog.damage.listed(limit=100)}
    finally:
        catalog.close()


def note_damaged(root: Path, digest: Digest) -> None:
    catalog = open_catalog(root)
    try:
        assert catalog.damage.note(digest, "it was", 1) == "new"
    finally:
        catalog.close()
