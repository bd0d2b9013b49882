"""The local store as a source and a target of copies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, BinaryIO, Final

from digestry.copy.layout import copy_into
from digestry.copy.protocols import BlobContent, Outcome, Progress, cosign_names, digest_of_name
from digestry.errors import NotFound
from digestry.images.blob_fetch import fetch_blob
from digestry.images.store import ImageStore, set_reference
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Image, Index, Manifest
from digestry.model.reference import Reference

if TYPE_CHECKING:
    from digestry.blobs.ingests import Ingest


class LocalSource:
    """The images of a repository's name in the local store; without one, names are full references.

    None is ``descriptor``.
    """

    repository: Final = None
    is_far: Final = False

    def __init__(
        self, store: ImageStore, repository: Reference | None = None, descriptor: Descriptor | None = None
    ) -> None:
        self._store = store
        self._repository = repository
        self._descriptor = descriptor
        self.description = "the local store"

    def resolve(self, name: str | None, *, read: bool = False) -> Descriptor:
        if name is None and self._descriptor is not None:
            return self._descriptor
        if name is None:
            raise NotFound("no image of the local store was named", hint="write local:NAME")
        if self._repository is None:
            return self._store.find(Reference.parse(name).or_latest())
        digest = digest_of_name(name)
        if digest is not None:
            return self._store.find(self._repository.with_digest(digest))
        return self._store.find(self._repository.with_tag(name))

    def names(self) -> Iterable[str]:
        known = (entry.reference for entry in self._store.entries())
        return [
            reference.tag
            for reference in known
            if reference is not None
            and reference.tag is not None
            and self._repository is not None
            and reference.repository_only() == self._repository.repository_only()
        ]

    def manifest(self, descriptor: Descriptor) -> Image | Index:
        return self._store.manifest(descriptor)

    def read_blob(self, descriptor: Descriptor) -> bytes:
        return self._store.blobs.read(descriptor.digest)

    def blob(self, descriptor: Descriptor) -> BlobContent:
        return _StoredContent(self._store, descriptor)

    def referrers(self, digest: Digest) -> list[Descriptor]:
        found: dict[Digest, Descriptor] = {}
        for entry in self._store.entries():
            if entry.descriptor.media_type not in media_types.MANIFESTS:
                continue
            with contextlib.suppress(NotFound):
                manifest = self._store.manifest(entry.descriptor)
                if manifest.subject is not None and manifest.subject.digest == digest:
                    found[manifest.digest] = manifest.descriptor()
        return list(found.values())

    def attached_names(self, digest: Digest) -> list[str]:
        there = set(self.names())
        return [name for name in cosign_names(digest) if name in there]

    def close(self) -> None:
        """Nothing is open."""


class _StoredContent:
    """A blob of the local store."""

    def __init__(self, store: ImageStore, descriptor: Descriptor) -> None:
        self._store = store
        self._descriptor = descriptor

    def open(self) -> BinaryIO:
        return self._store.blobs.open(self._descriptor.digest)

    def fetch(self, sink: Ingest, progress: Progress) -> None:
        copy_into(self.open(), sink, self._descriptor, progress)

    def forget(self) -> None:
        """Nothing is kept: the bytes are the store's own."""

    close = forget


class LocalTarget:
    """A repository's name in the local store that images are copied to; without one, names are full
    references.

    Incoming content is protected from removal.
    """

    repository: Final = None
    is_far: Final = False
    may_lack_images: Final = True
    keeps_index: Final = True
    holds_indexes: Final = True
    doubtful_layers: Final[frozenset[str]] = frozenset()
    is_written_whole: Final = False
    loss: Final = ""

    def __init__(self, store: ImageStore, repository: Reference | None = None) -> None:
        self._store = store
        self._repository = None if repository is None else repository.repository_only()
        self.description = "the local store"
        self._adding = contextlib.ExitStack()
        self._adding.enter_context(store.adding())

    def current(self, name: str | None) -> Digest | None:
        if name is None:
            return None
        with contextlib.suppress(NotFound):
            return self._store.find(self._named(name)).digest
        return None

    def _named(self, name: str) -> Reference:
        if self._repository is None:
            return Reference.parse(name)
        return self._repository.with_tag(name)

    def has_manifest(self, descriptor: Descriptor) -> bool:
        """Return False: the manifests that an index lists may be missing here."""
        return False

    def has_blob(self, descriptor: Descriptor) -> bool:
        return self._store.blobs.stat(descriptor.digest) == descriptor.size

    def put_blob(
        self, descriptor: Descriptor, content: BlobContent, *, mount_from: str | None, progress: Progress
    ) -> Outcome:
        fetch_blob(content.fetch, self._store.blobs, descriptor, progress)
        return "sent"

    def put_manifest(self, manifest: Manifest) -> None:
        self._store.blobs.put(manifest.raw, manifest.digest)
        if manifest.subject is not None:  # nothing else would hold it
            self.point([(None, manifest)])

    def point(self, names: Sequence[tuple[str | None, Manifest]]) -> None:
        for _, manifest in names:
            self._store.blobs.put(manifest.raw, manifest.digest)
        # The index is written once for all of them.
        with self._store.changing() as layout:
            for name, manifest in names:
                reference = self._reference(name, manifest.digest)
                if reference is None:
                    layout.add_unnamed(manifest.descriptor())
                else:
                    set_reference(layout, reference, manifest.descriptor())

    def _reference(self, name: str | None, digest: Digest) -> Reference | None:
        if name is not None:
            return self._named(name)
        return None if self._repository is None else self._repository.with_digest(digest)

    def finish(self) -> None:
        """Each step was durable at once."""

    def close(self) -> None:
        """Let others remove content again."""
        self._adding.close()
