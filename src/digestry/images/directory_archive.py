"""The tar archive of a directory's content, reproducibly: the same files make the same bytes.

On any machine and day, for any user and umask, in any order of the file system, with any Python:
entries are sorted by the bytes of their paths; owners are 0:0; every time is the one that is given;
modes are 0755 for directories and what its owner may execute, else 0644 (set-uid bits go);
symlinks are kept, hard links become files, extended attributes are dropped.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from digestry.errors import Conflict, InvalidConfiguration, NotFound
from digestry.fsio import storage_error
from digestry.images import tar_writer

_CHUNK: Final = 1 << 20
_WHITEOUT: Final = b".wh."
_KINDS: Final = (
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISCHR, "a character device"),
)


def write_directory(directory: Path, time: int, write: Callable[[bytes], None]) -> int:
    """Write the archive of what is in ``directory``, and return the number of its entries.

    ``time`` is that of all entries, in seconds since 1970. Raises :class:`NotFound` if it is no directory,
    :class:`InvalidConfiguration` for what an image cannot hold, :class:`Conflict` for a file that changes
    meanwhile, :class:`StorageError` for one that cannot be read.
    """
    root = os.fsencode(directory)
    if not os.path.isdir(root):  # noqa: PTH112 - paths are bytes here: names need not be UTF-8
        raise NotFound(f"{directory} is not a directory")
    names = sorted(_walk(root))
    for name in names:
        _entry(root, name, time, write)
    write(tar_writer.END)
    return len(names)


def _walk(root: bytes) -> Iterator[bytes]:
    """Yield the paths of everything under ``root``, relative to it, in no order."""
    waiting = [b""]
    while waiting:
        current = waiting.pop()
        path = os.path.join(root, current) if current else root  # noqa: PTH118
        try:
            with os.scandir(path) as found:
                entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
        except OSError as error:
            raise storage_error("read the directory", Path(os.fsdecode(path)), error) from error
        for name, is_directory in entries:
            relative = current + b"/" + name if current else name
            if is_directory:
                waiting.append(relative)
            yield relative


def _entry(root: bytes, name: bytes, time: int, write: Callable[[bytes], None]) -> None:
    path = os.path.join(root, name)  # noqa: PTH118
    display = Path(os.fsdecode(path))
    if os.path.basename(name).startswith(_WHITEOUT):  # noqa: PTH119 - as above
        raise InvalidConfiguration(
            f"{display} would delete a file: in a layer, names that begin with .wh. mean that",
            hint="remove it from the directory, or pack a tar archive that has it",
        )
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            target = os.readlink(path)  # noqa: PTH115
            write(tar_writer.header(name, tar_writer.SYMLINK, mode=0o777, size=0, mtime=time, link=target))
        elif stat.S_ISDIR(found.st_mode):
            write(tar_writer.header(name, tar_writer.DIRECTORY, mode=0o755, size=0, mtime=time))
        elif stat.S_ISREG(found.st_mode):
            _file(path, display, name, time, write)
        else:
            what = next(
                (text for test, text in _KINDS if test(found.st_mode)), "no file, directory or symlink"
            )
            raise InvalidConfiguration(
                f"{display} is {what}, which an image cannot hold", hint="remove it from the directory"
            )
    except FileNotFoundError as error:
        raise _changed(display) from error
    except OSError as error:
        raise storage_error("read", display, error) from error


def _file(path: bytes, display: Path, name: bytes, time: int, write: Callable[[bytes], None]) -> None:
    # Without O_NONBLOCK, a FIFO that took the file's place a moment ago would block for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise _changed(display)
        mode = tar_writer.normal_mode(before.st_mode)
        write(tar_writer.header(name, tar_writer.REGULAR, mode=mode, size=before.st_size, mtime=time))
        left = before.st_size
        while left:
            chunk = file.read(min(_CHUNK, left))
            if not chunk:
                raise _changed(display)
            write(chunk)
            left -= len(chunk)
        after = os.fstat(descriptor)
    if (before.st_size, before.st_mtime_ns, before.st_mode) != (
        after.st_size,
        after.st_mtime_ns,
        after.st_mode,
    ):
        raise _changed(display)
    write(tar_writer.padding(before.st_size))


def _changed(path: Path) -> Conflict:
    return Conflict(
        f"{path} changed while it was being read: no image was made",
        hint="stop what writes there, and pack again",
    )
