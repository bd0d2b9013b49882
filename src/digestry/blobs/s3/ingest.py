"""Content on its way into an S3 store: parts of a multipart upload, sent while the bytes arrive.

What arrives is collected in memory until it makes a part, which a thread then sends. What is left over at
the end of a request becomes a fragment, an object by itself; the next request reads it again once there is
enough for a part. Content that is smaller than a part is one object, fragment or not.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

from digestry.blobs.protocols import Chunk
from digestry.blobs.running_hash import RunningHash
from digestry.blobs.s3.documents import UploadedPart
from digestry.blobs.s3.rows import Fragment, IngestState, StoredObject
from digestry.blobs.verify import too_long, too_short, wrong_hash
from digestry.errors import SizeMismatch, StorageError, TooLarge
from digestry.model.digest import Digest, new_hasher

if TYPE_CHECKING:
    from digestry.blobs.s3.session import S3Session

log: Final = logging.getLogger("digestry.blobs")

_REREAD: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class _Sending:
    """A part on its way to the store, of ``size`` bytes."""

    size: int
    sent: Future[UploadedPart]


class S3Ingest:
    """New content, written by one thread at a time.

    Made by :meth:`S3Blobs.begin` and :meth:`S3Blobs.ingest`. ``name`` is empty for content without rows,
    which gets some when it becomes larger than a part.
    """

    def __init__(
        self,
        session: S3Session,
        name: str,
        holder: str,
        state: IngestState,
        *,
        keep: bool,
        algorithm: str = "sha256",
        size: int | None = None,
    ) -> None:
        self._session = session
        self._name = name
        self._has_rows = keep
        self._holder = holder
        self._keep = keep
        self._algorithm = algorithm
        self._size = size
        self._lock = threading.RLock()
        self._open = True
        self._saved = self._state = state
        self._sending: list[_Sending] = []
        self._pending: list[bytes | memoryview] = []
        self._pending_size = 0
        self._has_slot = False
        self._written_at = time.monotonic()
        self._hasher: RunningHash | None = None
        self._known: Digest | None = None
        self._begin_hash(None)

    # -- how far it came -----------------------------------------------------------------------

    @property
    def offset(self) -> int:
        """The number of bytes written so far, by this writer and those before it."""
        return self._state.end + sum(part.size for part in self._sending) + self._pending_size

    @property
    def waits(self) -> bool:
        """Whether the store has to be waited for: until this was ended."""
        return self._open

    def resume(self, offset: int, known: Digest | None = None) -> None:
        """Go on at ``offset`` bytes; see :meth:`ResumableIngest.resume`."""
        with self._lock:
            self._check_open()
            self._settle()
            if offset > self.offset:
                raise StorageError(
                    f"{self._session.location} holds {self.offset} bytes, but {offset} had arrived",
                    hint="start this upload again",
                )
            if offset < self.offset:
                self._cut(offset)
            self._begin_hash(known)

    def _begin_hash(self, known: Digest | None) -> None:
        self._known = known
        self._drop_hash()
        # Only from the first byte on can a hash run along.
        self._hasher = RunningHash(self._algorithm) if self.offset == 0 else None

    def _cut(self, offset: int) -> None:
        """Drop the bytes from ``offset`` on. What is sent last is not settled any more."""
        if offset < self._state.parts_end:
            parts_end, kept = 0, []
            for part in self._state.parts:
                if parts_end + part.size > offset or self._state.whole:
                    break
                kept.append(part)
                parts_end += part.size
            if parts_end < offset:
                self._rewrite(offset)  # the bytes of a part cannot be had before all is one object
                return
            self._forget_pending()
            self._state = replace(self._state, parts=tuple(kept), fragments=())
            return
        while self._state.end > offset:
            last = self._state.fragments[-1]
            self._state = replace(self._state, fragments=self._state.fragments[:-1])
            self._forget_pending()
            if last.start < offset:
                self._collect(self._session.read(last.key, 0, offset - last.start))
        if self._pending_size:
            kept_bytes = b"".join(self._pending)[: offset - self._state.end]
            self._forget_pending()
            self._collect(kept_bytes)

    def _rewrite(self, offset: int) -> None:
        """Write the first ``offset`` bytes again, into another object."""
        self._make_whole()
        old = self._state
        self._state = IngestState(self._session.new_key())
        for position in range(0, offset, _REREAD):
            self._append(memoryview(self._session.read(old.key, position, min(position + _REREAD, offset))))
        self._save(old)

    # -- writing -------------------------------------------------------------------------------

    def has_room(self) -> bool:
        """Return whether :meth:`write_all` need not wait for memory; see :meth:`ResumableIngest.has_room`."""
        if self._open and not self._has_slot and self._session.memory.try_take(self):
            self._has_slot = True
        return self._has_slot or not self._open

    def write(self, chunk: Chunk) -> None:
        """Append one chunk; see :meth:`write_all`."""
        self.write_all((chunk,))

    def write_all(self, chunks: Sequence[Chunk]) -> None:
        """Append many chunks.

        Raises :class:`SizeMismatch`, before anything is written, if they go past the declared size,
        :class:`TooLarge` past the most that the store takes, and :class:`StorageError`; :attr:`offset` then
        tells how much did get in.
        """
        views = [
            memoryview(chunk if type(chunk) is bytes else bytes(chunk)) for chunk in chunks if len(chunk)
        ]
        total = sum(map(len, views))
        with self._lock:
            self._check_open()
            self._check_sent()
            offset = self.offset
            if self._size is not None and offset + total > self._size:
                raise SizeMismatch(f"more bytes came than the {self._size} that were declared")
            if offset + total > self._session.config.largest:
                limit = self._session.config.largest
                raise TooLarge(
                    f"{self._session.location} takes no more than {limit} bytes of one", limit=limit
                )
            if not total:
                return
            if not self._has_slot:
                self._session.memory.take(self)
                self._has_slot = True
            self._known = None
            if self._state.whole:
                self._rewrite(offset)
            for view in views:
                self._append(view)
            if self._hasher is not None:
                self._hasher.update(views, lasting=True)

    def _append(self, view: memoryview) -> None:
        part_size = self._session.config.part_size
        while view:
            room = part_size - (self._state.end - self._state.parts_end) - self._pending_size
            self._collect(view[:room])
            view = view[room:]
            if room <= self._pending_size and self._unsent() == part_size:
                self._send_part()

    def _unsent(self) -> int:
        """Return the size of what makes no part yet: the fragments, and what is in memory."""
        return self._state.end - self._state.parts_end + self._pending_size

    def _collect(self, view: bytes | memoryview) -> None:
        if not view:
            return
        self._pending.append(view)
        self._pending_size += len(view)
        self._written_at = time.monotonic()

    def _send_part(self) -> None:
        """Send a whole part in the background."""
        self._check_sent()
        if not self._has_slot:  # the chunk before was larger than the rest of its part
            self._session.memory.take(self)
        if not self._state.upload_id:
            self._begin_upload()
        number = len(self._state.parts) + len(self._sending) + 1
        body = [*self._fragment_bytes(), *self._pending]
        size = self._unsent()
        sent = self._session.send_part(self._state.key, self._state.upload_id, number, body)
        self._session.memory.sending(self)
        sent.add_done_callback(lambda _: self._session.memory.sent())
        self._has_slot = False
        self._pending, self._pending_size = [], 0
        self._state = replace(self._state, fragments=())
        self._sending.append(_Sending(size, sent))

    def _begin_upload(self) -> None:
        """Begin the multipart upload, named by rows before any part of it is there."""
        if not self._has_rows:
            self._name = f"new-{self._holder}"
            self._session.rows.open_ingest(
                self._name, self._holder, seconds=self._session.leases.seconds, new_key=self._state.key
            )
            self._has_rows = True
            self._session.leases.keep(self._holder)
        upload_id = self._session.client.begin_upload(self._state.key)
        noted = replace(self._saved, key=self._state.key, upload_id=upload_id)
        self._session.rows.save_ingest(self._name, self._holder, self._saved, noted)
        self._saved = noted
        self._state = replace(self._state, upload_id=upload_id)

    def _fragment_bytes(self) -> list[bytes]:
        return [self._session.read(one.key, 0, one.size) for one in self._state.fragments]

    def _check_sent(self, *, wait: bool = False) -> None:
        """Note which parts were sent; with ``wait``, once all are. Raises what went wrong with one."""
        while self._sending and (wait or self._sending[0].sent.done()):
            try:
                part = self._sending[0].sent.result()
            except BaseException:
                self._fall_back()
                raise
            del self._sending[0]
            self._state = replace(self._state, parts=(*self._state.parts, part))

    def _settle(self) -> None:
        self._check_sent(wait=True)

    def _fall_back(self) -> None:
        """Go back to the last byte from which the upload can go on, after a part was lost."""
        for lost in self._sending:
            lost.sent.exception()  # until it has ended, it may still change its part
        self._sending = []
        self._forget_pending()
        if self._state.parts_end < self._saved.end:
            self._state = self._saved
        self._begin_hash(None)

    def _forget_pending(self) -> None:
        """Drop what is in memory."""
        self._pending, self._pending_size = [], 0
        self._has_slot = False
        self._session.memory.leave(self)

    # -- saving ----------------------------------------------------------------------------------

    def save(self) -> None:
        """Make the bytes so far last until another opens this; see :meth:`ResumableIngest.save`."""
        with self._lock:
            self._check_open()
            self._settle()
            before = self._saved
            self._save(before)

    def _save(self, before: IngestState) -> None:
        self._settle()
        if self._pending:
            self._write_fragment()
        if self._state != before:
            self._session.rows.save_ingest(self._name, self._holder, before, self._state)
        self._saved = self._state

    def _write_fragment(self) -> None:
        """Write what is in memory as a fragment, together with fragments before it that are no larger.

        So there are few fragments, and no byte is written more often than their number's logarithm.
        """
        kept, body, size = list(self._state.fragments), list(self._pending), self._pending_size
        while kept and kept[-1].size <= size:
            last = kept.pop()
            body.insert(0, self._session.read(last.key, 0, last.size))
            size += last.size
        key = self._session.new_key()
        self._session.client.put(key, body)
        start = kept[-1].end if kept else self._state.parts_end
        self._state = replace(self._state, fragments=(*kept, Fragment(start, size, key)))
        self._forget_pending()

    def idle_since(self) -> float:
        """Return when this was written to last; see :class:`PartHolder`."""
        return self._written_at

    def put_aside(self) -> None:
        """Write what is in memory to the store; see :class:`PartHolder`."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._open and self._has_slot:
                if not self._has_rows:
                    self._begin_upload()
                self._save(self._saved)
        except StorageError as error:
            log.warning("what came of an upload cannot be put aside: %s", error.message)
        finally:
            self._lock.release()

    # -- the end -----------------------------------------------------------------------------------

    def digest(self, algorithm: str | None = None) -> Digest:
        """Return the digest of the bytes so far; see :meth:`ResumableIngest.digest`.

        They are read again only if no hash could run along from the first byte.
        """
        with self._lock:
            self._check_open()
            wanted = algorithm or self._algorithm
            return self._known_digest(wanted) or self._hash_again(wanted)

    def _known_digest(self, algorithm: str) -> Digest | None:
        if self._known is not None and self._known.algorithm == algorithm:
            return self._known
        if self._hasher is not None and algorithm == self._algorithm:
            return Digest(algorithm, self._hasher.hexdigest())
        return None

    def _hash_again(self, algorithm: str) -> Digest:
        self._settle()
        if self._state.parts and not self._state.whole:
            self._make_whole()
            self._save(self._saved)
        hasher = new_hasher(algorithm)
        for piece in self._content():
            hasher.update(piece)
        return Digest(algorithm, hasher.hexdigest())

    def _content(self) -> Iterator[bytes | memoryview]:
        """Iterate over all bytes. There are no parts but those of a whole object."""
        if self._state.whole:
            yield from self._session.reader(self._state.key, self._state.parts_end)
        yield from self._fragment_bytes()
        yield from self._pending

    def _make_whole(self) -> str:
        """Make all bytes one object, under the ingest's key, and return its ETag."""
        self._settle()
        state, size = self._state, self._unsent()
        body = [*self._fragment_bytes(), *self._pending]
        client = self._session.client
        if state.parts:
            parts = state.parts
            if size:
                parts = (*parts, client.upload_part(state.key, state.upload_id, len(parts) + 1, body))
            etag = client.complete_upload(state.key, state.upload_id, parts)
        else:
            etag = client.put(state.key, body)
            parts = (UploadedPart(1, size, etag),)
        self._state = replace(state, parts=parts, fragments=(), whole=True)
        self._forget_pending()
        return etag

    def commit(self, digest: Digest, size: int | None = None) -> None:
        """Check the bytes and make them content; see :meth:`Ingest.commit`."""
        with self._lock:
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
        found = self._known_digest(digest.algorithm)
        if found not in {None, digest}:
            raise wrong_hash(digest, found)
        self._settle()
        stored = self._stored(digest)
        if found is None:
            found = self._session.hash_object(stored.key, offset, digest.algorithm)
            if found != digest:
                raise wrong_hash(digest, found)
        linger = self._session.config.linger
        if self._has_rows:
            self._session.rows.commit_ingest(self._name, self._holder, stored, linger=linger)
        else:
            self._session.rows.store(stored, linger=linger)

    def _stored(self, digest: Digest) -> StoredObject:
        """Return the object that has all bytes, made if there is none yet."""
        state = self._state
        if not state.parts and len(state.fragments) == 1 and not self._pending:
            return StoredObject(digest, state.fragments[0].key, state.end, "")
        etag = "" if state.whole and not self._unsent() else self._make_whole()
        return StoredObject(digest, self._state.key, self._state.end, etag)

    def abort(self) -> None:
        """Forget the bytes. Does nothing after a commit, a close or another abort."""
        with self._lock:
            if not self._open:
                return
            for part in self._sending:
                part.sent.exception()  # it must not come after the upload's end
            try:
                if self._has_rows:
                    self._session.rows.end_ingest(self._name, self._holder)
            finally:
                self._end()

    def close(self) -> None:
        """Let go of the content; its bytes stay for the next to open it."""
        with self._lock:
            if not self._open:
                return
            try:
                self._save(self._saved)
            finally:
                self._end()
                self._session.rows.close_ingest(self._name, self._holder)

    def _end(self) -> None:
        self._open = False
        self._session.leases.end(self._holder)
        self._sending = []
        self._forget_pending()
        self._drop_hash()

    def _drop_hash(self) -> None:
        if self._hasher is not None:
            self._hasher.close()
            self._hasher = None

    def _check_open(self) -> None:
        if not self._open:
            raise StorageError(f"{self._name or 'this content'} was committed or closed already")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._keep:
            self.close()
        else:
            self.abort()
