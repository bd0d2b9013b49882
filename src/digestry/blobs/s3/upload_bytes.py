"""The bytes of one upload: in parts and fragments at the store, in parts that are being sent, and in memory.

Arriving bytes are copied into a buffer until they make a part, which a thread then sends. The rest, when the
bytes are saved, becomes a fragment, a separate object, which is read back once there is enough for a part.
Content that is smaller than a part is one object, fragment or not.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Final

from digestry.blobs.running_hash import IngestHash
from digestry.blobs.s3.documents import UploadedPart
from digestry.blobs.s3.rows import Fragment, IngestState, StoredObject
from digestry.blobs.s3.session import S3Session
from digestry.errors import StorageError
from digestry.model.digest import Digest

log: Final = logging.getLogger("digestry.blobs")

_REREAD: Final = 1 << 20
_LEFT_OVER: Final = 2 << 20
"""The most bytes that an upload keeps after a part of its chunks was full, without a buffer."""


@dataclass(frozen=True, slots=True)
class _Sending:
    """A part that is being sent to the store, of ``size`` bytes."""

    size: int
    sent: Future[UploadedPart]


class UploadBytes:
    """The bytes of an upload that ``holder`` alone writes. The caller of a method holds the ``lock``.

    Without ``name`` the upload has no rows, and gets some once it is larger than a part. ``hashed`` gets the
    bytes that are appended, and restarts when they have become fewer because a part could not be sent.
    """

    def __init__(
        self, session: S3Session, name: str, holder: str, state: IngestState, hashed: IngestHash
    ) -> None:
        self.lock = threading.RLock()
        self.name = name
        self._session = session
        self._holder = holder
        self._hash = hashed
        self._unhashed: list[memoryview] = []
        self._read_back: dict[str, list[memoryview]] = {}  # fragments in the buffer, by their keys
        self.saved = self.state = state
        self._sending: list[_Sending] = []
        self._pending: list[bytes | memoryview] = []
        self._pending_size = 0
        self._written_at = time.monotonic()

    @property
    def end(self) -> int:
        """The number of bytes so far."""
        return self.state.end + sum(part.size for part in self._sending) + self._pending_size

    @property
    def _unsent(self) -> int:
        """The size of the bytes that do not make a part yet: the fragments, and the memory."""
        return self.state.end - self.state.parts_end + self._pending_size

    # -- memory --------------------------------------------------------------------------------

    def try_take_memory(self) -> bool:
        """Return whether there is memory for the next bytes. Needs no lock."""
        return self._session.memory.try_take(self)

    def idle_since(self) -> float:
        """Return when this was written to last; see :class:`PartHolder`."""
        return self._written_at

    def put_aside(self) -> None:
        """Write the bytes in memory to the store; see :class:`PartHolder`."""
        if not self.lock.acquire(blocking=False):
            return
        try:
            if self._pending and self._session.memory.buffer_of(self) is not None:
                if not self.name:
                    self._begin_upload()
                self.save()
            self._give_buffer_back()
        except StorageError as error:
            log.warning("what came of an upload cannot be put aside: %s", error.message)
        finally:
            self.lock.release()

    def forget(self) -> None:
        """Drop the bytes in memory, and wait until no part is being sent."""
        for part in self._sending:
            part.sent.exception()
        self._sending = []
        self._forget_pending()

    def _forget_pending(self) -> None:
        self._pending, self._pending_size = [], 0
        self._give_buffer_back()

    def _give_buffer_back(self) -> None:
        self._read_back = {}
        memory = self._session.memory
        if (buffer := memory.give_up(self, users=1)) is not None:
            self._hash.call_after(lambda: memory.free(buffer))

    def _collect(self, view: bytes | memoryview) -> None:
        if view:
            self._pending.append(view)
            self._pending_size += len(view)
            self._written_at = time.monotonic()

    def pending(self) -> bytes:
        """Return the bytes that are in memory: the last ones."""
        return b"".join(self._pending)

    # -- more and fewer bytes ------------------------------------------------------------------

    def append(self, views: Sequence[memoryview]) -> None:
        """Add bytes, which do not change afterwards, and hash them."""
        self._note_sent()
        self._session.memory.take(self)
        if self.state.whole:
            self._rewrite(self.end)
        try:
            for view in views:
                self._append(view, new=True)
            self._hash_new()
        except BaseException:
            self._unhashed.clear()
            self._hash.begin(self.end)  # how much of the bytes got in is not known to the hash
            raise

    def _append(self, view: memoryview, *, new: bool) -> None:
        part_size = self._session.config.part_size
        memory = self._session.memory
        while view:
            buffer = memory.buffer_of(self)
            if buffer is None and len(view) > _LEFT_OVER:
                memory.take(self)
                continue
            piece = view[: part_size - self._unsent]
            view = view[len(piece) :]
            # Without a buffer they are the rest of a full part: the next call waits for one.
            kept = piece if buffer is None else buffer.keep(piece)
            if new:
                self._unhashed.append(kept)
            self._collect(kept)
            if self._unsent == part_size:
                self._send_part()

    def _hash_new(self) -> None:
        """Hash the appended bytes, in the background if there are many."""
        if self._unhashed:
            self._hash.update(self._unhashed, lasting=True)
            self._unhashed = []

    def cut(self, end: int) -> None:
        """Drop the bytes from ``end`` on."""
        self.settle()
        if end < self.state.parts_end:
            self._cut_parts(end)
            return
        while self.state.end > end:
            last = self.state.fragments[-1]
            self.state = replace(self.state, fragments=self.state.fragments[:-1])
            self._forget_pending()
            if last.start < end:
                for view in self._read_into_buffer(last.key, end - last.start):
                    self._collect(view)
        if self._pending_size:
            kept = b"".join(self._pending)[: end - self.state.end]
            self._forget_pending()
            self._collect(kept)

    def _cut_parts(self, end: int) -> None:
        count = 0 if self.state.whole else end // self._session.config.part_size
        kept = replace(self.state, parts=self.state.parts[:count], fragments=())
        if kept.parts_end < end:
            self._rewrite(end)  # the bytes of a part cannot be had before all is one object
            return
        self._forget_pending()
        self.state = IngestState(self._session.new_key()) if self.state.whole else kept

    def _rewrite(self, end: int) -> None:
        """Write the bytes before ``end`` again, into another object."""
        self.make_whole()
        old = self.state
        self.state = IngestState(self._session.new_key())
        for position in range(0, end, _REREAD):
            self._session.memory.take(self)
            piece = self._session.read(old.key, position, min(position + _REREAD, end))
            self._append(memoryview(piece), new=False)
        self.save()

    # -- parts -----------------------------------------------------------------------------------

    def _send_part(self) -> None:
        """Send a whole part in the background."""
        self._note_sent()
        self._hash_new()
        if not self.state.upload_id:
            self._begin_upload()
        number = len(self.state.parts) + len(self._sending) + 1
        memory = self._session.memory
        memory.take(self)  # all of it may be the rest of full parts
        body, size = [*self._read_fragments(self.state.fragments), *self._pending], self._unsent
        buffer = memory.give_up(self, users=2)
        self._read_back = {}
        assert buffer is not None  # noqa: S101 - just taken
        sent = self._session.send_part(self.state.key, self.state.upload_id, number, body)
        sent.add_done_callback(lambda _: memory.free(buffer))
        self._hash.call_after(lambda: memory.free(buffer))
        self._pending, self._pending_size = [], 0
        self.state = replace(self.state, fragments=())
        self._sending.append(_Sending(size, sent))

    def _begin_upload(self) -> None:
        """Begin the multipart upload, named by rows before any part of it is there."""
        if not self.name:
            self.name = f"new-{self._holder}"
            self._session.rows.open_ingest(
                self.name, self._holder, seconds=self._session.leases.seconds, new_key=self.state.key
            )
            self._session.leases.keep(self._holder)
        upload_id = self._session.client.begin_upload(self.state.key)
        noted = replace(self.saved, key=self.state.key, upload_id=upload_id)
        self._session.rows.save_ingest(self.name, self._holder, self.saved, noted)
        self.saved = noted
        self.state = replace(self.state, upload_id=upload_id)

    def _note_sent(self, *, wait: bool = False) -> None:
        """Record the parts that were sent; with ``wait``, all of them. Raises the error of a part."""
        while self._sending and (wait or self._sending[0].sent.done()):
            try:
                part = self._sending[0].sent.result()
            except BaseException:
                self._fall_back()
                raise
            del self._sending[0]
            self.state = replace(self.state, parts=(*self.state.parts, part))

    def settle(self) -> None:
        """Wait until all parts were sent. Raises the error of a part that failed."""
        self._note_sent(wait=True)

    def _fall_back(self) -> None:
        """Go back to the last byte from which the upload can go on, after a part was lost."""
        self.forget()
        if self.state.parts_end < self.saved.end:
            self.state = self.saved
        self._unhashed.clear()
        self._hash.begin(self.end)

    # -- durable state --------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the bytes in memory as a fragment, and all changes into the rows."""
        self.settle()
        if self._pending:
            self._write_fragment()
        if self.state != self.saved:
            self._session.rows.save_ingest(self.name, self._holder, self.saved, self.state)
            self.saved = self.state

    def _write_fragment(self) -> None:
        """Write the bytes in memory as a fragment, together with earlier fragments that are no larger.

        So there are few fragments, and no byte is written more often than their number's logarithm.
        """
        kept, size = list(self.state.fragments), self._pending_size
        while kept and kept[-1].size <= size:
            size += kept.pop().size
        key = self._session.new_key()
        body = [*self._read_fragments(self.state.fragments[len(kept) :]), *self._pending]
        self._session.client.put(key, body)
        start = kept[-1].end if kept else self.state.parts_end
        self.state = replace(self.state, fragments=(*kept, Fragment(start, size, key)))
        self._forget_pending()

    def _read_fragments(self, fragments: Sequence[Fragment]) -> list[memoryview]:
        """Return the bytes of fragments, read back into the buffer: together with its bytes they are one part
        at most."""
        for fragment in fragments:
            if fragment.key not in self._read_back:
                self._read_back[fragment.key] = self._read_into_buffer(fragment.key, fragment.size)
        return [view for fragment in fragments for view in self._read_back[fragment.key]]

    def _read_into_buffer(self, key: str, size: int) -> list[memoryview]:
        self._session.memory.take(self)
        buffer = self._session.memory.buffer_of(self)
        assert buffer is not None  # noqa: S101 - just taken
        filled = buffer.filled
        try:
            with self._session.reader(key, size) as reader:
                return [buffer.keep(memoryview(piece)) for piece in reader]
        except BaseException:
            buffer.filled = filled
            raise

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Iterate over all bytes. Parts that were sent are completed to an object for that."""
        self.settle()
        if self.state.parts and not self.state.whole:
            self.make_whole()
            self.save()
        if self.state.whole:
            with self._session.reader(self.state.key, self.state.parts_end) as reader:
                yield from reader
        for fragment in self.state.fragments:
            with self._session.reader(fragment.key, fragment.size) as reader:
                yield from reader
        yield from self._pending

    def make_whole(self) -> str:
        """Make all bytes one object, under the upload's key, and return its ETag."""
        self.settle()
        state, size = self.state, self._unsent
        if state.whole and not size:
            return ""
        body = [*self._read_fragments(state.fragments), *self._pending]
        client, parts = self._session.client, state.parts
        if parts:
            if size:
                parts = (*parts, client.upload_part(state.key, state.upload_id, len(parts) + 1, body))
            etag = client.complete_upload(state.key, state.upload_id, parts)
        else:
            etag = client.put(state.key, body)
            parts = (UploadedPart(1, size, etag),)
        self.state = replace(state, parts=parts, fragments=(), whole=True)
        self._forget_pending()
        return etag

    def stored_object(self, digest: Digest) -> StoredObject:
        """Return the object that has all bytes, made if there is none yet."""
        self.settle()
        if not self.state.parts and len(self.state.fragments) == 1 and not self._pending:
            return StoredObject(digest, self.state.fragments[0].key, self.state.end, "")
        etag = self.make_whole()
        return StoredObject(digest, self.state.key, self.state.end, etag)
