"""What a store of content can do, by role. ``tests/blobs/contract.py`` is what each must pass."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO, Final, Protocol, Self

from digestry.model.digest import Digest

SMALL: Final = 32 << 20
"""Bytes that :meth:`BlobReader.read` takes into memory unless told otherwise."""

Chunk = bytes | bytearray | memoryview
"""What may be written: the store copies it, so that the caller can use the buffer again."""


class BlobReader(Protocol):
    """Content by digest, for reading."""

    def stat(self, digest: Digest) -> int | None:
        """The content's size in bytes; None if it is not here. Its bytes are not read."""
        ...

    def open(self, digest: Digest) -> BinaryIO:
        """The content as a seekable file, unverified: a reader checks with ``blobs.verify``.

        Raises :class:`NotFound` and :class:`StorageError`.
        """
        ...

    def read(self, digest: Digest, *, limit: int = SMALL) -> bytes:
        """The whole of some small content, verified.

        Raises :class:`NotFound`, :class:`TooLarge` above ``limit`` bytes, :class:`DigestMismatch`
        if the store's copy is damaged, and :class:`StorageError`.
        """
        ...

    def digests(self) -> Iterator[Digest]:
        """All content that is here, in no order. Raises :class:`StorageError` while iterating."""
        ...


class Ingest(Protocol):
    """New content on its way in: nothing has a digest's name before :meth:`commit` has returned.

    As a context manager it is aborted at the end of the block, unless it was committed.
    """

    @property
    def offset(self) -> int:
        """Bytes written so far."""
        ...

    def write(self, chunk: Chunk) -> None:
        """Appends. Raises :class:`SizeMismatch` past a declared size, :class:`StorageError`."""
        ...

    def commit(self, digest: Digest, size: int | None = None) -> None:
        """Checks the bytes, then makes them durable under ``digest``, replacing what is there.

        Raises :class:`DigestMismatch` or :class:`SizeMismatch`, and then keeps nothing;
        :class:`StorageError` if the bytes could not be stored.
        """
        ...

    def abort(self) -> None:
        """Forgets the bytes. Does nothing after a commit or another abort."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class BlobWriter(Protocol):
    """Content by digest, for changing."""

    def begin(self, digest: Digest | None = None, size: int | None = None) -> Ingest:
        """Starts new content. ``digest`` and ``size`` (bytes), where known, are what will be
        promised at the commit: the one picks the hash, the other stops a longer stream early."""
        ...

    def put(self, content: bytes, digest: Digest | None = None) -> Digest:
        """Stores some small content durably and returns its digest (sha256 if none is given).

        Raises :class:`DigestMismatch` if it is not ``digest``'s, and :class:`StorageError`.
        """
        ...

    def delete(self, digest: Digest) -> bool:
        """Removes the content; False if it was not there. Raises :class:`StorageError`."""
        ...


class BlobStore(BlobReader, BlobWriter, Protocol):
    """Both roles."""
