"""Verification of a file of content: read whole, at a throttle, from the disk itself."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
from pathlib import Path
from typing import Final

from digestry.blobs.failures import Unreadable
from digestry.blobs.file_errors import BROKEN, NO_FILE
from digestry.blobs.protocols import GONE, Throttle, Verification
from digestry.errors import StorageError
from digestry.fsio import storage_error
from digestry.model.digest import Digest

_NO_FILE: Final = "it is no regular file"

_DIRECT: Final[int] = getattr(os, "O_DIRECT", 0)
_NOWAIT: Final[int] = getattr(os, "RWF_NOWAIT", 0)
_PAGE: Final = mmap.PAGESIZE
_OWN: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.ENOTDIR})

FileRevision = tuple[int, int, int, int]
"""Which file: device, inode, size in bytes, and when it was last written, in nanoseconds."""


def file_revision(path: Path) -> FileRevision | None:
    """Return the revision of the file at ``path``, or of a dangling symlink; None if there is nothing."""
    for follow in (True, False):
        with contextlib.suppress(OSError):
            return _revision(os.stat(path, follow_symlinks=follow))  # noqa: PTH116 - both kinds
    return None


def _revision(status: os.stat_result) -> FileRevision:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def verify_file(
    path: Path, digest: Digest, size: int | None, throttle: Throttle, *, uncached: bool = False
) -> Verification:
    """Read ``path``, which should be the content of ``digest``, ``size`` bytes (None: any number).

    A bad file is read again: the page cache may have been wrong, and not the file. The cache is left as it
    was; with ``uncached`` it drops the file, because the cached copy may be the damaged one. Raises
    :class:`Unreadable`, and :class:`StorageError` if the failure is not one of this file.
    """
    found = _look(path, digest, size, throttle, drop=uncached)
    if found.problem is not None and found.revision is not None:
        found = _look(path, digest, size, throttle, drop=True)
    return found


def _look(path: Path, digest: Digest, size: int | None, throttle: Throttle, *, drop: bool) -> Verification:
    try:
        # Without O_NONBLOCK, a pipe in a file's place would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        if not path.parent.is_dir():
            hint = "is the file system mounted that it is on?"
            raise StorageError(f"{path.parent} is not there", hint=hint) from error
        return Verification(digest, file_revision(path), GONE)
    except OSError as error:
        if error.errno in NO_FILE:
            return Verification(digest, file_revision(path), _NO_FILE)
        return Verification(digest, file_revision(path), _broken("opened", path, error))
    try:
        status = os.fstat(descriptor)
        file = _revision(status)
        if not stat.S_ISREG(status.st_mode):
            return Verification(digest, file, _NO_FILE)
        if size is not None and status.st_size != size:
            return Verification(digest, file, f"it has {status.st_size} bytes, not {size}")
        return Verification(digest, file, _hash(descriptor, digest, status.st_size, throttle, drop=drop))
    except OSError as error:
        return Verification(digest, file_revision(path), _broken("read", path, error))
    finally:
        os.close(descriptor)


def _broken(action: str, path: Path, error: OSError) -> str:
    if error.errno in BROKEN:
        return f"it cannot be {action}: {error.strerror}"
    wrong = storage_error("read", path, error)
    raise (wrong if error.errno in _OWN else Unreadable(wrong.message, hint=wrong.hint)) from error


def _hash(descriptor: int, digest: Digest, size: int, throttle: Throttle, *, drop: bool) -> str | None:
    if drop:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    read = _FromDisk(descriptor)
    hasher = digest.hasher()
    step = min(max(_PAGE, throttle.chunk - throttle.chunk % _PAGE), size + -size % _PAGE)
    view = memoryview(mmap.mmap(-1, max(_PAGE, step)))
    position = 0
    while position < size:
        wanted = min(step, size - position)
        throttle.take(wanted)
        count = min(wanted, read(view, wanted, position))
        if not count:
            break
        hasher.update(view[:count])
        position += count
    found = hasher.hexdigest()
    return None if found == digest.encoded else f"its bytes hash to {digest.algorithm}:{found}"


class _FromDisk:
    """Reads a file as the disk has it (``O_DIRECT``): the page cache may have had a good copy for months
    while the disk's is lost. The cache is neither read nor filled.

    Where the file system does not support that, the cache is used.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        self._direct = False
        if _DIRECT:
            with contextlib.suppress(OSError):
                fcntl.fcntl(descriptor, fcntl.F_SETFL, self._flags | _DIRECT)
                self._direct = True
        if not self._direct:
            self._prepare()

    def _prepare(self) -> None:
        # No read-ahead: the page cache is for requested content, and not for the next part of this read.
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def __call__(self, view: memoryview, count: int, position: int) -> int:
        """Read ``count`` bytes at ``position`` into ``view``, of whole pages, and return how many: 0 at the
        end, and perhaps too many before it."""
        if self._direct:
            try:
                return os.preadv(self._descriptor, [view[: count + -count % _PAGE]], position)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
            # The file system accepted the flag, and does not support it; or the last read was shorter than
            # whole pages.
            self._direct = False
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, self._flags)
            self._prepare()
        view = view[:count]
        found = _from_memory(self._descriptor, view, position)
        if found < count:
            more = os.preadv(self._descriptor, [view[found:]], position + found)
            os.posix_fadvise(self._descriptor, position + found, more, os.POSIX_FADV_DONTNEED)
            found += more
        return found


def _from_memory(descriptor: int, view: memoryview, position: int) -> int:
    try:
        return os.preadv(descriptor, [view], position, _NOWAIT) if _NOWAIT else 0
    except OSError:
        return 0  # the disk would have to be waited for; or the file system does not have this
