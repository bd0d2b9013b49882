"""Archives that images are copied into: an OCI layout in a tar file, and a file as ``docker save`` writes it.

The latter is an OCI layout, too, with the ``manifest.json`` that engines without layouts read: its layers are
stored as they are in the registry, so that nothing is compressed anew and each digest stays.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from digestry.blobs.layout_version import LAYOUT, LAYOUT_FILE
from digestry.blobs.verify import verified
from digestry.copy.layout import CONTAINERD_NAME, blob_name
from digestry.copy.protocols import BlobContent, Outcome, Progress
from digestry.errors import InvalidManifest, InvalidReference, StorageError
from digestry.fsio import replacing, storage_errors, sweep_temporaries
from digestry.images import tar_writer
from digestry.images.layout import INDEX_FILE, NAME
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Image, Manifest, encode
from digestry.model.reference import Reference

DOCKER_MANIFEST_FILE: Final = "manifest.json"
_CHUNK: Final = 1 << 20
_LEFTOVER_SECONDS: Final = 24 * 3600.0


class ArchiveTarget:
    """A tar file that images are copied into. It is written under a temporary name, and renamed at the end.

    ``for_docker`` writes what ``docker load`` and ``podman load`` of any version read: images, no indexes.
    ``file`` takes the bytes instead of ``path``, such as standard output.
    """

    repository: Final = None
    is_far: Final = False
    keeps_index: Final = False
    is_written_whole: Final = True

    def __init__(
        self, path: Path, description: str, *, for_docker: bool = False, file: BinaryIO | None = None
    ) -> None:
        self.description = description
        self.holds_indexes = not for_docker
        self.doubtful_layers = _ZSTD if for_docker else frozenset[str]()
        self.may_lack_images = not for_docker
        self.loss = _DOCKER_LOSS if for_docker else ""
        self._path = path
        self._lock = threading.Lock()
        self._written: set[Digest] = set()
        self._names: list[tuple[str | None, Manifest]] = []
        self._referrers: list[Manifest] = []
        self._replacing = contextlib.ExitStack()
        if file is None:
            if path.is_dir():
                raise StorageError(f"{path} is a directory", hint="name a file in it")
            sweep_temporaries(path.parent, older_than=_LEFTOVER_SECONDS)
            file = self._replacing.enter_context(replacing(path))
        self._file = file
        self._add(LAYOUT_FILE, LAYOUT)

    def current(self, name: str | None) -> Digest | None:
        """Return None: the file is written anew."""
        return None

    def has_manifest(self, descriptor: Descriptor) -> bool:
        return descriptor.digest in self._written

    def has_blob(self, descriptor: Descriptor) -> bool:
        return descriptor.digest in self._written

    def put_blob(
        self, descriptor: Descriptor, content: BlobContent, *, mount_from: str | None, progress: Progress
    ) -> Outcome:
        with self._lock:
            if descriptor.digest in self._written:
                return "present"
            with storage_errors("write", self._path):
                self._begin(blob_name(descriptor.digest), descriptor.size)
                with content.open() as file:
                    for chunk in verified(_chunks(file), descriptor.digest, descriptor.size):
                        self._file.write(chunk)
                        progress(len(chunk))
                self._file.write(tar_writer.padding(descriptor.size))
            self._written.add(descriptor.digest)
        return "sent"

    def put_manifest(self, manifest: Manifest) -> None:
        with self._lock:
            if manifest.digest not in self._written:
                self._add(blob_name(manifest.digest), manifest.raw)
                self._written.add(manifest.digest)
            if manifest.subject is not None:
                self._referrers.append(manifest)

    def point(self, names: Sequence[tuple[str | None, Manifest]]) -> None:
        for name, manifest in names:
            if not self.holds_indexes:
                _check_docker_image(manifest)
            self.put_manifest(manifest)
            self._names.append((name, manifest))

    def finish(self) -> None:
        """Write the lists of images, and give the file its name."""
        self._add(INDEX_FILE, encode(self._index()))
        if not self.holds_indexes:
            self._add(DOCKER_MANIFEST_FILE, encode(self._docker_manifest()))
        with storage_errors("write", self._path):
            self._file.write(tar_writer.END)
            self._file.flush()
        self._replacing.close()

    def close(self) -> None:
        """Remove the written file, unless it was finished."""
        with contextlib.suppress(_Unfinished), self._replacing:
            raise _Unfinished

    def _index(self) -> dict[str, object]:
        entries: list[dict[str, object]] = []
        for name, manifest in self._names:
            entry = _entry(manifest)
            if name is not None:
                entry["annotations"] = self._annotations(name)
            entries.append(entry)
        named = {manifest.digest for _, manifest in self._names}
        unnamed = [manifest for manifest in self._referrers if manifest.digest not in named]
        entries += [_entry(manifest) for manifest in unnamed]
        return {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}

    def _annotations(self, name: str) -> dict[str, str]:
        if self.holds_indexes:
            return {NAME: name}
        tag = Reference.parse(name).tag
        return {CONTAINERD_NAME: name, **({NAME: tag} if tag else {})}

    def _docker_manifest(self) -> list[dict[str, object]]:
        images: dict[Digest, tuple[Image, list[str]]] = {}
        for name, manifest in self._names:
            assert isinstance(manifest, Image)  # noqa: S101 - checked when it came
            _, tags = images.setdefault(manifest.digest, (manifest, []))
            if name is not None:
                tags.append(Reference.parse(name).familiar)
        return [
            {
                "Config": blob_name(image.config.digest),
                "RepoTags": tags or None,
                "Layers": [blob_name(layer.digest) for layer in image.layers],
            }
            for image, tags in images.values()
        ]

    def _add(self, name: str, content: bytes) -> None:
        with storage_errors("write", self._path):
            self._begin(name, len(content))
            self._file.write(content + tar_writer.padding(len(content)))

    def _begin(self, name: str, size: int) -> None:
        self._file.write(tar_writer.header(name.encode(), tar_writer.REGULAR, mode=0o644, size=size, mtime=0))


def _entry(manifest: Manifest) -> dict[str, object]:
    return {"mediaType": manifest.media_type, "digest": str(manifest.digest), "size": manifest.size}


_ZSTD: Final = frozenset({media_types.OCI_LAYER_ZSTD, media_types.DOCKER_LAYER_ZSTD})
_DOCKER_LOSS: Final = (
    "an engine without the containerd image store keeps the image ID, and not the digest, of what it loads"
)


class _Unfinished(Exception):
    """Raised to end the writing of a file that is not kept."""


def _check_docker_image(manifest: Manifest) -> None:
    if not isinstance(manifest, Image):
        raise InvalidManifest(f"{manifest.digest} is an index, which `docker load` does not read")
    if manifest.config.media_type not in media_types.IMAGE_CONFIGS:
        raise InvalidManifest(
            f"{manifest.digest} is an artifact ({manifest.config.media_type}), not a container's image",
            hint="copy it to oci-archive:FILE",
        )
    for layer in manifest.layers:
        if media_types.is_foreign(layer.media_type) and layer.urls:
            raise InvalidManifest(
                f"{layer.digest}, a layer of {manifest.digest}, is kept elsewhere by its licence, and a file"
                " without it cannot be loaded",
                hint="copy the image to oci-archive:FILE",
            )


def docker_name(name: str) -> str:
    """Return ``name`` if ``docker load`` can give it to an image. Raises :class:`InvalidReference`."""
    reference = Reference.parse(name)
    if reference.digest is not None:
        raise InvalidReference(f"{name} has a digest: an engine names what it loads by tags alone")
    return name


def _chunks(file: io.BufferedIOBase | BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk
