"""Is a file still the content that its name says? Read whole, at a pace, past the page cache."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from digestry.errors import StorageError
from digestry.fsio import storage_error
from digestry.model.digest import Digest

GONE: Final = "its file is gone"

_NOWAIT: Final[int] = getattr(os, "RWF_NOWAIT", 0)
_BROKEN: Final = frozenset(
    # What a disk or a file system answers for bytes that it cannot give any more, and what a name
    # answers that is no file. Anything else, such as too many open files or a permission, says
    # nothing about the content.
    {errno.EIO, errno.EILSEQ, errno.EBADMSG, errno.ENODATA, errno.EUCLEAN, errno.EISDIR, errno.ELOOP}
)
_OWN: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.ENOTDIR})

Identity = tuple[int, int, int, int]
"""Which file: device, inode, size in bytes, and when it was last written, in nanoseconds."""


class Unreadable(StorageError):
    """One file that cannot be looked at now; whether its content is whole is not known."""


class Pace(Protocol):
    """How fast a file is read."""

    @property
    def chunk(self) -> int:
        """Bytes that are read at once."""
        ...

    def take(self, count: int) -> None:
        """Waits until so many bytes may be read. May raise, to end the reading."""
        ...


class FullSpeed:
    """Never waits."""

    chunk: Final = 1 << 20

    def take(self, count: int) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look at some content came to. ``file`` is None if there is none; ``problem`` is None if
    the content is whole."""

    digest: Digest
    file: Identity | None
    problem: str | None


def tells_damage(error: StorageError) -> bool:
    """Whether the failure of an operation on a file is its content's: not the process's or a person's."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in _BROKEN


def identity(path: Path) -> Identity | None:
    """Which file ``path`` is now; of a symbolic link that leads nowhere, the link. None: nothing."""
    for follow in (True, False):
        with contextlib.suppress(OSError):
            return _identity(os.stat(path, follow_symlinks=follow))  # noqa: PTH116 - both kinds
    return None


def _identity(status: os.stat_result) -> Identity:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def examine(path: Path, digest: Digest, size: int | None, pace: Pace) -> Finding:
    """Reads ``path``, which should be the content of ``digest``, ``size`` bytes (None: any number).

    What is found bad is read again, from the disk itself: memory may have been wrong, and not the file.
    What was not in the page cache before is not there after it either. Raises :class:`Unreadable`,
    and :class:`StorageError` if it is not this file that is in trouble.
    """
    found = _look(path, digest, size, pace, drop=False)
    if found.problem is not None and found.file is not None:
        found = _look(path, digest, size, pace, drop=True)
    return found


def _look(path: Path, digest: Digest, size: int | None, pace: Pace, *, drop: bool) -> Finding:
    try:
        # Without O_NONBLOCK, a pipe in a file's place would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        if not path.parent.is_dir():
            hint = "is the file system mounted that it is on?"
            raise StorageError(f"{path.parent} is not there", hint=hint) from error
        return Finding(digest, identity(path), GONE)
    except OSError as error:
        return Finding(digest, identity(path), _broken("opened", path, error))
    try:
        status = os.fstat(descriptor)
        file = _identity(status)
        if not stat.S_ISREG(status.st_mode):
            return Finding(digest, file, "it is no regular file")
        if size is not None and status.st_size != size:
            return Finding(digest, file, f"it has {status.st_size} bytes, not {size}")
        return Finding(digest, file, _hash(descriptor, digest, status.st_size, pace, drop=drop))
    except OSError as error:
        return Finding(digest, identity(path), _broken("read", path, error))
    finally:
        os.close(descriptor)


def _broken(action: str, path: Path, error: OSError) -> str:
    if error.errno in _BROKEN:
        return f"it cannot be {action}: {error.strerror}"
    wrong = storage_error("read", path, error)
    raise (wrong if error.errno in _OWN else Unreadable(wrong.message, hint=wrong.hint)) from error


def _hash(descriptor: int, digest: Digest, size: int, pace: Pace, *, drop: bool) -> str | None:
    if drop:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    # No reading ahead: what is in memory is to be what somebody wanted, and not our next part.
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    hasher = digest.hasher()
    view = memoryview(bytearray(min(size, pace.chunk)))
    position = 0
    while position < size:
        part = view[: size - position]
        pace.take(len(part))
        count = _from_memory(descriptor, part, position)
        if count < len(part):
            more = os.preadv(descriptor, [part[count:]], position + count)
            os.posix_fadvise(descriptor, position + count, more, os.POSIX_FADV_DONTNEED)
            count += more
        if not count:
            break
        hasher.update(part[:count])
        position += count
    found = hasher.hexdigest()
    return None if found == digest.encoded else f"its bytes hash to {digest.algorithm}:{found}"


def _from_memory(descriptor: int, view: memoryview, position: int) -> int:
    try:
        return os.preadv(descriptor, [view], position, _NOWAIT) if _NOWAIT else 0
    except OSError:
        return 0  # the disk would have to be waited for; or the file system does not have this
