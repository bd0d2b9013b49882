"""An object that is read from any position on, by few requests where it is read in order."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final, Self

from digestry.blobs.failures import BytesLost
from digestry.blobs.protocols import InThread
from digestry.blobs.s3.client import S3Client, read_body
from digestry.blobs.s3.failures import S3Refusal
from digestry.blobs.s3.transport import BodyStream
from digestry.errors import StorageBusy, StorageError

_FIRST_WINDOW: Final = 1 << 20
_LONGEST_WINDOW: Final = 64 << 20
_GROWTH: Final = 4
_PIECE: Final = 1 << 20
_ATTEMPTS: Final = 3
_SENT: Final = 512 << 10
"""The most bytes that are read at once for a client: the server keeps some of them for each that is slow."""


class ObjectReader:
    """Reads one object of ``size`` bytes. Not for several threads at once.

    A request fetches a window of the object; the next window is larger while reads are sequential.
    """

    def __init__(self, client: S3Client, key: str, size: int, where: str) -> None:
        self.size = size
        self._client = client
        self._key = key
        self._where = where
        self._body: BodyStream | None = None
        self._position = 0  # of the next byte of the body
        self._end = 0  # of the body
        self._window = _FIRST_WINDOW
        self._goal = size  # no request asks for bytes on both of its sides

    def read_at(self, position: int, count: int) -> bytes:
        """Return up to ``count`` bytes from ``position`` on; none only at the end.

        Raises :class:`BytesLost` if the object is gone, :class:`StorageError`.
        """
        count = min(count, self.size - position)
        if count <= 0:
            return b""
        for attempt in range(_ATTEMPTS):
            try:
                if self._body is None or position != self._position:
                    self._begin(position, count)
                part = self._read(count)
            except StorageBusy:
                self.close()
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            if part:
                self._position += len(part)
                if self._position >= self._end:
                    self._finish()
                return part
            self.close()  # it ended early: the rest is requested again
        raise BytesLost(f"{self._where} ended at byte {position} of {self.size}")

    def begin(self, first: int, end: int) -> None:
        """Request the bytes from ``first`` on, for a caller that reads on to ``end``. Raises as
        :meth:`read_at` does."""
        if first < self.size:
            self._goal = end
            self._begin(first, 0)

    def _begin(self, position: int, count: int) -> None:
        if position == self._end and position:
            self._window = min(self._window * _GROWTH, _LONGEST_WINDOW)
        else:
            self._window = _FIRST_WINDOW
        self.close()
        goal = self._goal if position < self._goal else self.size
        end = min(goal, position + max(count, self._window))
        try:
            self._body, _ = self._client.open(self._key, position, end)
        except S3Refusal as error:
            if error.no_object:
                raise BytesLost(f"{self._where} is gone from the store") from error
            if error.status == 416:
                raise BytesLost(f"{self._where} has no more than {position} of {self.size} bytes") from error
            raise
        self._position, self._end = position, end

    def _read(self, count: int) -> bytes:
        assert self._body is not None  # noqa: S101 - begun by the caller
        return read_body(self._body, self._where, min(count, self._end - self._position))

    def _finish(self) -> None:
        """Give the connection of a body that was read whole back."""
        body, self._body = self._body, None
        if body is not None:
            body.release()

    def __iter__(self) -> Iterator[bytes]:
        position = 0
        while part := self.read_at(position, _PIECE):
            yield part
            position += len(part)

    def close(self) -> None:
        """End the request under way."""
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class S3Ranges:
    """An object that is open for reading by ranges, in an event loop; see :class:`BlobRanges`."""

    __slots__ = ("_in_thread", "_reader", "size")

    def __init__(self, reader: ObjectReader, in_thread: InThread) -> None:
        self._reader = reader
        self._in_thread = in_thread
        self.size = reader.size

    async def read(self, position: int, count: int) -> bytes:
        """Return up to ``count`` bytes; see :meth:`BlobRanges.read`."""
        return await self._in_thread(self._reader.read_at, position, min(count, _SENT))

    async def file_with(self, position: int, count: int) -> None:
        """Return None: an object is no file here."""

    def close(self) -> None:
        """Let go of the object."""
        self._reader.close()


class ObjectFile(io.RawIOBase):
    """An object as a seekable file. Its reads raise OSError."""

    def __init__(self, reader: ObjectReader) -> None:
        super().__init__()
        self._reader = reader
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._reader.size}[whence]
        if base + offset < 0:
            raise OSError(f"{base + offset} is before the beginning")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Read into ``buffer`` and return how many bytes; 0 at the end."""
        try:
            part = self._reader.read_at(self._at, len(buffer))
        except StorageError as error:
            raise OSError(error.message) from error
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def close(self) -> None:
        """Let go of the object."""
        self._reader.close()
        super().close()
