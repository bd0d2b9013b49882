"""The protocols of a blob store. ``tests/blobs/contract.py`` tests each implementation."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, ParamSpec, Protocol, TypeVar

from digestry.blobs.bounded_read import SMALL
from digestry.blobs.ingests import GrowingContent, Ingest, ResumableIngest
from digestry.errors import DigestryError
from digestry.model.digest import Digest

P = ParamSpec("P")
T = TypeVar("T")

GONE: Final = "its file is gone"
"""The problem of content that is not in the store."""


class InThread(Protocol):
    """Call a function that waits, in a thread of the caller's."""

    def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]: ...


class Throttle(Protocol):
    """How fast content is verified."""

    @property
    def chunk(self) -> int:
        """Bytes that are read at once, at most."""
        ...

    def take(self, count: int) -> None:
        """Wait until ``count`` bytes may be read. May raise, to end the reading."""
        ...


class FullSpeed:
    """A throttle that never waits."""

    chunk: Final = 1 << 20

    def take(self, count: int) -> None:
        """Return at once."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of reading some content again.

    ``revision`` is which copy was read, as :meth:`BlobReader.revision` has it; None if there is none.
    ``problem`` is None if the content is whole.
    """

    digest: Digest
    revision: Hashable | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class QuarantinedBlob:
    """Damaged content that was moved out of the way, and is kept for people to look at.

    ``name`` is unique in the store; ``location`` is where a person finds it; ``size`` is in bytes.
    """

    digest: Digest
    name: str
    location: str
    size: int


@dataclass(frozen=True, slots=True)
class StoreMark:
    """Which registry the content belongs to, and how recent its catalog was when that was noted."""

    id: str
    generation: int


class NoteStore(Protocol):
    """A store that keeps small notes beside the content. A disk is none: there, files do that."""

    def note_location(self, name: str) -> str:
        """Return where a person finds a note."""
        ...

    def read_note(self, name: str, limit: int) -> bytes | None:
        """Return a note of at most ``limit`` bytes; None if there is none. Raises :class:`StorageError`."""
        ...

    def write_note(self, name: str, content: bytes) -> None:
        """Write a note, durably. Raises :class:`StorageError`."""
        ...


class BlobRanges(Protocol):
    """Content that is open for reading by ranges, in an event loop. Its bytes are not verified."""

    @property
    def size(self) -> int:
        """The size of the whole content in bytes."""
        ...

    async def read(self, position: int, count: int) -> bytes:
        """Return up to ``count`` bytes from ``position`` on; none only at the end.

        Raises :class:`BytesLost` and :class:`StorageError`.
        """
        ...

    async def file_with(self, position: int, count: int) -> int | None:
        """Return the descriptor of a file that has all of these bytes, in memory and at the same position, so
        that the kernel can send them; None if there is no file.

        Raises :class:`BytesLost` and :class:`StorageError`.
        """
        ...

    def close(self) -> None:
        """Let go of the content."""
        ...


class BlobReader(Protocol):
    """Content by digest, for reading. All methods but :meth:`open_ranges` block."""

    @property
    def location(self) -> str:
        """Where a person finds the store: a directory or a URL, for messages."""
        ...

    @property
    def inline_limit(self) -> int:
        """The size in bytes up to which :meth:`read` takes microseconds: an event loop may call it."""
        ...

    @property
    def is_listed_in_catalog(self) -> bool:
        """Whether the list of what is here is in the registry's catalog: without that it is lost."""
        ...

    def stat(self, digest: Digest) -> int | None:
        """Return the content's size in bytes, or None if it is not here. Its bytes are not read."""
        ...

    def revision(self, digest: Digest) -> Hashable | None:
        """Return the revision of the stored copy: storing the content again makes another. None: no copy."""
        ...

    def stored_at(self, digest: Digest) -> float | None:
        """Return when the content was stored last, in seconds since 1970; None if that is not known."""
        ...

    def local_path(self, digest: Digest) -> Path | None:
        """Return the file on this host that holds the content, or would; None for a store without files."""
        ...

    def redirect(self, digest: Digest) -> str | None:
        """Return a URL at which any client can read the content for some minutes. May block.

        None if the store has no such URLs: the registry then sends the bytes itself.
        """
        ...

    def open(self, digest: Digest) -> io.BufferedReader:
        """Return the content as a seekable file, unverified: a reader checks with ``blobs.verify``.

        Raises :class:`NotFound`, :class:`DigestMismatch` if what has its name is no content,
        :class:`BytesLost` and :class:`StorageError`; reading from the file raises OSError.
        """
        ...

    async def open_ranges(
        self, digest: Digest, in_thread: InThread, first: int = 0, last: int | None = None
    ) -> BlobRanges:
        """Open the content for reading by ranges, unverified.

        The caller will read the bytes from ``first`` to ``last`` before others, so that the store need not
        ask for more. A store whose calls block makes them by ``in_thread``. Raises as :meth:`open` does.
        """
        ...

    def read(self, digest: Digest, *, limit: int = SMALL) -> bytes:
        """Return the whole of some small content, verified.

        Raises :class:`NotFound`, :class:`TooLarge` above ``limit`` bytes, :class:`DigestMismatch`
        if the store's copy is damaged, :class:`BytesLost` and :class:`StorageError`.
        """
        ...

    def verify(
        self, digest: Digest, size: int | None, throttle: Throttle, *, uncached: bool = False
    ) -> Verification:
        """Read all of the content and compare it with its digest, and with ``size`` unless that is None.

        With ``uncached`` memory forgets the content first, for memory may be what is wrong. Raises
        :class:`Unreadable`, and :class:`StorageError` if more than this content is in trouble.
        """
        ...

    def digests(self) -> Iterator[Digest]:
        """Iterate over all content that is here, in no order. Raises :class:`StorageError` meanwhile."""
        ...


class BlobWriter(Protocol):
    """Content by digest, for changing. All methods block."""

    def begin(self, digest: Digest | None = None, size: int | None = None) -> Ingest:
        """Start new content. ``digest`` and ``size`` (bytes), where known, are what the commit will be
        called with: the one picks the hash, the other stops a longer stream early."""
        ...

    def put(self, content: bytes, digest: Digest | None = None) -> Digest:
        """Store some small content durably and return its digest (sha256 if none is given).

        Raises :class:`DigestMismatch` if it is not ``digest``'s, and :class:`StorageError`.
        """
        ...

    def put_all(self, contents: Sequence[tuple[bytes, Digest]]) -> list[DigestryError | None]:
        """Store some small contents durably, as :meth:`put` does, and wait for the disk once for all.

        Return for each the error that :meth:`put` would raise, or None: one that fails keeps out no other.
        """
        ...

    def delete(self, digest: Digest, *, durable: bool = True) -> bool:
        """Remove the content; return False if it was not there. Raises :class:`StorageError`.

        Without ``durable`` a crash may restore it, whole: for callers that remove a lot, and check again
        later.
        """
        ...


class Ingests(Protocol):
    """The incoming content of a store, by name. All methods block."""

    def ingest(self, name: str, *, create: bool = True, algorithm: str = "sha256") -> ResumableIngest:
        """Open the incoming content ``name``, at its end.

        Raises :class:`Conflict` while another has it open, :class:`NotFound` without ``create`` if it is
        not there, :class:`StorageError`.
        """
        ...

    def follow(self, name: str) -> GrowingContent | None:
        """Open the incoming content ``name``, to read while another writes it.

        None where it cannot be read before its commit: in a store that only the process reads which writes,
        and another one does. Raises :class:`NotFound` and :class:`StorageError`.
        """
        ...

    def ingests(self) -> Iterator[str]:
        """Iterate over the names of all incoming content, abandoned or not."""
        ...

    def discard(self, name: str) -> bool:
        """Discard the incoming content ``name``; return False if there is none.

        Raises :class:`Conflict` while somebody writes them.
        """
        ...

    def sweep_ingests(self, older_than: float, *, keep: Collection[str] = ()) -> list[str]:
        """Discard incoming content that was not written to for ``older_than`` seconds, and return the names.

        What somebody has open stays, and so does what ``keep`` names.
        """
        ...


class BlobQuarantine(Protocol):
    """Damaged content that was moved out of the way. All methods block."""

    def quarantine(self, digest: Digest, at: int) -> QuarantinedBlob:
        """Move the content of ``digest``, which is not what it should be, out of the way, durably.

        ``at`` goes into its name. The caller holds the digest's guard exclusively.
        """
        ...

    def quarantined(self, digest: Digest | None = None) -> Iterator[QuarantinedBlob]:
        """Iterate over what is in quarantine, of ``digest`` alone (oldest first) or of all."""
        ...

    def delete_quarantined(self, blob: QuarantinedBlob) -> None:
        """Remove damaged content from the quarantine, durably."""
        ...


class BlobStore(BlobReader, BlobWriter, Ingests, BlobQuarantine, Protocol):
    """All roles, and what a registry notes in its store."""

    def prepare(self) -> None:
        """Make what the store needs where that is missing, durably, such as its directories."""
        ...

    def instance(self) -> object:
        """Return which store this is: a value that differs once another store has taken its place.

        Raises :class:`StorageError` if that is not known.
        """
        ...

    @property
    def mark_location(self) -> str:
        """Where a person finds what :meth:`mark` reads, for messages."""
        ...

    def mark(self) -> StoreMark | None:
        """Return which registry the content belongs to; None if that was never noted.

        Raises :class:`StorageError`, also if what is noted cannot be read.
        """
        ...

    def set_mark(self, mark: StoreMark) -> None:
        """Note, durably, which registry the content belongs to."""
        ...
