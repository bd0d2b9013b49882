"""The protocols of incoming content of a blob store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, Self

from digestry.model.digest import Digest

Chunk = bytes | bytearray | memoryview
"""What may be written: the store copies it, so that the caller can use the buffer again."""


class Ingest(Protocol):
    """Incoming content: nothing has a digest's name before :meth:`commit` has returned.

    As a context manager it is aborted at the end of the block, unless it was committed.
    """

    @property
    def offset(self) -> int:
        """The number of bytes written so far."""
        ...

    def write(self, chunk: Chunk, done: Callable[[], None] | None = None) -> None:
        """Append. Raises :class:`SizeMismatch` past a declared size, :class:`StorageError`.

        With ``done`` the caller lets the chunk's bytes be until that is called, perhaps in another thread:
        then they need not be copied.
        """
        ...

    def commit(self, digest: Digest, size: int | None = None) -> None:
        """Check the bytes, then make them durable under ``digest``, replacing what is there.

        Raises :class:`DigestMismatch` or :class:`SizeMismatch`, and then keeps nothing;
        :class:`StorageError` if the bytes could not be stored.
        """
        ...

    def abort(self) -> None:
        """Discard the bytes. Does nothing after a commit or another abort."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class ResumableIngest(Ingest, Protocol):
    """New content under a name, which several requests, or processes, carry on one after the other.

    Whoever has it open has it alone. At the end of a ``with`` block the bytes stay, for the next to go
    on with them, unless they were committed or aborted.
    """

    def resume(self, offset: int, known: Digest | None = None) -> None:
        """Go on at ``offset`` bytes, dropping what comes after.

        ``known`` is the digest of the bytes before, as :meth:`digest` returned it to their writer: with it
        they need not be read again. Raises :class:`StorageError` if there are fewer bytes.
        """
        ...

    @property
    def waits(self) -> bool:
        """Whether :meth:`save` and :meth:`close` wait for the store: an event loop calls them in a thread."""
        ...

    def has_room(self) -> bool:
        """Return whether :meth:`write_all` need not wait for memory that other content has. Does not block.

        Whoever gets False has a place in the queue, and asks again. Raises :class:`StorageBusy` after long.
        """
        ...

    def save(self) -> None:
        """Keep the bytes so far for the next opening of the content, as :meth:`close` does.

        Raises :class:`StorageError`; the bytes of an earlier call are then still there.
        """
        ...

    def write_all(self, chunks: Sequence[Chunk]) -> None:
        """Append many chunks at once. After an error :attr:`offset` says how much did get in."""
        ...

    def digest(self, algorithm: str | None = None) -> Digest:
        """Return the digest of the bytes so far, in the algorithm this was opened with unless given."""
        ...

    def close(self) -> None:
        """Close the content; its bytes stay. Does nothing after a commit, an abort or another close."""
        ...


class GrowingContent(Protocol):
    """Incoming content, read while another writes it. Its bytes are not verified. Blocks."""

    def size(self) -> int:
        """Return how many bytes have arrived."""
        ...

    def read(self, position: int, count: int) -> bytes:
        """Return up to ``count`` of the bytes that have arrived, from ``position`` on.

        None are returned of those that cannot be read before the commit.
        """
        ...

    def is_arriving(self) -> bool:
        """Return whether the incoming content of that name is still this one."""
        ...

    def is_stored_as(self, digest: Digest) -> bool:
        """Return whether the store's content of ``digest`` is this one, committed."""
        ...

    def close(self) -> None:
        """Let go of the content."""
        ...
