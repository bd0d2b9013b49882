"""Verification of a stream of bytes against its digest and its declared size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from digestry.errors import DigestMismatch, SizeMismatch
from digestry.model.digest import Digest

if TYPE_CHECKING:
    from digestry.blobs.ingests import Chunk


def too_long(digest: Digest, size: int) -> SizeMismatch:
    """Return the error for a stream that is longer than its declared size."""
    return SizeMismatch(f"content of {digest} is longer than its declared {size} bytes")


def too_short(digest: Digest, size: int, got: int) -> SizeMismatch:
    """Return the error for a stream that ends before its declared size."""
    return SizeMismatch(f"content of {digest} ended after {got} of its declared {size} bytes")


def wrong_hash(digest: Digest, found: Digest) -> DigestMismatch:
    """Return the error for bytes that do not have the expected digest."""
    return DigestMismatch(f"content that should be {digest} hashes to {found}; it was not used")


class Verifier:
    """The check of a stream against ``digest`` and, if declared, its ``size`` in bytes."""

    __slots__ = ("_hasher", "digest", "seen", "size")

    def __init__(self, digest: Digest, size: int | None = None) -> None:
        self.digest = digest
        self.size = size
        self.seen = 0
        self._hasher = digest.hasher()

    def update(self, chunk: Chunk) -> None:
        """Add the next bytes. Raises :class:`SizeMismatch` as soon as there are too many."""
        seen = self.seen + (chunk.nbytes if isinstance(chunk, memoryview) else len(chunk))
        if self.size is not None and seen > self.size:
            raise too_long(self.digest, self.size)
        self._hasher.update(chunk)
        self.seen = seen

    def finish(self) -> None:
        """Check the whole stream at its end. Raises :class:`SizeMismatch` or :class:`DigestMismatch`."""
        if self.size is not None and self.seen != self.size:
            raise too_short(self.digest, self.size, self.seen)
        found = Digest(self.digest.algorithm, self._hasher.hexdigest())
        if found != self.digest:
            raise wrong_hash(self.digest, found)


def verified(chunks: Iterable[bytes], digest: Digest, size: int | None = None) -> Iterator[bytes]:
    """Yield ``chunks`` while checking them.

    The last chunk is held back until everything was checked, so that no caller ever receives the whole
    of wrong content. Raises :class:`SizeMismatch` or :class:`DigestMismatch` while iterating.
    """
    verifier = Verifier(digest, size)
    held: bytes | None = None
    for chunk in chunks:
        verifier.update(chunk)
        if held is not None:
            yield held
        held = chunk
    verifier.finish()
    if held is not None:
        yield held
