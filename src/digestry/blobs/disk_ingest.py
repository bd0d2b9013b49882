"""Incoming content of a disk store: one file, one writer at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from digestry.blobs.ingest_context import IngestContext
from digestry.blobs.running_hash import IngestHash
from digestry.blobs.verify import too_long, too_short, wrong_hash
from digestry.errors import Conflict, NotFound, SizeMismatch, StorageError
from digestry.fsio import Writeback, make_directory, open_regular, publish, storage_error, storage_errors
from digestry.model.digest import Digest, new_hasher

if TYPE_CHECKING:
    from digestry.blobs.ingests import Chunk

_MOST_PARTS: Final = 1024  # IOV_MAX on Linux and macOS
_REREAD: Final = 1 << 20


def _create(path: Path) -> int:
    """Make a file for new content, and its directory if another program has just removed that as empty."""
    try:
        return open_regular(path, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:
        path.parent.mkdir(exist_ok=True)  # not its parents: a disk that is not mounted stays an error
        return open_regular(path, os.O_RDWR | os.O_CREAT, 0o644)


def _open_locked(path: Path, create: bool) -> int:
    """Open ``path`` with the lock held and return the descriptor."""
    while True:
        try:
            try:
                descriptor = open_regular(path, os.O_RDWR)
            except FileNotFoundError:
                if not create:
                    raise
                descriptor = _create(path)
        except FileNotFoundError as error:
            if create:
                raise storage_error("create", path, error) from error
            raise NotFound(f"{path.name} is not there: it was finished, given up, or never begun") from error
        except OSError as error:
            raise storage_error("open", path, error) from error
        try:
            with storage_errors("lock", path):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise Conflict(
                        f"{path.name} is being written by another request", hint="try again when it has ended"
                    ) from error
                try:
                    current = path.stat()
                except FileNotFoundError:
                    current = None
                mine = os.fstat(descriptor)
            # The one who held the lock before may have renamed or removed the file meanwhile.
            if current is not None and (current.st_dev, current.st_ino) == (mine.st_dev, mine.st_ino):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


class DiskIngest(IngestContext):
    """An open file of new content. Not for several threads at once.

    Made by :meth:`DiskBlobs.begin` and :meth:`DiskBlobs.ingest`, whose lock excludes every other
    process until this is committed, aborted or closed.
    """

    def __init__(
        self,
        place: Callable[[Digest], Path],
        path: Path,
        *,
        create: bool,
        keep: bool,
        algorithm: str = "sha256",
        size: int | None = None,
    ) -> None:
        super().__init__(keep=keep)
        self._place = place
        self._path = path
        self._size = size
        self._algorithm = algorithm
        self._hash = IngestHash(algorithm)
        self._descriptor = _open_locked(path, create)
        self._open = True
        try:
            self._go_on(None, None)
        except BaseException:
            os.close(self._descriptor)
            raise

    def resume(self, offset: int, known: Digest | None = None) -> None:
        """Go on at ``offset`` bytes; see :meth:`ResumableIngest.resume`."""
        self._check_open()
        self._go_on(offset, known)

    def _go_on(self, offset: int | None, known: Digest | None) -> None:
        with storage_errors("open", self._path):
            present = os.fstat(self._descriptor).st_size
        self._offset = present if offset is None else offset
        if self._offset > present:
            raise StorageError(
                f"{self._path} holds {present} bytes, but {self._offset} had arrived",
                hint="start this upload again",
            )
        if self._offset < present:
            with storage_errors("truncate", self._path):
                os.ftruncate(self._descriptor, self._offset)
        self._hash.begin(self._offset, known)
        self._writeback = Writeback(self._descriptor, offset=self._offset)

    @property
    def waits(self) -> bool:
        """Return False: the file has each byte at once."""
        return False

    def has_room(self) -> bool:
        """Return True: no bytes wait in memory."""
        return True

    def save(self) -> None:
        """Do nothing: the file has each byte at once."""
        self._check_open()

    @property
    def offset(self) -> int:
        """The number of bytes written so far, by this writer and those before it."""
        return self._offset

    @property
    def path(self) -> Path:
        """The file. The commit moves it away."""
        return self._path

    def write(self, chunk: Chunk, done: Callable[[], None] | None = None) -> None:
        """Append one chunk; see :meth:`Ingest.write`, and :meth:`write_all` for what it raises."""
        self._append((chunk,), lasting=done is not None or type(chunk) is bytes)
        if done is not None:
            self._hash.call_after(done)

    def write_all(self, chunks: Sequence[Chunk]) -> None:
        """Append many chunks with few system calls.

        Raises :class:`SizeMismatch`, before anything is written, if they go past the declared size, and
        :class:`StorageError`; :attr:`offset` then is the number of bytes that were written.
        """
        self._append(chunks, lasting=all(type(chunk) is bytes for chunk in chunks))

    def _append(self, chunks: Sequence[Chunk], *, lasting: bool) -> None:
        self._check_open()
        views = [memoryview(chunk).cast("B") for chunk in chunks if len(chunk)]
        total = sum(map(len, views))
        if self._size is not None and self._offset + total > self._size:
            raise SizeMismatch(f"more bytes came than the {self._size} that were declared")
        with storage_errors("write", self._path):
            for start in range(0, len(views), _MOST_PARTS):
                self._write_batch(views[start : start + _MOST_PARTS], lasting=lasting)

    def _write_batch(self, views: list[memoryview], *, lasting: bool) -> None:
        while views:
            count = os.pwritev(self._descriptor, views, self._offset)
            self._offset += count
            written: list[memoryview] = []
            while count:
                view = views.pop(0)
                written.append(view[:count])
                if count < len(view):
                    views.insert(0, view[count:])
                count -= len(written[-1])
            self._hash.update(written, lasting=lasting)
        self._writeback.advance(self._offset)

    def digest(self, algorithm: str | None = None) -> Digest:
        """Return the digest of the bytes so far; see :meth:`ResumableIngest.digest`.

        The file is read again only if no hash could run along from the first byte.
        """
        self._check_open()
        wanted = algorithm or self._algorithm
        known = self._hash.digest(wanted)
        if known is not None:
            return known
        hasher = new_hasher(wanted)
        buffer = bytearray(_REREAD)
        view = memoryview(buffer)
        position = 0
        with storage_errors("read", self._path):
            while count := os.preadv(self._descriptor, [buffer], position):
                hasher.update(view[:count])
                position += count
        return Digest(wanted, hasher.hexdigest())

    def commit(self, digest: Digest, size: int | None = None) -> None:
        """Check the bytes and make them durable as ``digest``; see :meth:`Ingest.commit`."""
        self._check_open()
        try:
            if size is not None and self._offset != size:
                raise (
                    too_long(digest, size) if self._offset > size else too_short(digest, size, self._offset)
                )
            found = self.digest(digest.algorithm)
            if found != digest:
                raise wrong_hash(digest, found)
            destination = self._place(digest)
            if not destination.parent.is_dir():
                make_directory(destination.parent)
            # Always the rename, even if the content is there: that heals a damaged file.
            publish(self._path, destination, descriptor=self._descriptor)
        except BaseException:
            self.abort()
            raise
        self.close()

    def abort(self) -> None:
        """Remove the file. Does nothing after a commit, a close or another abort."""
        if not self._open:
            return
        try:
            with storage_errors("remove", self._path):
                self._path.unlink(missing_ok=True)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the file and its lock; the bytes stay for the next to open it."""
        if self._open:
            self._open = False
            self._hash.close()
            os.close(self._descriptor)

    def _check_open(self) -> None:
        if not self._open:
            raise StorageError(f"{self._path.name} was committed or closed already")
