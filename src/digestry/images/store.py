"""The local image store: names over content, in an OCI image layout that other tools read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from digestry.blobs.disk import DiskBlobs
from digestry.errors import Conflict, ContentError, InvalidManifest, NotFound
from digestry.fsio import locked
from digestry.images.layout import Entry, Layout
from digestry.images.platform_selection import select_image
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.image_config import ImageConfig
from digestry.model.manifest import Manifest
from digestry.model.platform import Platform, by_preference
from digestry.model.reference import Reference

LARGEST_MANIFEST: Final = 16 << 20
_INDEX_LOCK: Final = ".index.lock"
_CONTENT_LOCK: Final = ".content.lock"


class StoredImage(msgspec.Struct, frozen=True):
    """One line of a listing. ``size`` is in bytes of the content that is here, as it travels.

    ``image_id`` and ``created`` are of this machine's platform, or of the first that is here;
    ``platforms`` are those that are here, ``absent`` those of an index that are not.
    """

    name: str
    tag: str | None
    digest: Digest
    media_type: str
    size: int
    image_id: Digest | None = None
    created: str | None = None
    platforms: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


class DamagedImage(msgspec.Struct, frozen=True):
    """A name whose image cannot be shown, and why."""

    name: str
    digest: Digest
    reason: str


class Removal(msgspec.Struct, frozen=True):
    """What went: names, and content (with its bytes); ``kept`` says why no content was removed."""

    names: tuple[str, ...]
    deleted: tuple[Digest, ...] = ()
    freed: int = 0
    kept: str = ""


class ImageStore:
    """Safe to use from many processes at once. Nothing is touched before a method is called."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = DiskBlobs(root)

    # -- locks --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def adding(self) -> Iterator[None]:
        """For as long as content is brought in that no name holds yet: no sweep happens meanwhile."""
        self.blobs.prepare()
        with locked(self.root / _CONTENT_LOCK, shared=True):
            yield

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Layout]:
        self.blobs.prepare()
        with locked(self.root / _INDEX_LOCK):
            layout = Layout.read(self.root)
            yield layout
            layout.write()

    # -- names --------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """All names. Raises :class:`ContentError` if the layout's index is damaged."""
        return Layout.read(self.root).entries()

    def find(self, reference: Reference) -> Descriptor:
        """What ``reference`` means here: its digest decides if it has one. Raises :class:`NotFound`."""
        wanted = reference.digest
        here = [(entry, entry.reference) for entry in self.entries()]
        for entry, known in here:
            if known is None or known.repository_only() != reference.repository_only():
                continue
            if entry.descriptor.digest == wanted if wanted else known.tag == reference.tag:
                return bare(entry.descriptor)
        if wanted is not None:
            # One platform of an index that is known by its own name.
            for entry, known in here:
                if known is not None and known.repository_only() == reference.repository_only():
                    for child in self.below(entry.descriptor):
                        if child.digest == wanted and self.blobs.stat(wanted) is not None:
                            return bare(child)
        raise NotFound(
            f"{reference} is not in the local store",
            hint="`digestry images --digests` lists what is there; `digestry pull` fetches what is not",
        )

    def below(self, descriptor: Descriptor) -> Iterator[Descriptor]:
        """What an index lists, and what the indexes in it list, each once."""
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
        """Makes ``reference`` mean ``descriptor``; returns what its tag meant before.

        The digest gets a name too, so that the image stays listed when the tag moves on. To be
        called while :meth:`adding`.
        """
        repository = reference.repository_only()
        with self._changing() as layout:
            before = None
            if reference.tag is not None:
                before = layout.point(str(repository.with_tag(reference.tag)), descriptor)
            layout.point(str(repository.with_digest(descriptor.digest)), descriptor)
        return before

    def tag(self, source: Reference | Descriptor, target: Reference) -> tuple[Descriptor, Digest | None]:
        """Gives ``source``'s image the name ``target`` too; returns the image and what the name
        meant before. Raises :class:`NotFound`."""
        with self.adding():
            descriptor = self.find(source) if isinstance(source, Reference) else source
            if self.blobs.stat(descriptor.digest) is None:
                raise NotFound(f"{descriptor.digest} is not in the local store any more")
            return descriptor, self.point(target.or_latest(), descriptor)

    def remove(self, references: Iterable[Reference | tuple[Entry, ...]]) -> Removal:
        """Removes names, and then the content that no name holds any more.

        Entries of the index stand for themselves, also without a name.

        A digest stands for all its names in that repository; the last tag of a digest takes the
        digest's own name with it. Raises :class:`NotFound`, and then removes nothing.
        """
        wanted = list(references)
        gone: list[str] = []
        with self._changing() as layout:
            for one in wanted:
                if isinstance(one, Reference):
                    self._remove_one(layout, one, gone)
                    continue
                dropped = [entry for entry in one if layout.discard(entry)]
                gone += [entry.name or str(entry.descriptor.digest) for entry in dropped]
        deleted, freed, kept = self._sweep()
        return Removal(tuple(gone), deleted, freed, kept)

    def _remove_one(self, layout: Layout, reference: Reference, gone: list[str]) -> None:
        repository = reference.repository_only()
        same = [
            (entry, known)
            for entry in layout.entries()
            if (known := entry.reference) is not None and known.repository_only() == repository
        ]
        if reference.digest is not None:
            drop = [(entry, known) for entry, known in same if entry.descriptor.digest == reference.digest]
            if reference.tag is not None:
                drop = [(entry, known) for entry, known in drop if known.tag in {reference.tag, None}]
        else:
            drop = [(entry, known) for entry, known in same if known.tag == reference.tag]
            for tagged, _ in list(drop):
                digest = tagged.descriptor.digest
                others = [e for e, known in same if e.descriptor.digest == digest and known.tag is not None]
                if len(others) == 1:
                    drop += [
                        (e, known) for e, known in same if e.descriptor.digest == digest and known.tag is None
                    ]
        if not drop:
            if str(reference) in gone:
                return
            raise NotFound(
                f"{reference} is not in the local store",
                hint="`digestry images --digests` lists what is there",
            )
        for entry, _ in drop:
            if entry.name is not None and layout.drop(entry.name):
                gone.append(entry.name)

    # -- content ------------------------------------------------------------------------------

    def manifest(self, descriptor: Descriptor) -> Manifest:
        """Reads a manifest or index, verified.

        Raises :class:`NotFound`, :class:`DigestMismatch` and :class:`ContentError` if it is damaged.
        """
        raw = self.blobs.read(descriptor.digest, limit=LARGEST_MANIFEST)
        try:
            return Manifest.parse(raw, descriptor.media_type, algorithm=descriptor.digest.algorithm)
        except InvalidManifest as error:
            raise ContentError(f"{self.blobs.path(descriptor.digest)}: {error.message}") from error

    def config(self, manifest: Manifest) -> ImageConfig:
        """An image's config. Raises :class:`NotFound`, :class:`ContentError` if it is none."""
        if manifest.config is None:
            raise NotFound(f"{manifest.digest} is an index, which has no config of its own")
        raw = self.blobs.read(manifest.config.digest)
        try:
            return ImageConfig.parse(raw, algorithm=manifest.config.digest.algorithm)
        except InvalidManifest as error:
            raise ContentError(f"{self.blobs.path(manifest.config.digest)}: {error.message}") from error

    def stated_config(self, manifest: Manifest) -> ImageConfig | None:
        """As :meth:`config`; None for what has none: an index, an artifact, or a config that says nothing."""
        config = manifest.config
        if config is None or not config.size or config.media_type not in media_types.IMAGE_CONFIGS:
            return None
        return self.config(manifest)

    def image(self, descriptor: Descriptor, platform: Platform | None = None) -> Manifest:
        """The image manifest of ``descriptor`` for ``platform`` (this machine's unless given).

        Raises :class:`NotFound` if an index has it not, or has it but it was not pulled.
        """
        manifest = self.manifest(descriptor)
        if not manifest.is_index:
            return manifest
        wanted = platform or Platform.of_host()
        child = select_image(manifest, wanted, _Local(self)).entry
        if self.blobs.stat(child.digest) is None:
            raise NotFound(
                f"{descriptor.digest} has an image for {wanted}, but that was not pulled",
                hint=f"digestry pull --platform {wanted}",
            )
        return self.manifest(child)

    def present_images(self, manifest: Manifest) -> list[Manifest]:
        """The image itself, or those images of an index, and of indexes in it, that are here."""
        found: dict[Digest, Manifest] = {}
        waiting, seen = [manifest], set[Digest]()
        while waiting:
            one = waiting.pop()
            if one.digest in seen:
                continue
            seen.add(one.digest)
            if not one.is_index:
                found[one.digest] = one
            here = [
                child
                for child in one.manifests
                if child.media_type in media_types.MANIFESTS and self.blobs.stat(child.digest) is not None
            ]
            waiting += [self.manifest(child) for child in reversed(here)]
        return list(found.values())

    # -- listing ------------------------------------------------------------------------------

    def images(self) -> list[StoredImage | DamagedImage]:
        """All tags, and the digests that no tag of their repository points to any more."""
        entries = [(entry, entry.reference) for entry in self.entries()]
        tagged = {
            (known.name, entry.descriptor.digest)
            for entry, known in entries
            if known is not None and known.tag is not None
        }
        seen: dict[Digest, StoredImage | DamagedImage] = {}
        rows: list[StoredImage | DamagedImage] = []
        for entry, known in entries:
            digest = entry.descriptor.digest
            if known is not None and known.tag is None and (known.name, digest) in tagged:
                continue
            name = known.name if known is not None else entry.name or "<none>"
            found = seen.get(digest)
            if found is None:
                found = seen[digest] = self._describe(entry.descriptor)
            if isinstance(found, DamagedImage):
                rows.append(DamagedImage(entry.name or name, digest, found.reason))
                continue
            rows.append(
                StoredImage(
                    name,
                    known.tag if known is not None else None,
                    digest,
                    found.media_type,
                    found.size,
                    found.image_id,
                    found.created,
                    found.platforms,
                    found.absent,
                )
            )
        return rows

    def _describe(self, descriptor: Descriptor) -> StoredImage | DamagedImage:
        try:
            manifest = self.manifest(descriptor)
            images = self.present_images(manifest)
            sizes: dict[Digest, int] = {}
            configs: list[tuple[Platform, ImageConfig]] = []
            for image in images:
                sizes |= {
                    blob.digest: blob.size
                    for blob in image.blobs()
                    if self.blobs.stat(blob.digest) is not None
                }
                if (config := self.stated_config(image)) is not None:
                    configs.append((config.platform, config))
        except (ContentError, NotFound) as error:
            return DamagedImage("", descriptor.digest, error.message)
        best = [*by_preference([platform for platform, _ in configs], Platform.of_host()), 0][0]
        shown = configs[best][1] if configs else None
        return StoredImage(
            "",
            None,
            descriptor.digest,
            manifest.media_type,
            sum(sizes.values()),
            shown.digest if shown else None,
            shown.created if shown else None,
            tuple(str(p) for p, _ in configs),
            tuple(
                str(c.platform) for c in manifest.manifests if c.platform and not self.blobs.stat(c.digest)
            ),
        )

    # -- removing content ---------------------------------------------------------------------

    def _sweep(self) -> tuple[tuple[Digest, ...], int, str]:
        """Removes what no name holds. Any doubt about what is held ends it: nothing goes then."""
        try:
            with locked(self.root / _CONTENT_LOCK, wait=False):
                live = self._live()
                dead = [digest for digest in self.blobs.digests() if digest not in live]
                freed = sum(self.blobs.stat(digest) or 0 for digest in dead)
                for digest in dead:
                    self.blobs.delete(digest)
                self.blobs.sweep_ingests(older_than=-1)  # nobody is writing: they are remains
                return tuple(dead), freed, ""
        except Conflict:
            return (), 0, "another digestry is bringing content in; the next rmi removes what is left over"
        except ContentError as error:
            return (), 0, f"what the other images hold cannot be told: {error.message}"

    def _live(self) -> set[Digest]:
        live: set[Digest] = set()
        waiting = [entry.descriptor for entry in self.entries()]
        while waiting:
            descriptor = waiting.pop()
            if descriptor.digest in live:
                continue
            live.add(descriptor.digest)
            if descriptor.media_type not in media_types.MANIFESTS:
                continue
            if self.blobs.stat(descriptor.digest) is None:
                continue  # a platform that was not pulled
            manifest = self.manifest(descriptor)
            waiting += [*manifest.manifests, *manifest.blobs()]
        return live


def bare(descriptor: Descriptor) -> Descriptor:
    """``descriptor`` without what a list says beside it."""
    # Its annotations name it, and its platform chose it: neither is a part of the content.
    return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size)


class _Local:
    """What is here of an index."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    def manifest(self, descriptor: Descriptor) -> Manifest | None:
        if self._store.blobs.stat(descriptor.digest) is None:
            return None
        return self._store.manifest(descriptor)

    def platform(self, image: Manifest) -> Platform | None:
        if image.config is None or self._store.blobs.stat(image.config.digest) is None:
            return None
        config = self._store.stated_config(image)
        return None if config is None else config.platform
