"""The protocol of the rows that say which object holds which content. A catalog's database has them.

A row is what makes an object content: the objects themselves are never renamed or copied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from digestry.blobs.s3.documents import UploadedPart
from digestry.model.digest import Digest


@dataclass(frozen=True, slots=True)
class StoredObject:
    """The object that holds some content: its ``size`` is in bytes, ``stored_at`` in microseconds since 1970
    (0: when the row is written)."""

    digest: Digest
    key: str
    size: int
    etag: str
    stored_at: int = 0


@dataclass(frozen=True, slots=True)
class Fragment:
    """An object with bytes of an upload that do not make a part yet, from byte ``start`` on."""

    start: int
    size: int
    key: str

    @property
    def end(self) -> int:
        """The position after its last byte."""
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class IngestState:
    """The state of incoming content in its rows.

    ``parts`` are at the store, in the multipart upload ``upload_id`` of ``key``, one after the other;
    ``fragments`` continue where they end. ``whole``: the parts are an object already.
    """

    key: str
    upload_id: str = ""
    parts: tuple[UploadedPart, ...] = ()
    fragments: tuple[Fragment, ...] = ()
    whole: bool = False

    @property
    def parts_end(self) -> int:
        """The number of bytes in the parts, which all have one size, except for the last."""
        if not self.parts:
            return 0
        return (len(self.parts) - 1) * self.parts[0].size + self.parts[-1].size

    @property
    def end(self) -> int:
        """The number of bytes in all."""
        return self.fragments[-1].end if self.fragments else self.parts_end


@dataclass(frozen=True, slots=True)
class Removal:
    """An object that is to be removed, with the multipart upload of its key if ``upload_id`` is not empty."""

    key: str
    upload_id: str = ""


@dataclass(frozen=True, slots=True)
class QuarantinedObject:
    """An object whose bytes are not what its digest says."""

    name: str
    digest: Digest
    key: str
    size: int


class ObjectRows(Protocol):
    """The rows of one store. Thread-safe. Blocks. All methods raise :class:`StorageError`.

    Times are the database's, so that nodes agree. A transaction that replaces or forgets a key also marks its
    object for removal, ``linger`` seconds later.
    """

    # -- content ------------------------------------------------------------------------------

    def find(self, digest: Digest) -> StoredObject | None:
        """Return the object of some content; None if it is not stored."""
        ...

    def digests(self) -> Iterator[Digest]:
        """Iterate over all content that is stored."""
        ...

    def store(self, stored: StoredObject, *, linger: float) -> None:
        """Note which object has some content, in place of the one before."""
        ...

    def forget(self, digest: Digest, *, linger: float, settle: float) -> bool:
        """Forget the object of some content, unless a repository has it, or is about to get it.

        Return False if nothing was forgotten: there is no object, it was stored within ``settle`` seconds, or
        the registry uses it. All that is one transaction.
        """
        ...

    # -- quarantine ----------------------------------------------------------------------------

    def quarantine(self, digest: Digest, name: str, size: int) -> QuarantinedObject | None:
        """Move the object of some content to the quarantine; None if there is none.

        It is called ``name``, or, where another is called that, ``name`` with a number.
        """
        ...

    def quarantined(self, digest: Digest | None) -> Iterator[QuarantinedObject]:
        """Iterate over the quarantine, of ``digest`` alone or of all, oldest first."""
        ...

    def forget_quarantined(self, name: str) -> None:
        """Forget an object of the quarantine, there or not."""
        ...

    # -- incoming content -----------------------------------------------------------------

    def open_ingest(self, name: str, holder: str, *, seconds: float, new_key: str) -> IngestState:
        """Give the ingest ``name`` to ``holder`` alone, for so many seconds.

        One that is not there is made, with ``new_key``, unless that is empty. Raises :class:`Conflict` while
        another holds it, and :class:`NotFound`.
        """
        ...

    def renew(self, holders: Collection[str], *, seconds: float) -> None:
        """Renew the leases of ``holders``, for so many seconds from now."""
        ...

    def save_ingest(self, name: str, holder: str, before: IngestState, after: IngestState) -> None:
        """Store the state of an ingest: ``before`` is the state in its rows. Raises :class:`Conflict` if
        ``holder`` no longer has it."""
        ...

    def close_ingest(self, name: str, holder: str) -> None:
        """Let another have the ingest."""
        ...

    def commit_ingest(self, name: str, holder: str, stored: StoredObject, *, linger: float) -> None:
        """Record, as :meth:`store` does, which object has the content of an ingest, and end it. Raises
        :class:`Conflict` if ``holder`` no longer has it."""
        ...

    def end_ingest(self, name: str, holder: str) -> None:
        """End an ingest, if ``holder`` has it: all of its objects are to be removed."""
        ...

    def ingests(self, *, idle_for: float | None = None) -> Sequence[str]:
        """Return the names of all ingests, or of those without a holder that were not written to for so many
        seconds."""
        ...

    # -- removal -------------------------------------------------------------------------------

    def removals(self, limit: int) -> Sequence[Removal]:
        """Return objects that are to be removed by now, up to ``limit``, those due first."""
        ...

    def removed(self, removals: Sequence[Removal]) -> None:
        """Delete the rows of objects that were removed."""
        ...

    def uploading(self, upload_ids: Collection[str]) -> set[str]:
        """Return those of ``upload_ids`` that an ingest has."""
        ...

    def named(self, keys: Collection[str]) -> set[str]:
        """Return those of ``keys`` that any row has."""
        ...
