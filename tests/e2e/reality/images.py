"""Small images of known bytes: put into any registry, or into an archive that engines load."""

from __future__ import annotations

import io
import json
import platform
from dataclasses import dataclass
from typing import Any, Final

from digestry.cli.demo_program import executable
from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.e2e.engines import tar

ARCHITECTURE: Final = "arm64" if platform.machine() == "aarch64" else "amd64"
OTHER: Final = "amd64" if ARCHITECTURE == "arm64" else "arm64"


@dataclass(frozen=True)
class Image:
    """One image: the bytes of its layer, of its config and of its manifest."""

    layer: bytes
    config: bytes
    manifest: bytes
    architecture: str = ARCHITECTURE

    @property
    def digest(self) -> Digest:
        return Digest.of(self.manifest)

    def entry(self) -> dict[str, Any]:
        """What an index says of it."""
        return {
            "mediaType": media_types.OCI_MANIFEST,
            "digest": str(self.digest),
            "size": len(self.manifest),
            "platform": {"os": "linux", "architecture": self.architecture},
        }


def made(says: str, architecture: str = ARCHITECTURE, **annotations: str) -> Image:
    """An image whose program says ``says`` and waits. ``annotations`` change its manifest only."""
    layer = tar({"app": executable(says, architecture)})
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["/app"]},
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer))]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": _descriptor(media_types.OCI_CONFIG, config),
        "layers": [_descriptor(media_types.OCI_LAYER, layer)],
        **({"annotations": annotations} if annotations else {}),
    }
    return Image(layer, config, json.dumps(manifest).encode(), architecture)


def index(*children: Image) -> bytes:
    entries = [child.entry() for child in children]
    return json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}).encode()


def publish(name: str, *children: Image, whole: bytes | None = None) -> Digest:
    """Puts one image, or the index ``whole`` of several, under ``name``, ``host/repository:tag``; returns
    the digest that the tag points to."""
    reference = Reference.parse(name)
    with Session(ClientOptions()) as session:
        repository = session.repository(reference)
        for child in children:
            for kind, content in (
                (media_types.OCI_LAYER, child.layer),
                (media_types.OCI_CONFIG, child.config),
            ):
                descriptor = Descriptor(kind, Digest.of(content), len(content))
                repository.push_blob(descriptor, lambda content=content: io.BytesIO(content))  # type: ignore[misc]
            tags = () if whole is not None else (str(reference.tag),)
            repository.push_manifest(child.manifest, media_types.OCI_MANIFEST, tags=tags)
        if whole is None:
            return children[0].digest
        return repository.push_manifest(whole, media_types.OCI_INDEX, tags=(str(reference.tag),))


def archive(name: str, image: Image, *, layout: bool = True) -> bytes:
    """What engines load: in the form of ``docker save`` before release 25 and, with ``layout``, in that of
    later ones, which has the image's own manifest too."""
    layer, config = f"blobs/sha256/{Digest.of(image.layer).encoded}", Digest.of(image.config).encoded
    described = [{"Config": f"blobs/sha256/{config}", "RepoTags": [name], "Layers": [layer]}]
    files: dict[str, bytes | str] = {
        f"blobs/sha256/{config}": image.config,
        layer: image.layer,
        "manifest.json": json.dumps(described).encode(),
    }
    if layout:
        annotations = {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name.rpartition(":")[2],
        }
        entry = {**image.entry(), "annotations": annotations}
        files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
        files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
        files[f"blobs/sha256/{image.digest.encoded}"] = image.manifest
    return tar(files)


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content)}
