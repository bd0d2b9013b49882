"""Incoming content of an S3 store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from digestry.blobs.ingest_context import IngestContext
from digestry.blobs.ingests import Chunk
from digestry.blobs.running_hash import IngestHash
from digestry.blobs.s3.recent_bytes import RecentBytes
from digestry.blobs.s3.rows import IngestState
from digestry.blobs.s3.session import S3Session
from digestry.blobs.s3.upload_bytes import UploadBytes
from digestry.blobs.verify import too_long, too_short, wrong_hash
from digestry.errors import SizeMismatch, StorageError, TooLarge
from digestry.model.digest import Digest, new_hasher


class S3Ingest(IngestContext):
    """New content, written by one thread at a time.

    Made by :meth:`S3Blobs.begin`, without a name, and :meth:`S3Blobs.ingest`, whose lease excludes all others
    until this is committed, aborted or closed.
    """

    def __init__(
        self,
        session: S3Session,
        name: str,
        holder: str,
        state: IngestState,
        *,
        algorithm: str = "sha256",
        size: int | None = None,
    ) -> None:
        super().__init__(keep=bool(name))
        self._session = session
        self._holder = holder
        self._algorithm = algorithm
        self._size = size
        self._open = True
        self._hash = IngestHash(algorithm)
        self._bytes = UploadBytes(session, name, holder, state, self._hash)
        self._hash.begin(self.offset)
        self._recent: RecentBytes | None = None

    @property
    def offset(self) -> int:
        """The number of bytes written so far, by this writer and those before it."""
        return self._bytes.end

    @property
    def waits(self) -> bool:
        """Whether the store has to be waited for: until this was ended."""
        return self._open

    def resume(self, offset: int, known: Digest | None = None) -> None:
        """Go on at ``offset`` bytes; see :meth:`ResumableIngest.resume`."""
        with self._bytes.lock:
            self._check_open()
            self._bytes.settle()
            if offset > self.offset:
                raise StorageError(
                    f"{self._session.location} holds {self.offset} bytes, but {offset} had arrived",
                    hint="start this upload again",
                )
            if offset < self.offset:
                self._bytes.cut(offset)
            self._hash.begin(offset, known)

    def recent_bytes(self) -> RecentBytes | None:
        """Return what keeps the latest bytes for readers, from now on; None if this was ended."""
        with self._bytes.lock:
            if not self._open:
                return None
            if self._recent is None:
                kept = self._bytes.pending()
                self._recent = RecentBytes(self._session.rows)
                self._recent.append(self.offset - len(kept), [memoryview(kept)])
            return self._recent

    # -- writing -------------------------------------------------------------------------------

    def has_room(self) -> bool:
        """Return whether :meth:`write_all` need not wait for memory; see :meth:`ResumableIngest.has_room`."""
        return not self._open or self._bytes.try_take_memory()

    def write(self, chunk: Chunk, done: Callable[[], None] | None = None) -> None:
        """Append one chunk; see :meth:`write_all`."""
        self.write_all((chunk,))
        if done is not None:
            done()

    def write_all(self, chunks: Sequence[Chunk]) -> None:
        """Append many chunks.

        Raises :class:`SizeMismatch`, before anything is written, if they go past the declared size,
        :class:`TooLarge` past the most that the store takes, and :class:`StorageError`; :attr:`offset` then
        is the number of bytes that were written.
        """
        lasting = (chunk if type(chunk) is bytes else bytes(chunk) for chunk in chunks)
        views = [memoryview(chunk) for chunk in lasting if chunk]
        total = sum(map(len, views))
        with self._bytes.lock:
            self._check_open()
            if self._size is not None and self.offset + total > self._size:
                raise SizeMismatch(f"more bytes came than the {self._size} that were declared")
            limit = self._session.config.largest
            if self.offset + total > limit:
                raise TooLarge(f"{self._session.location} takes blobs of up to {limit} bytes", limit=limit)
            if total:
                before = self.offset
                self._bytes.append(views)
                if self._recent is not None:
                    self._recent.append(before, views)

    def save(self) -> None:
        """Make the bytes so far last until another opens this; see :meth:`ResumableIngest.save`."""
        with self._bytes.lock:
            self._check_open()
            self._bytes.save()

    def digest(self, algorithm: str | None = None) -> Digest:
        """Return the digest of the bytes so far; see :meth:`ResumableIngest.digest`.

        They are read again only if no hash could run along from the first byte.
        """
        with self._bytes.lock:
            self._check_open()
            wanted = algorithm or self._algorithm
            known = self._hash.digest(wanted)
            if known is not None:
                return known
            hasher = new_hasher(wanted)
            for piece in self._bytes.pieces():
                hasher.update(piece)
            return Digest(wanted, hasher.hexdigest())

    # -- the end -----------------------------------------------------------------------------------

    def commit(self, digest: Digest, size: int | None = None) -> None:
        """Check the bytes and make them content; see :meth:`Ingest.commit`."""
        with self._bytes.lock:
            self._check_open()
            try:
                self._commit(digest, size)
            except BaseException:
                self.abort()
                raise
            self._end()

    def _commit(self, digest: Digest, size: int | None) -> None:
        offset = self.offset
        if size is not None and offset != size:
            raise too_long(digest, size) if offset > size else too_short(digest, size, offset)
        found = self._hash.digest(digest.algorithm)
        if found is not None and found != digest:
            raise wrong_hash(digest, found)
        stored = self._bytes.stored_object(digest)
        if found is None:
            found = self._session.hash_object(stored.key, offset, digest.algorithm)
            if found != digest:
                raise wrong_hash(digest, found)
        rows, linger = self._session.rows, self._session.config.linger
        if self._bytes.name:
            rows.commit_ingest(self._bytes.name, self._holder, stored, linger=linger)
        else:
            rows.store(stored, linger=linger)
        if self._recent is not None:
            self._recent.end(stored.key)

    def abort(self) -> None:
        """Discard the bytes. Does nothing after a commit, a close or another abort."""
        with self._bytes.lock:
            if not self._open:
                return
            self._end()
            if self._bytes.name:
                self._session.rows.end_ingest(self._bytes.name, self._holder)

    def close(self) -> None:
        """Let go of the content; its bytes stay for the next to open it."""
        with self._bytes.lock:
            if not self._open:
                return
            try:
                self._bytes.save()
            finally:
                self._end()
                self._session.rows.close_ingest(self._bytes.name, self._holder)

    def _end(self) -> None:
        self._open = False
        if self._recent is not None and self._recent.is_arriving():
            self._recent.end()
        self._session.leases.end(self._holder)
        self._bytes.forget()
        self._hash.close()

    def _check_open(self) -> None:
        if not self._open:
            raise StorageError(f"{self._bytes.name or 'this content'} was committed or closed already")
