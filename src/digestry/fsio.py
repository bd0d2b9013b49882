"""Durable file writes: temporary file, fsync, rename, fsync of the directory. Nothing else writes durably.

Everything here blocks; the registry calls it from worker threads. An ``OSError`` becomes a
:class:`~digestry.errors.StorageError` that names the file, so that callers have one family to map.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from digestry.errors import StorageError, StorageFull

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

PRIVATE: Final = 0o700
"""The mode of a directory whose content is its owner's alone."""
_SYNC_FILE_RANGE_WRITE: Final = 2  # linux/fs.h
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_PROBE: Final = bytes(64 << 10)
_SIDE_BY_SIDE: Final = 4
"""So many files are synced at a time."""
# Compiled where it is used, which few commands do: that takes longer than the rest of this module.
_TEMPORARY: Final = r"\..+\.[0-9a-f]{16}"


def storage_error(action: str, path: Path, error: OSError) -> StorageError:
    """Return the :class:`StorageError` for an ``OSError`` while doing ``action`` to ``path``."""
    reason = error.strerror or str(error)
    hint = ""
    if error.errno in _NO_ROOM or error.errno == errno.EFBIG:
        hint = "free some space on that file system; nothing that was stored before is lost"
        return StorageFull(f"cannot {action} {path}: {reason}", hint=hint)
    if error.errno == errno.EROFS:
        hint = "that file system is mounted read-only"
    elif error.errno in {errno.EACCES, errno.EPERM}:
        hint = f"check that this user may {'read' if action.startswith('read') else 'write'} there"
    return StorageError(f"cannot {action} {path}: {reason}", hint=hint)


@contextlib.contextmanager
def storage_errors(action: str, path: Path) -> Iterator[None]:
    """Turn an ``OSError`` of the block into a :class:`StorageError` about ``path``."""
    try:
        yield
    except OSError as error:
        raise storage_error(action, path, error) from error


def make_directory(path: Path, *, mode: int = 0o777) -> None:
    """Make ``path`` and its missing parents, durably. ``mode`` is that of ``path`` if it is made now."""
    with storage_errors("create the directory", path):
        missing: list[Path] = []
        probe = path
        while not probe.is_dir():
            missing.append(probe)
            probe = probe.parent
        for directory in reversed(missing):
            directory.mkdir(mode=mode if directory == path else 0o777, exist_ok=True)
            sync_directory(directory.parent)


def sync_directory(path: Path) -> None:
    """fsync a directory, so that renames and new entries in it survive a power loss."""
    with storage_errors("sync the directory", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def publish(temporary: Path, destination: Path, *, descriptor: int | None = None) -> None:
    """Move a finished file to its final name, durably, replacing an existing file.

    ``descriptor``, if the caller still has the file open, saves opening it again.
    Both paths must be on one file system. When this returns, the file's bytes and its name are on
    disk. When it raises, ``destination`` is whole, as it was before or, if only the last step failed,
    with the new bytes: then a power loss may still take them back, so that nothing may rely on them.
    """
    with storage_errors("publish", destination):
        if descriptor is None:
            with temporary.open("rb") as file:
                os.fdatasync(file.fileno())
        else:
            os.fdatasync(descriptor)
        temporary.replace(destination)
        sync_directory(destination.parent)


class NewFile(NamedTuple):
    """A finished file that is still open, and the name that it is to have."""

    descriptor: int
    temporary: Path
    destination: Path


def publish_all(files: Sequence[NewFile]) -> list[StorageError | None]:
    """Move finished files to their final names, as :func:`publish` does; return for each why it failed.

    The files are synced side by side, and each directory once, for all of its files.
    """
    problems: list[StorageError | None] = [None] * len(files)

    def attempt(number: int, step: Callable[[], object]) -> None:
        try:
            with storage_errors("publish", files[number].destination):
                step()
        except StorageError as error:
            problems[number] = error

    def sync(lane: int) -> None:
        for number in range(lane, len(files), _SIDE_BY_SIDE):
            attempt(number, functools.partial(os.fdatasync, files[number].descriptor))

    if len(files) > 1:
        _begin_writing(files)
    # Those that wait at the same time wait for one commit of the file system's journal.
    others = [_sync_threads().submit(sync, lane) for lane in range(1, min(_SIDE_BY_SIDE, len(files)))]
    sync(0)
    for lane in others:
        lane.result()
    directories: dict[Path, list[int]] = {}
    for number, file in enumerate(files):
        if problems[number] is None:
            attempt(number, functools.partial(file.temporary.replace, file.destination))
            directories.setdefault(file.destination.parent, []).append(number)
    for directory, numbers in directories.items():
        try:
            sync_directory(directory)
        except StorageError as error:
            for number in numbers:
                problems[number] = problems[number] or error
    return problems


def _begin_writing(files: Sequence[NewFile]) -> None:
    start = _find_sync_file_range()
    if start is not None:
        for file in files:
            start(file.descriptor, 0, 0)


@functools.cache
def _sync_threads() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - as below

    return ThreadPoolExecutor(2 * (_SIDE_BY_SIDE - 1), thread_name_prefix="sync")


os.register_at_fork(after_in_child=_sync_threads.cache_clear)  # the parent has the threads


class NotRegular(OSError):
    """The name is that of something other than a regular file, such as a pipe or a directory."""


def open_regular(path: Path | str, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Open ``path``, which must be a regular file, or a link to one, and return its descriptor.

    It does not wait for anything else of that name, such as a pipe, but raises :class:`NotRegular`; and
    OSError.
    """
    return open_sized(path, flags, mode)[0]


def open_sized(path: Path | str, flags: int = os.O_RDONLY, mode: int = 0o600) -> tuple[int, int]:
    """Open ``path`` as :func:`open_regular` does, and return its descriptor and its size in bytes."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotRegular(errno.EINVAL, "it is not a regular file", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status.st_size


def read_file(path: Path, limit: int = 1 << 20) -> bytes:
    """Return the content of the regular file ``path``. Raises OSError, also above ``limit`` bytes."""
    with os.fdopen(open_regular(path), "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EINVAL, f"it has more than {limit} bytes", str(path))
    return content


def write_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a small file durably: readers see the old content or the new, never a mixture."""
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        with storage_errors("write", path):
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        publish(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the caller must get the earlier error
            temporary.unlink()
        raise


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a file of any length that becomes ``path``, durably, at the end of the block.

    If the block raises, ``path`` is as it was. A file that was there keeps its mode.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        with storage_errors("write", path):
            with contextlib.suppress(FileNotFoundError):
                mode = path.stat().st_mode & 0o777
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                yield file
        publish(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the caller must get the earlier error
            temporary.unlink()
        raise


def sweep_temporaries(directory: Path, *, older_than: float = 60.0) -> None:
    """Remove the files that a killed :func:`write_file` or :func:`replacing` left in ``directory``.

    Files younger than ``older_than`` seconds stay: somebody may be writing them.
    """
    with storage_errors("list", directory):
        for path in directory.iterdir():
            if re.fullmatch(_TEMPORARY, path.name) and time.time() - path.stat().st_mtime > older_than:
                path.unlink(missing_ok=True)


def lacks_room(directory: Path) -> bool:
    """Return whether a file there could not grow now, because the file system or a quota is full.

    For callers that got a failure without its cause. False if it cannot be tried.
    """
    try:
        descriptor = os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, _PROBE)
            os.fsync(descriptor)  # some file systems report an error only now
        finally:
            os.close(descriptor)
    except OSError as error:
        return error.errno in _NO_ROOM
    except AttributeError:
        return False  # not Linux
    return False


def remove_file(path: Path, *, durable: bool = True) -> bool:
    """Remove ``path``, with ``durable`` so that no power loss brings it back; return False if it did not
    exist."""
    with storage_errors("remove", path):
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        if durable:
            sync_directory(path.parent)
        return True


def move(path: Path, destination: Path) -> None:
    """Rename ``path``, a file of any kind, on the same file system, durably."""
    with storage_errors("move", path):
        path.rename(destination)
    # Should power fail between the two, it has either name or both, and never none.
    sync_directory(destination.parent)
    sync_directory(path.parent)


@functools.cache
def _find_sync_file_range() -> Callable[[int, int, int], None] | None:
    import ctypes  # noqa: PLC0415 - milliseconds that a process that only reads need not wait

    try:
        function = ctypes.CDLL(None, use_errno=True).sync_file_range
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    function.restype = ctypes.c_int

    def start(descriptor: int, offset: int, length: int) -> None:
        # Only advice: a failure here shows again, and is raised, at the fsync.
        function(descriptor, offset, length, _SYNC_FILE_RANGE_WRITE)

    return start


class Writeback:
    """Starts writing a growing file's dirty pages early, so that the fsync at its end is short.

    On Linux this is ``sync_file_range(2)``; elsewhere it does nothing. It promises nothing by
    itself: only :func:`publish` does.
    """

    __slots__ = ("_begun", "_descriptor", "_step")

    def __init__(self, descriptor: int, *, offset: int = 0, step: int = 8 << 20) -> None:
        self._descriptor = descriptor
        self._begun = offset
        self._step = step

    def advance(self, end: int) -> None:
        """Note that the file has been written up to ``end`` (bytes)."""
        if end - self._begun >= self._step:
            start = _find_sync_file_range()
            if start is not None:
                start(self._descriptor, self._begun, end - self._begun)
            self._begun = end
