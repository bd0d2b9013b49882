"""The manifests and configs of one repository, as a page reads them."""

from __future__ import annotations

from digestry.errors import NotFound, TooLarge
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Image, Index, parse_manifest
from digestry.web.documents import LARGEST
from digestry.web.visit import Visit


class RepositoryContent:
    """The content of a repository that the visitor may see. Its methods block."""

    def __init__(self, visit: Visit, repository: str) -> None:
        self._visit = visit
        self._repository = repository

    def named(self, digest: Digest) -> Image | Index:
        """Return a manifest or index. Raises :class:`NotFound`, :class:`TooLarge`, :class:`StorageError`."""
        stored = self._visit.catalog.manifest(self._repository, digest)
        if stored is None:
            raise NotFound(f"{self._repository} no longer has {digest}")
        raw = self._read(stored.digest, stored.size)
        return parse_manifest(raw, stored.media_type, algorithm=digest.algorithm)

    def manifest(self, descriptor: Descriptor) -> Image | Index:
        """Return a manifest that an index of the repository lists. Raises as :meth:`named` does."""
        return self.named(descriptor.digest)

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """Return the config of an image of the repository. Raises as :meth:`named` does."""
        return self._read(descriptor.digest, descriptor.size)

    def _read(self, digest: Digest, size: int) -> bytes:
        if size > LARGEST:
            raise TooLarge(f"{digest} has {size} bytes, which is too much for a page", limit=LARGEST)
        return self._visit.host.content(digest, size)
