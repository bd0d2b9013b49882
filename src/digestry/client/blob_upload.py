"""Uploading a blob, unless it is there or can be mounted (distribution-spec, "Pushing blobs")."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, Literal
from urllib.parse import urlsplit

from digestry.blobs.verify import Verifier, verified
from digestry.client.blobs import has_blob
from digestry.client.endpoint import RepositoryEndpoint
from digestry.client.responses import Response, digest_disagreement
from digestry.client.transport import Body, origin_of
from digestry.client.transport_errors import broke_off
from digestry.client.upload_records import UploadRecord, open_record
from digestry.client.upload_session import (
    UploadSession,
    begin_upload,
    find_upload,
    last_byte,
    mount_blob,
    moved,
)
from digestry.errors import ContentError, ProtocolViolation, StorageError, Unreachable
from digestry.model.descriptor import Descriptor

Outcome = Literal["present", "mounted", "sent"]
_Way = Literal["stream", "whole", "parts"]
"""How bytes are sent: as one part that can be continued, in the request that ends the upload, in parts."""
_CHUNK: Final = 1 << 20
_WORTH_CONTINUING: Final = 8 << 20
"""The size from which a partly sent blob is worth the requests that continue it."""
_TOO_LARGE: Final = 413
_MOVED_ON: Final = frozenset({409, 416})
"""The statuses of a registry that has another number of bytes, or is still processing them."""
_TAKEN: Final = frozenset({200, 201, 202, 204})
"""201 is right after the end of an upload, and 202 after a part of it; docker takes all of these."""
_NOT_TAKEN: Final = _MOVED_ON | {400, 404, 405, 411, 412, 415, 501}
_BUSY: Final = frozenset({429, 502, 503, 504})
_LOST: Final = frozenset({404, 500})
"""The statuses of a registry that has dropped the upload, or failed at it: another one may succeed."""
_MOST_QUESTIONS: Final = 3
_MOST_REFUSALS: Final = 5
_PAUSE: Final = 0.1
_MOST_BREAKS: Final = 32
_WORTH_A_BREAK: Final = 1 << 20
_LARGEST_PART: Final = 8 << 20
_SMALLEST_PART: Final = 64 << 10
_SMALLEST_REFUSED: Final = 1 << 20  # the usual limit of proxies


def push_blob(
    endpoint: RepositoryEndpoint,
    descriptor: Descriptor,
    source: Callable[[], BinaryIO],
    mount_from: str | None,
    progress: Callable[[int], None] | None,
) -> Outcome:
    """Make the repository have a blob, and return how. See :meth:`Repository.push_blob`."""
    if has_blob(endpoint, descriptor.digest):
        return "present"
    begun = None
    if mount_from is not None and mount_from != endpoint.repository.repository:
        mounted, begun = mount_blob(endpoint, descriptor, mount_from)
        if mounted:
            return "mounted"
    directory = endpoint.connection.options.uploads if descriptor.size >= _WORTH_CONTINUING else None
    with open_record(directory, endpoint.name, descriptor.digest) as record:
        _Upload(endpoint, descriptor, source, record, _Sent(progress)).run(begun)
    return "sent"


class _Sent:
    """The number of bytes that the registry has, reported to ``progress``."""

    def __init__(self, progress: Callable[[int], None] | None) -> None:
        self._progress = progress
        self.count = 0

    def more(self, count: int) -> None:
        self.count += count
        if self._progress is not None:
            self._progress(count)

    def begin_at(self, offset: int) -> None:
        """Report that the bytes from ``offset`` on are sent next, perhaps once more."""
        if self.count != offset:
            self.more(offset - self.count)


class _NotTaken(Exception):
    """Raised for a request of an upload that the registry refuses, and that another may do."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Upload:
    """The upload of one blob, over as many requests and connections as it takes."""

    def __init__(
        self,
        endpoint: RepositoryEndpoint,
        descriptor: Descriptor,
        source: Callable[[], BinaryIO],
        record: UploadRecord,
        sent: _Sent,
    ) -> None:
        self._endpoint = endpoint
        self._descriptor = descriptor
        self._source = source
        self._record = record
        self._sent = sent
        self._way: _Way = "stream" if descriptor.size >= _WORTH_CONTINUING else "whole"
        self._attempts = endpoint.connection.options.retries
        self._breaks = _MOST_BREAKS + descriptor.size // _WORTH_A_BREAK
        self._furthest = 0
        self._questions = 0

    def run(self, begun: UploadSession | None) -> None:
        """Send the bytes that the registry lacks. ``begun`` is an upload that it has begun already."""
        session = self._find_beyond(0) or begun
        while True:
            if session is None:
                session = begin_upload(self._endpoint, self._descriptor)
            self._record.keep(session.location)
            self._sent.begin_at(session.offset)
            try:
                self._send(session)
            except ContentError:
                self._record.forget()  # the received bytes are the beginning of other content
                raise
            except _NotTaken as refusal:
                session = self._after_refusal(session, refusal.status)
                continue
            except Unreachable as error:
                # It may be that the answer alone was lost.
                if self._sent.count < self._descriptor.size or not self._is_there():
                    session = self._after_break(error)
                    continue
            self._record.forget()
            return

    def _is_there(self) -> bool:
        return has_blob(self._endpoint, self._descriptor.digest)

    def _find(self) -> UploadSession | None:
        """Return the upload of the record as the registry has it; None if it cannot be continued."""
        if not self._record.location:
            return None
        return find_upload(self._endpoint, self._record.location, self._descriptor.size)

    def _find_beyond(self, offset: int) -> UploadSession | None:
        """Return as :meth:`_find` does, once the registry has noticed that a connection broke, if it does."""
        found = self._find()
        for number in range(_MOST_QUESTIONS):
            if found is None or found.offset > offset:
                break
            time.sleep(_PAUSE * 2**number)
            found = self._find()
        return found

    def _after_break(self, error: Unreachable) -> UploadSession | None:
        """Return the upload to go on with after a broken connection; None for a new one."""
        found = None if self._way == "whole" else self._find_beyond(self._furthest)
        self._breaks -= 1
        # An attempt that transferred bytes does not count: the connection is bad, but not dead.
        if found is not None and found.offset > self._furthest:
            self._furthest = found.offset
        else:
            self._attempts -= 1
            # A server may refuse a large body by closing the connection.
            if broke_off(error) and self._descriptor.size > _SMALLEST_REFUSED:
                self._way = "parts"
        if self._attempts < 0 or self._breaks < 0:
            raise error
        return found

    def _after_refusal(self, session: UploadSession, status: int) -> UploadSession | None:
        """Return the upload to go on with after a request that was not taken; None for a new one."""
        if status in _BUSY:
            # How long the registry asks to wait is waited before the next request.
            self._attempts -= 1
            time.sleep(_PAUSE)
            return self._find()
        if status in _LOST and (status != 404 or self._way != "stream"):
            self._attempts -= 1
            self._record.forget()
            time.sleep(_PAUSE)
            return None
        if status in _MOVED_ON and self._questions < _MOST_REFUSALS:
            # It may not have noticed yet that the connection before this one has ended.
            time.sleep(_PAUSE * 2**self._questions)
            self._questions += 1
            found = self._find()
            if found is not None:
                return found
        self._record.forget()
        if status == _TOO_LARGE:
            self._way = "parts"
        elif session.offset == 0 and self._way == "stream":
            self._way = "whole"
        return None

    def _send(self, session: UploadSession) -> None:
        if self._way == "stream" and not self._can_be_continued(session):
            self._way = "whole"
        if self._way == "parts":
            self._send_in_parts(session)
        elif self._way == "stream" or session.offset:
            self._send_rest(session)
        else:
            self._send_whole(session)

    def _can_be_continued(self, session: UploadSession) -> bool:
        """Return whether a part of a request may be kept where the upload is.

        Storage takes the one request that its address was signed for. Distribution drops an upload whose
        request was cut: the number of bytes is in its addresses. It takes one request faster than two.
        """
        base = self._endpoint.connection.base(self._endpoint.host)
        parts = urlsplit(session.location)
        return origin_of(session.location) == origin_of(base) and not parts.query.startswith("_state=")

    def _send_whole(self, session: UploadSession) -> None:
        """Send the blob in the request that ends the upload."""
        size = self._descriptor.size
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        with self._endpoint.request(
            "PUT",
            session.closing_url(self._descriptor),
            headers=headers,
            body=lambda: self._chunks(0),
            push=True,
            repeatable=False,
        ) as response:
            if response.status == _TOO_LARGE and size > _SMALLEST_PART:
                raise _NotTaken(response.status)
            self._check_busy(response)
            self._check_end(response)

    def _send_rest(self, session: UploadSession) -> None:
        """Send the missing bytes as one part, with its range, so that a registry keeps those that arrive."""
        size, start = self._descriptor.size, session.offset
        worth_a_try = start and size - start > 2 * _SMALLEST_PART
        # A registry may still be busy with the request before: it refuses a little then, and not all.
        if worth_a_try and (beginning := self._piece(start, _SMALLEST_PART)):
            session = self._send_part(session, len(beginning), beginning)
            self._sent.more(len(beginning))
        offset = session.offset
        if offset < size:
            session = self._send_part(session, size - offset, lambda: self._chunks(offset))
        self._close(session, continued=start > 0)

    def _send_part(self, session: UploadSession, count: int, body: Body) -> UploadSession:
        """Send ``count`` bytes from the upload's offset on, and return the upload after them."""
        end = session.offset + count
        headers = {
            "Content-Length": str(count),
            "Content-Range": f"{session.offset}-{end - 1}",
            "Content-Type": "application/octet-stream",
        }
        with self._endpoint.request(
            "PATCH", session.location, headers=headers, body=body, push=True, repeatable=False
        ) as response:
            if response.status in _NOT_TAKEN or response.status == _TOO_LARGE:
                raise _NotTaken(response.status)
            self._check_busy(response)
            return self._part_taken(session, response, end)

    def _piece(self, start: int, count: int) -> bytes:
        """Return some bytes of the blob, which are verified with the rest."""
        with self._source() as file:
            while start and (skipped := _some(file, min(_CHUNK, start))):
                start -= len(skipped)
            piece = b""
            while len(piece) < count and (more := _some(file, count - len(piece))):
                piece += more
            return piece

    def _chunks(self, start: int) -> Iterator[bytes]:
        """Yield the blob from the byte ``start`` on; all of it is read, and verified."""
        self._sent.begin_at(start)  # it may be sent on to somewhere else
        position = 0
        # verified() holds the last chunk back, so that damaged bytes are never a whole upload.
        for chunk in verified(_read(self._source), self._descriptor.digest, self._descriptor.size):
            position += len(chunk)
            if position > start:
                part = chunk[max(0, start - position + len(chunk)) :]
                yield part
                self._sent.more(len(part))

    def _send_in_parts(self, session: UploadSession) -> None:
        """Send the blob in parts (distribution-spec, "Pushing a blob in chunks").

        Parts that are refused as too large are made smaller.
        """
        descriptor, least, start = self._descriptor, session.least, session.offset
        size = _LARGEST_PART
        while size >= descriptor.size and size > _SMALLEST_PART:
            size //= 2
        verifier = Verifier(descriptor.digest, descriptor.size)
        held = b""
        with self._source() as file:
            while verifier.seen < start and (skipped := _some(file, min(_CHUNK, start - verifier.seen))):
                verifier.update(skipped)
            while True:
                size = max(size, least)
                if len(held) < size:
                    more = _some(file, size - len(held))
                    verifier.update(more)
                    held += more
                if not held:
                    break
                part, offset = held[:size], session.offset
                headers = {
                    "Content-Length": str(len(part)),
                    "Content-Range": f"{offset}-{offset + len(part) - 1}",
                    "Content-Type": "application/octet-stream",
                }
                with self._endpoint.request(
                    "PATCH", session.location, headers=headers, body=part, push=True, repeatable=False
                ) as response:
                    if response.status == _TOO_LARGE and size > max(_SMALLEST_PART, least):
                        size = max(size // 2, _SMALLEST_PART)
                        continue
                    if start and response.status in _NOT_TAKEN:
                        raise _NotTaken(response.status)
                    self._check_busy(response)
                    session = self._part_taken(session, response, offset + len(part))
                self._sent.more(len(part))
                held = held[len(part) :]
        verifier.finish()  # before the upload is completed
        self._close(session, continued=start > 0)

    def _part_taken(self, session: UploadSession, response: Response, offset: int) -> UploadSession:
        """Return the upload after a part, with which ``offset`` bytes were sent."""
        if response.status not in _TAKEN:
            response.fail(f"push a part of blob {self._descriptor.digest} to {self._endpoint.name}")
        location = moved(self._endpoint, session, response)
        last = last_byte(response)
        if last is not None and last + 1 != offset:
            raise ProtocolViolation(f"{response.host} was sent {offset} bytes, and says that it has {last}")
        self._record.keep(location)
        return UploadSession(location, offset, session.least)

    def _close(self, session: UploadSession, *, continued: bool) -> None:
        """Complete the upload to a blob; the bytes of an earlier command may be wrong."""
        with self._endpoint.request(
            "PUT",
            session.closing_url(self._descriptor),
            headers={"Content-Length": "0"},
            body=b"",
            push=True,
            repeatable=False,
            committed=self._descriptor.size,
        ) as response:
            if continued and response.status in _NOT_TAKEN - _MOVED_ON:
                raise _NotTaken(response.status)
            self._check_busy(response)
            self._check_end(response)

    def _check_busy(self, response: Response) -> None:
        """Raise :class:`_NotTaken` for a registry that may take it later, or in another upload."""
        if response.status in _BUSY | _LOST and self._attempts > 0:
            raise _NotTaken(response.status)

    def _check_end(self, response: Response) -> None:
        digest = self._descriptor.digest
        if response.status not in _TAKEN:
            response.fail(f"push blob {digest} to {self._endpoint.name}")
        said = response.digest()
        if said is not None and said.algorithm == digest.algorithm and said != digest:
            raise digest_disagreement(response.host, said, digest)


def _read(source: Callable[[], BinaryIO]) -> Iterator[bytes]:
    with source() as file:
        while chunk := _some(file, _CHUNK):
            yield chunk


def _some(file: BinaryIO, count: int) -> bytes:
    try:
        return file.read(count)
    except OSError as error:  # would be taken for a broken connection
        raise StorageError(f"cannot read {file.name}: {error.strerror or error}") from error
