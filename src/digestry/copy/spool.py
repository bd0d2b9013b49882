"""The spool: bytes of blobs in transit from one registry to another place, kept over a kill.

A blob is read by its sender while it still arrives. Nothing here is verified: the reader does that.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Self, cast

from digestry.copy.protocols import Progress
from digestry.errors import SizeMismatch
from digestry.fsio import PRIVATE, make_directory, open_regular, storage_errors
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest, new_hasher

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from digestry.blobs.ingests import Chunk, Ingest

_MAX_AGE: Final = 7 * 24 * 3600.0
"""Seconds after which unused bytes are removed."""
_WORTH_WAKING: Final = 256 << 10
_CHUNK: Final = 1 << 20

Fetch = Callable[["Ingest", Progress], None]
"""Writes into the ingest what it lacks, and commits it."""


class Spool:
    """A directory of blobs in transit. Safe to use from many processes at once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def sweep(self, older_than: float = _MAX_AGE) -> None:
        """Remove files that were not written to for ``older_than`` seconds."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime > older_than:
                        Path(entry.path).unlink()

    def content(self, descriptor: Descriptor, fetch: Fetch) -> SpooledContent:
        """Return the content of ``descriptor``, which ``fetch`` brings when it is read."""
        return SpooledContent(self.directory, descriptor, fetch)


class SpooledContent:
    """A blob that is fetched in a thread, and read from the file that it comes into."""

    def __init__(self, directory: Path, descriptor: Descriptor, fetch: Fetch) -> None:
        self._directory = directory
        self._descriptor = descriptor
        self._fetch = fetch
        self._changed = threading.Condition()
        self._file: _SpoolFile | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._stopped = False
        self._checking = False

    def open(self) -> BinaryIO:
        """Return the bytes from the first on; reading waits for those that have not arrived."""
        with self._changed:
            if self._file is None:
                self._file = _SpoolFile(self._directory, self._descriptor, self._arrived)
                self._checking = self._file.offset > 0
            if self._thread is None or (self._error is not None and not self._thread.is_alive()):
                self._error = None
                self._thread = threading.Thread(target=self._run, args=(self._file,), daemon=True)
                self._thread.start()
        return cast("BinaryIO", _Reader(self, self._file))

    def fetch(self, sink: Ingest, progress: Progress) -> None:
        """Bring the blob into ``sink`` itself, without a file here."""
        self._fetch(sink, progress)

    def _run(self, file: _SpoolFile) -> None:
        try:
            self._fetch(file, self._check)
            if self._checking:
                # The bytes of an earlier attempt are not passed on before they are known to be right.
                right = file.digest(self._descriptor.digest.algorithm) == self._descriptor.digest
                if not right:
                    file.resume(0)
                with self._changed:
                    self._checking = False
                if not right:
                    self._fetch(file, self._check)
        except BaseException as error:  # noqa: BLE001 - raised in the reading thread
            with self._changed:
                self._error = error
        finally:
            with self._changed:
                self._changed.notify_all()

    def _check(self, _: int) -> None:
        if self._stopped:
            raise _StoppedError

    def _arrived(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait(self, file: _SpoolFile, position: int, count: int) -> None:
        """Wait until bytes from ``position`` on are there, or none will come. Raises what the fetch did."""
        enough = min(position + min(count, _WORTH_WAKING), self._descriptor.size)
        with self._changed:
            while (self._checking or file.offset < enough) and self._error is None:
                if self._thread is None or not self._thread.is_alive():
                    break
                self._changed.wait(0.5)
            if (self._checking or file.offset <= position) and self._error is not None:
                raise self._error

    def forget(self) -> None:
        """Remove the bytes."""
        self._end()
        if self._file is None:
            self._file = _SpoolFile.existing(self._directory, self._descriptor, self._arrived)
        if self._file is not None:
            self._file.remove()
            self._file = None

    def close(self) -> None:
        """Stop the fetch, and let go of the file, which stays."""
        self._end()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _end(self) -> None:
        self._stopped = True
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._stopped = False


class _StoppedError(Exception):
    """Raised inside a fetch that no caller waits for."""


class _SpoolFile:
    """A file of the spool as an :class:`Ingest` that is not verified, exclusive to its holder."""

    def __init__(self, directory: Path, descriptor: Descriptor, arrived: Callable[[], None]) -> None:
        make_directory(directory, mode=PRIVATE)
        self._size = descriptor.size
        self._arrived = arrived
        self.path = _path(directory, descriptor.digest)
        opened = _open_alone(self.path, create=True)
        if opened is None:  # another copy is at it: this one keeps to itself
            self.path = self.path.with_name(f"{self.path.name}-{os.urandom(6).hex()}")
            opened = _open_alone(self.path, create=True)
            assert opened is not None  # noqa: S101 - nobody else knows the name
            self._own = True
        else:
            self._own = False
        self._begin(opened)

    def _begin(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.offset = os.fstat(descriptor).st_size
        if self.offset > self._size:
            os.ftruncate(descriptor, 0)
            self.offset = 0

    @classmethod
    def existing(
        cls, directory: Path, descriptor: Descriptor, arrived: Callable[[], None]
    ) -> _SpoolFile | None:
        """Return the file that is there, unless another copy has it open; None without one."""
        opened = _open_alone(_path(directory, descriptor.digest), create=False)
        if opened is None:
            return None
        found = cls.__new__(cls)
        found._size, found._arrived, found._own = descriptor.size, arrived, False
        found.path = _path(directory, descriptor.digest)
        found._begin(opened)
        return found

    def write(self, chunk: Chunk, done: Callable[[], None] | None = None) -> None:
        view = memoryview(chunk).cast("B")
        if self.offset + len(view) > self._size:
            raise SizeMismatch(f"more bytes came than the {self._size} that were declared")
        with storage_errors("write", self.path):
            while view:
                count = os.pwrite(self.descriptor, view, self.offset)
                self.offset += count
                view = view[count:]
        if done is not None:
            done()
        self._arrived()

    def digest(self, algorithm: str | None = None) -> Digest:
        """Return the digest of the bytes that are here."""
        hasher = new_hasher(algorithm := algorithm or "sha256")
        position = 0
        with storage_errors("read", self.path):
            while chunk := os.pread(self.descriptor, _CHUNK, position):
                hasher.update(chunk)
                position += len(chunk)
        return Digest(algorithm, hasher.hexdigest())

    def resume(self, offset: int, known: Digest | None = None) -> None:
        """Go on at ``offset`` bytes, dropping what comes after."""
        with storage_errors("truncate", self.path):
            os.ftruncate(self.descriptor, offset)
        self.offset = offset

    def commit(self, digest: Digest, size: int | None = None) -> None:
        """Nothing to do: who reads the bytes verifies them."""

    def abort(self) -> None:
        """Nothing to do: what arrived stays for another attempt."""

    def remove(self) -> None:
        with storage_errors("remove", self.path):
            self.path.unlink(missing_ok=True)
        self._close()

    def close(self) -> None:
        if self._own:
            self.remove()
        else:
            self._close()

    def _close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _path(directory: Path, digest: Digest) -> Path:
    return directory / f"{digest.algorithm}-{digest.encoded}"


def _open_alone(path: Path, *, create: bool) -> int | None:
    """Return a descriptor of an exclusively opened file; None if another holder has it, or there is
    no file.
    """
    while True:
        with storage_errors("open", path):
            try:
                descriptor = open_regular(path, os.O_RDWR | (os.O_CREAT if create else 0))
            except FileNotFoundError:
                return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        try:
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # it was removed by the one who had it before


class _Reader(io.RawIOBase):
    """The bytes of a spooled blob, as they arrive."""

    def __init__(self, content: SpooledContent, file: _SpoolFile) -> None:
        self._content = content
        self._source = file
        self._position = 0
        self.name = str(file.path)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        self._content.wait(self._source, self._position, len(view))
        left = self._source.offset - self._position
        if left <= 0:
            return 0
        count = os.preadv(self._source.descriptor, [view[:left]], self._position)
        self._position += count
        return count
