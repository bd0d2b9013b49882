"""The local image store: names over content, in an OCI image layout that other tools read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from digestry.blobs.disk import open_layout
from digestry.blobs.layout_version import LAYOUT_FILE, check_layout
from digestry.errors import ContentError, InvalidManifest, NotFound
from digestry.file_locks import locked
from digestry.fsio import PRIVATE, make_directory, storage_errors
from digestry.images.layout import Layout, LayoutEntry, read_entries
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import ALGORITHMS, Digest
from digestry.model.image_config import ImageConfig
from digestry.model.manifest import Image, Index, Manifest, parse_manifest
from digestry.model.platform import Platform
from digestry.model.reference import Reference

LARGEST_MANIFEST: Final = 16 << 20
_INDEX_LOCK: Final = ".index.lock"
_CONTENT_LOCK: Final = ".content.lock"


class ImageStore:
    """The images in the directory ``root``. Safe to use from many processes and threads at once.

    Nothing is read or made before a method is called. Where ``root`` is made, its owner alone can enter it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = open_layout(root)

    # -- locks --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def adding(self) -> Iterator[None]:
        """Protect content that no name holds yet from removal, for the block that adds it."""
        self._prepare()
        with locked(self.root / _CONTENT_LOCK, shared=True):
            yield

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep others from bringing content in, for the block. Raises :class:`Conflict` if somebody is."""
        with locked(self.root / _CONTENT_LOCK, wait=False):
            yield

    @contextlib.contextmanager
    def changing(self) -> Iterator[Layout]:
        """Lock the index for the block, and write its changes at the end, unless the block raises."""
        self._prepare()
        with locked(self.root / _INDEX_LOCK):
            layout = Layout.read(self.root)
            yield layout
            if layout.changed:
                layout.write()

    def _prepare(self) -> None:
        # Its last step writes that file: if all of these exist, the directories are synced already.
        paths = (LAYOUT_FILE, "ingest", *(f"blobs/{algorithm}" for algorithm in ALGORITHMS))
        if not all((self.root / name).exists() for name in paths):
            make_directory(self.root, mode=PRIVATE)
            self.blobs.prepare()
        else:
            check_layout(self.root)

    # -- names --------------------------------------------------------------------------------

    def entries(self) -> list[LayoutEntry]:
        """Return all names. Raises :class:`ContentError` if the layout's index is damaged, or its version is
        not known."""
        check_layout(self.root)
        return read_entries(self.root)

    def find(self, reference: Reference) -> Descriptor:
        """Return the descriptor of ``reference``: by its digest, or else by its tag.

        Raises :class:`NotFound`.
        """
        every = self.entries()
        name = str(reference)
        for entry in every:
            if entry.name == name:  # as the store writes it; the others are read
                return plain_descriptor(entry.descriptor)
        repository = reference.repository_only()
        entries = [
            (entry, known)
            for entry in every
            if (known := entry.reference) is not None and known.repository_only() == repository
        ]
        for entry, known in entries:
            digest = entry.descriptor.digest
            if digest == reference.digest if reference.digest is not None else known.tag == reference.tag:
                return plain_descriptor(entry.descriptor)
        if reference.digest is not None:
            # One platform's image, of an index that is here by its own name.
            for entry, _ in entries:
                for child in self.descendants(entry.descriptor):
                    if child.digest == reference.digest and self.blobs.stat(child.digest) is not None:
                        return plain_descriptor(child)
        raise NotFound(
            f"{reference} is not in the local store",
            hint="`digestry images --digests` lists what is there; `digestry pull` fetches what is not",
        )

    def descendants(self, descriptor: Descriptor) -> Iterator[Descriptor]:
        """Yield the entries of an index, and of the indexes in it; each index is read once."""
        waiting, seen = [descriptor], set[Digest]()
        while waiting:
            index = waiting.pop(0)
            if index.media_type not in media_types.INDEXES or index.digest in seen:
                continue
            seen.add(index.digest)
            if self.blobs.stat(index.digest) is not None:
                children = self.manifest(index).manifests
                yield from children
                waiting += children

    def point(self, reference: Reference, descriptor: Descriptor) -> Digest | None:
        """Point ``reference`` to ``descriptor``, and return its tag's previous digest.

        The digest gets a name too, so that the image stays listed when the tag moves. To be called while
        :meth:`adding`.
        """
        with self.changing() as layout:
            return set_reference(layout, reference, descriptor)

    def tag(self, source: Reference | Descriptor, target: Reference) -> tuple[Descriptor, Digest | None]:
        """Give ``source``'s image the name ``target`` too; return the image and the name's previous digest.

        Raises :class:`NotFound`.
        """
        with self.adding():
            descriptor = self.find(source) if isinstance(source, Reference) else source
            if self.blobs.stat(descriptor.digest) is None:
                raise NotFound(f"{descriptor.digest} is not in the local store any more")
            return descriptor, self.point(target.or_latest(), descriptor)

    # -- content ------------------------------------------------------------------------------

    def presence(self) -> Callable[[Digest], bool]:
        """Return a test of whether content is here now, which lists the directories once.

        That is faster than :meth:`BlobStore.stat` for whoever asks about many. Raises
        :class:`~digestry.errors.StorageError`.
        """
        names: dict[str, frozenset[str]] = {}
        for algorithm in ALGORITHMS:
            directory = self.root / "blobs" / algorithm
            with storage_errors("list", directory):
                try:
                    names[algorithm] = frozenset(os.listdir(directory))  # noqa: PTH208 - a Path for each is slow
                except FileNotFoundError:
                    names[algorithm] = frozenset()
        return lambda digest: digest.encoded in names[digest.algorithm]

    def manifest(self, descriptor: Descriptor) -> Image | Index:
        """Return an image or index, verified.

        Raises :class:`NotFound`, :class:`DigestMismatch`, and :class:`ContentError` if it is damaged.
        """
        raw = self.blobs.read(descriptor.digest, limit=LARGEST_MANIFEST)
        try:
            return parse_manifest(raw, descriptor.media_type, verified=descriptor.digest)
        except InvalidManifest as error:
            raise ContentError(f"{self.blobs.local_path(descriptor.digest)}: {error.message}") from error

    def config(self, manifest: Manifest) -> ImageConfig:
        """Return the config of an image, verified.

        Raises :class:`NotFound`, also for an index, and :class:`ContentError` if it is not a config.
        """
        if manifest.config is None:
            raise NotFound(f"{manifest.digest} is an index, which has no config of its own")
        raw = self.blobs.read(manifest.config.digest)
        try:
            return ImageConfig.parse(raw, verified=manifest.config.digest)
        except InvalidManifest as error:
            raise ContentError(f"{self.blobs.local_path(manifest.config.digest)}: {error.message}") from error

    def stated_config(self, manifest: Manifest) -> ImageConfig | None:
        """Return the config of an image; None for an index, an artifact, or an empty config.

        Raises as :meth:`config` does.
        """
        config = manifest.config
        if config is None or not config.size or config.media_type not in media_types.IMAGE_CONFIGS:
            return None
        return self.config(manifest)

    def image(self, descriptor: Descriptor, platform: Platform | None = None) -> Image:
        """Return the image that ``descriptor`` has for ``platform``, by default this machine's.

        Raises :class:`NotFound` if an index has none for it, or has one that was not pulled.
        """
        manifest = self.manifest(descriptor)
        if isinstance(manifest, Image):
            return manifest
        from digestry.images.platform_selection import select_image  # noqa: PLC0415 - for an index alone

        wanted = platform or Platform.of_host()
        child = select_image(manifest, wanted, _StoredContent(self)).entry
        if self.blobs.stat(child.digest) is None:
            raise NotFound(
                f"{descriptor.digest} has an image for {wanted}, but that was not pulled",
                hint=f"digestry pull --platform {wanted}",
            )
        found = self.manifest(child)
        if isinstance(found, Index):
            raise ContentError(f"{child.digest} is an index, and {descriptor.digest} lists it as an image")
        return found

    def present_images(self, manifest: Image | Index) -> list[Image]:
        """Return the image itself, or those images of an index, and of indexes in it, that are here."""
        if isinstance(manifest, Image):
            return [manifest]
        found: dict[Digest, Image] = {}
        waiting, seen = list[Image | Index]([manifest]), set[Digest]()
        while waiting:
            current = waiting.pop()
            if current.digest in seen:
                continue
            seen.add(current.digest)
            if isinstance(current, Image):
                found[current.digest] = current
            here = [
                child
                for child in current.manifests
                if child.media_type in media_types.MANIFESTS and self.blobs.stat(child.digest) is not None
            ]
            waiting += [self.manifest(child) for child in reversed(here)]
        return list(found.values())


def set_reference(layout: Layout, reference: Reference, descriptor: Descriptor) -> Digest | None:
    """Point ``reference`` to ``descriptor`` in the index of a store, and return its tag's previous digest.

    The digest gets a name too, so that the image stays listed when the tag moves.
    """
    repository = reference.repository_only()
    before = None
    if reference.tag is not None:
        before = layout.set_name(str(repository.with_tag(reference.tag)), descriptor)
    layout.set_name(str(repository.with_digest(descriptor.digest)), descriptor)
    return before


def plain_descriptor(descriptor: Descriptor) -> Descriptor:
    """Return ``descriptor`` without the name and the platform that a list gives it."""
    return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size)


class _StoredContent:
    """The part of an index that is in the store."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    def manifest(self, descriptor: Descriptor) -> Image | Index | None:
        if self._store.blobs.stat(descriptor.digest) is None:
            return None
        return self._store.manifest(descriptor)

    def platform(self, image: Manifest) -> Platform | None:
        if image.config is None or self._store.blobs.stat(image.config.digest) is None:
            return None
        config = self._store.stated_config(image)
        return None if config is None else config.platform
