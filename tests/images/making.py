"""Small images and archives, made on the spot."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from digestry.images.pack import Packed, pack
from digestry.images.recipe import Recipe
from digestry.images.store import ImageStore
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from digestry.model.platform import Platform
from digestry.model.reference import Reference

HOST = Platform.of_host()
OTHER = Platform("s390x", "linux")


def tree(root: Path, **files: str) -> Path:
    """A directory with ``files``; a double underscore in a name is a slash."""
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    root.mkdir(exist_ok=True)
    return root


def packed(store: ImageStore, root: Path, name: str, platform: Platform = HOST, **files: str) -> Packed:
    """Packs ``files`` into ``store`` under ``name``."""
    with store.adding():
        made = pack(tree(root, **files), Recipe(platform), store.blobs)
        store.point(Reference.parse(name), made.manifest)
    return made


def index_of(*images: tuple[Descriptor, Platform | None], **extra: Any) -> bytes:
    """An index, with fields that nobody knows, as exact bytes."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_INDEX,
            "manifests": [
                {
                    "mediaType": d.media_type,
                    "digest": str(d.digest),
                    "size": d.size,
                    **({"platform": {"os": p.os, "architecture": p.architecture}} if p is not None else {}),
                }
                for d, p in images
            ],
            "x-unknown": [1, 2],
            **extra,
        },
        indent=3,
    ).encode()


@dataclass
class Item:
    """One entry of an archive."""

    name: str
    content: bytes = b""
    kind: bytes = tarfile.REGTYPE
    link: str = ""
    mode: int = 0o644


def archive(items: Iterable[Item], kind: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive by the standard library, which refuses nothing."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as file:
        for item in items:
            info = tarfile.TarInfo(item.name)
            info.type, info.linkname, info.mode, info.size = (
                item.kind,
                item.link,
                item.mode,
                len(item.content),
            )
            file.addfile(info, io.BytesIO(item.content))
    return buffer.getvalue()


_COMPRESSIONS = {
    "gzip": lambda content: gzip.compress(content, 1),
    "zstd": zstandard.ZstdCompressor().compress,
}


def image_of(store: ImageStore, *layers: bytes, kind: str = media_types.OCI_LAYER) -> Manifest:
    """An image of these archives; compressed, where ``kind`` says so."""
    compress = next((made for end, made in _COMPRESSIONS.items() if kind.endswith(end)), bytes)
    return _image(store, [compress(layer) for layer in layers], layers, kind)


def of_blob(store: ImageStore, blob: bytes, plain: bytes, kind: str) -> Manifest:
    """An image of one layer, whose ``blob`` was compressed by whoever calls."""
    return _image(store, [blob], [plain], kind)


def _image(store: ImageStore, blobs: Sequence[bytes], layers: Sequence[bytes], kind: str) -> Manifest:
    store.blobs.prepare()
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [str(Digest.of(x)) for x in layers]}}
    ).encode()

    def plain(media_type: str, content: bytes) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": str(store.blobs.put(content)), "size": len(content)}

    document = {
        "schemaVersion": 2,
        "config": plain(media_types.OCI_CONFIG, config),
        "layers": [plain(kind, blob) for blob in blobs],
    }
    return Manifest.parse(json.dumps(document).encode())
