"""A registry's repository as a source and a target of copies."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, BinaryIO, Final

from digestry.client.repository import Repository
from digestry.copy.protocols import BlobContent, Outcome, Progress, RepositoryLocation, cosign_names
from digestry.copy.spool import Spool
from digestry.errors import NotFound, RemoteNotFound
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Image, Index, Manifest
from digestry.model.reference import Reference

if TYPE_CHECKING:
    from digestry.blobs.ingests import Ingest

_IN_MEMORY: Final = 1 << 20
"""Bytes of a blob that is not worth a file."""


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
        self.description = str(repository.reference)
        self.repository = RepositoryLocation(repository.reference.host, repository.reference.repository)

    def resolve(self, name: str | None) -> Descriptor:
        if name is None:
            raise NotFound(f"{self.description} is a repository, not an image", hint="add a tag or a digest")
        found = self._remote.resolve(name)
        if self._check is not None:
            place = self._remote.reference
            named = place.with_digest(found.digest) if ":" in name else place.with_tag(name)
            self._check(named, found.digest)
        return found

    def names(self) -> Iterable[str]:
        return self._remote.tags()

    def manifest(self, descriptor: Descriptor) -> Image | Index:
        return self._remote.pull_manifest(str(descriptor.digest))

    def read_blob(self, descriptor: Descriptor) -> bytes:
        return self._remote.read_blob(descriptor)

    def blob(self, descriptor: Descriptor) -> BlobContent:
        if descriptor.size <= _IN_MEMORY:
            return _SmallBlob(self._remote, descriptor)
        return self._spool.content(
            descriptor, lambda sink, progress: self._remote.pull_blob(descriptor, sink, progress)
        )

    def referrers(self, digest: Digest) -> list[Descriptor]:
        return self._remote.referrers(digest)

    def attached_names(self, digest: Digest) -> list[str]:
        found = []
        for name in cosign_names(digest):
            with contextlib.suppress(RemoteNotFound):
                self._remote.resolve(name)
                found.append(name)
        return found

    def close(self) -> None:
        """The session's owner closes its connections."""


class _SmallBlob:
    """A blob that is read at once, into memory."""

    def __init__(self, remote: Repository, descriptor: Descriptor) -> None:
        self._remote = remote
        self._descriptor = descriptor

    def open(self) -> BinaryIO:
        return io.BytesIO(self._remote.read_blob(self._descriptor, limit=_IN_MEMORY))

    def fetch(self, sink: Ingest, progress: Progress) -> None:
        self._remote.pull_blob(self._descriptor, sink, progress)

    def forget(self) -> None:
        """Nothing is kept."""

    close = forget


class RegistryTarget:
    """A repository that images are copied into."""

    may_lack_images: Final = False
    keeps_index: Final = False
    holds_indexes: Final = True
    is_written_whole: Final = False
    loss: Final = ""

    def __init__(self, repository: Repository) -> None:
        self._remote = repository
        self.description = str(repository.reference)
        self.repository = RepositoryLocation(repository.reference.host, repository.reference.repository)

    def current(self, name: str | None) -> Digest | None:
        if name is None:
            return None
        with contextlib.suppress(RemoteNotFound):
            return self._remote.resolve(name).digest
        return None

    def has_manifest(self, descriptor: Descriptor) -> bool:
        return self.current(str(descriptor.digest)) is not None

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
