"""A registry's repository as a source and a target of copies."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, BinaryIO, Final, Generic, TypeVar

from digestry.client.repository import Repository
from digestry.copy.protocols import BlobContent, Outcome, Progress, RepositoryLocation, cosign_names
from digestry.copy.spool import Spool
from digestry.errors import NotFound
from digestry.images.transfer import EXPECTED
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Image, Index, Manifest
from digestry.model.reference import Reference

if TYPE_CHECKING:
    from digestry.blobs.ingests import Ingest

T = TypeVar("T")

_IN_MEMORY: Final = 1 << 20
"""Bytes of a blob that is not worth a file."""
_MOST_KEPT: Final = 64


class RegistrySource:
    """The images of a repository."""

    def __init__(
        self,
        repository: Repository,
        spool: Spool,
        check: Callable[[Reference, Digest], object] | None = None,
    ) -> None:
        self._remote = repository
        self._spool = spool
        self._check = check
        self._manifests: _Kept[Image | Index] = _Kept()
        self._blobs: _Kept[bytes] = _Kept()
        self.description = str(repository.reference)
        self.repository = RepositoryLocation(repository.reference.host, repository.reference.repository)

    @property
    def is_far(self) -> bool:
        return self._remote.is_far

    def resolve(self, name: str | None, *, read: bool = False) -> Descriptor:
        if name is None:
            raise NotFound(f"{self.description} is a repository, not an image", hint="add a tag or a digest")
        if read:
            self._remote.expect(EXPECTED)
            manifest = self._remote.pull_manifest(name)
            self._manifests.put(manifest.digest, manifest)
            found = manifest.descriptor()
        else:
            found = self._remote.resolve(name)
        if self._check is not None:
            place = self._remote.reference
            named = place.with_digest(found.digest) if ":" in name else place.with_tag(name)
            self._check(named, found.digest)
        return found

    def names(self) -> Iterable[str]:
        return self._remote.tags()

    def manifest(self, descriptor: Descriptor) -> Image | Index:
        return self._manifests.take(descriptor.digest) or self._remote.pull_manifest(str(descriptor.digest))

    def read_blob(self, descriptor: Descriptor) -> bytes:
        content = self._remote.read_blob(descriptor)
        if descriptor.size <= _IN_MEMORY:
            self._blobs.put(descriptor.digest, content)
        return content

    def blob(self, descriptor: Descriptor) -> BlobContent:
        if descriptor.size <= _IN_MEMORY:
            return _SmallBlob(self._remote, descriptor, self._blobs.take(descriptor.digest))
        return self._spool.content(
            descriptor, lambda sink, progress: self._remote.pull_blob(descriptor, sink, progress)
        )

    def referrers(self, digest: Digest) -> list[Descriptor]:
        return self._remote.referrers(digest)

    def attached_names(self, digest: Digest) -> list[str]:
        return [name for name in cosign_names(digest) if self._remote.find(name) is not None]

    def close(self) -> None:
        """The session's owner closes its connections."""


class _Kept(Generic[T]):
    """Verified content that was read and is used once more soon. Thread-safe; what is oldest goes first."""

    def __init__(self) -> None:
        self._content: dict[Digest, T] = {}
        self._lock = threading.Lock()

    def put(self, digest: Digest, content: T) -> None:
        """Keep ``content``."""
        with self._lock:
            self._content[digest] = content
            if len(self._content) > _MOST_KEPT:
                del self._content[next(iter(self._content))]

    def take(self, digest: Digest) -> T | None:
        """Return the content, and keep it no longer; None if it is not here."""
        with self._lock:
            return self._content.pop(digest, None)


class _SmallBlob:
    """A blob that is read at once, into memory. ``content`` are its bytes, if they were read before."""

    def __init__(self, remote: Repository, descriptor: Descriptor, content: bytes | None = None) -> None:
        self._remote = remote
        self._descriptor = descriptor
        self._content = content

    def open(self) -> BinaryIO:
        if self._content is None:
            self._content = self._remote.read_blob(self._descriptor, limit=_IN_MEMORY)
        return io.BytesIO(self._content)

    def fetch(self, sink: Ingest, progress: Progress) -> None:
        if self._content is None:
            self._remote.pull_blob(self._descriptor, sink, progress)
            return
        rest = self._content[sink.offset :]
        sink.write(rest)
        progress(len(rest))
        sink.commit(self._descriptor.digest, self._descriptor.size)

    def forget(self) -> None:
        self._content = None

    close = forget


class RegistryTarget:
    """A repository that images are copied into."""

    may_lack_images: Final = False
    keeps_index: Final = False
    holds_indexes: Final = True
    doubtful_layers: Final[frozenset[str]] = frozenset()
    is_written_whole: Final = False
    loss: Final = ""

    def __init__(self, repository: Repository) -> None:
        self._remote = repository
        self.description = str(repository.reference)
        self.repository = RepositoryLocation(repository.reference.host, repository.reference.repository)

    @property
    def is_far(self) -> bool:
        return self._remote.is_far

    def current(self, name: str | None) -> Digest | None:
        if name is None:
            return None
        self._remote.expect(EXPECTED)
        found = self._remote.find(name)
        return None if found is None else found.digest

    def has_manifest(self, descriptor: Descriptor) -> bool:
        return self._remote.find(str(descriptor.digest)) is not None

    def has_blob(self, descriptor: Descriptor) -> bool:
        return self._remote.has_blob(descriptor.digest)

    def put_blob(
        self, descriptor: Descriptor, content: BlobContent, *, mount_from: str | None, progress: Progress
    ) -> Outcome:
        return self._remote.push_blob(descriptor, content.open, mount_from=mount_from, progress=progress)

    def put_manifest(self, manifest: Manifest) -> None:
        self._remote.push_manifest(manifest.raw, manifest.media_type, digest=manifest.digest)

    def point(self, names: Sequence[tuple[str | None, Manifest]]) -> None:
        for name, manifest in names:
            tags = [] if name is None else [name]
            self._remote.push_manifest(manifest.raw, manifest.media_type, tags=tags, digest=manifest.digest)

    def finish(self) -> None:
        """Each step was durable when it was acknowledged."""

    close = finish
