"""Advisory locks on files, which exclude other processes of the host and end with the process.

Everything here blocks, and raises as :mod:`digestry.fsio` does.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from digestry.errors import Conflict, StorageError
from digestry.fsio import storage_error, storage_errors

_NO_LOCKS: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOTSUP})


class Lock:
    """A lock that is held."""

    __slots__ = ("_descriptor", "_path")

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def check(self) -> None:
        """Raise :class:`Conflict` if the lock's file was replaced or removed: others are then not excluded.

        A process that opens it by its name then is not excluded.
        """
        if not _has_name(self._descriptor, self._path):
            raise Conflict(
                f"{self._path} was removed or replaced while it was locked: another process may have its"
                " lock too",
                hint="leave the registry's lock files where they are; they are no leftovers",
            )


def _has_name(descriptor: int, path: Path) -> bool:
    with storage_errors("look at", path):
        try:
            return os.path.samestat(os.fstat(descriptor), path.stat())
        except FileNotFoundError:
            return False


@contextlib.contextmanager
def locked(
    path: Path,
    *,
    shared: bool = False,
    wait: bool = True,
    held: str = "",
    mode: int = 0o644,
    beside: Path | None = None,
) -> Iterator[Lock]:
    """Hold an advisory lock (flock) on ``path``, created if necessary, inside the block.

    With ``wait=False`` a lock that is held elsewhere raises :class:`Conflict` with the message ``held``. The
    directory ``beside`` is locked as well, where the file system can: a lock file that is removed while it is
    held excludes no other. The lock ends with the process, so that a killed one leaves nothing behind.
    """
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    held = held or f"{path} is in use by another process"
    with contextlib.ExitStack() as opened:
        while True:
            descriptor = _open_lock(path, mode)
            opened.callback(os.close, descriptor)
            _flock(descriptor, operation, path, held)
            if _has_name(descriptor, path):
                break  # else it was removed while it was waited for
        if beside is not None:
            with storage_errors("open", beside):
                anchor = os.open(beside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, anchor)
            try:
                _flock(anchor, operation, beside, held)
            except StorageError as error:
                cause = error.__cause__
                if not isinstance(cause, OSError) or cause.errno not in _NO_LOCKS:
                    raise
        yield Lock(path, descriptor)


def _open_lock(path: Path, mode: int) -> int:
    with storage_errors("open the lock file", path):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)  # it is there most often
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        except FileExistsError:
            pass
        else:
            if os.geteuid() == 0:  # the owner of the directory must be able to lock it, too
                owner = path.parent.stat()
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            return descriptor
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, mode)
        except PermissionError:
            # Another user made it: to lock it, reading is enough.
            return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _flock(descriptor: int, operation: int, path: Path, held: str) -> None:
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError as error:
        raise Conflict(held) from error
    except OSError as error:
        raise storage_error("lock", path, error) from error


def check_locks(directory: Path) -> None:
    """Raise :class:`StorageError` if locks on files in ``directory`` do not exclude others.

    There are file systems, and ways to mount them, with which two processes get the same lock.
    """
    path = directory / f".lock-probe.{os.urandom(8).hex()}"
    with storage_errors("try locks with", path), contextlib.ExitStack() as opened:
        first = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        opened.callback(os.close, first)
        opened.callback(path.unlink, missing_ok=True)
        second = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        opened.callback(os.close, second)
        for attempt in (_try_flock, _try_range):
            if attempt(first) and attempt(second):
                raise StorageError(
                    f"the locks of the file system of {directory} do not lock: two holders got the same one",
                    hint="keep the registry on a local file system, or mount this one with locks",
                )


def _try_flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _try_range(descriptor: int) -> bool:
    """Take a range lock as SQLite does, but for one descriptor, so that two of one process exclude each
    other."""
    command = getattr(fcntl, "F_OFD_SETLK", None)
    if command is None:
        return False  # not Linux: it cannot be tried
    whole = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # struct flock of 64-bit Linux
    try:
        fcntl.fcntl(descriptor, command, whole)
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EACCES, errno.EINVAL}:
            return False
        raise
    return True
