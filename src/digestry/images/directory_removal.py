"""Removing trees of any depth and width, without recursion and with two open files.

``shutil.rmtree`` recurses, and paths from a root may be longer than a file system takes.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_directory(parent: int, name: bytes) -> bool:
    """Return whether ``name`` in the open directory ``parent`` is a directory. Raises ``OSError``."""
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def remove(parent: int, name: bytes) -> None:
    """Remove the file or directory ``name`` in the open directory ``parent``, with everything below it;
    symlinks are not followed. A missing one is no error. Raises ``OSError``.

    No other process may move directories of the tree meanwhile.
    """
    try:
        if not is_directory(parent, name):
            os.unlink(name, dir_fd=parent)
            return
    except FileNotFoundError:
        return
    current = _opened(name, parent)
    # Each level's own name, and which of its directories are still to be removed.
    levels = [(name, _directories_alone(current))]
    try:
        while levels:
            _, waiting = levels[-1]
            if waiting:
                inner = waiting.pop()
                following = _opened(inner, current)
                os.close(current)
                current = following
                levels.append((inner, _directories_alone(current)))
                continue
            done, _ = levels.pop()
            above = os.open("..", DIRECTORY_FLAGS, dir_fd=current) if levels else os.dup(parent)
            os.close(current)
            current = above
            os.rmdir(done, dir_fd=current)
    finally:
        os.close(current)


def remove_tree(path: Path) -> None:
    """Remove the directory ``path`` with all that is below it. Raises ``OSError``."""
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove(parent, os.fsencode(path.name))
    finally:
        os.close(parent)


def _opened(name: bytes, parent: int) -> int:
    try:
        return os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
    except PermissionError:
        # A directory without its owner's permissions, as an archive may have it.
        os.chmod(name, 0o700, dir_fd=parent)
        return os.open(name, DIRECTORY_FLAGS, dir_fd=parent)


def _directories_alone(directory: int) -> list[bytes]:
    """Remove all but the directories, whose names are returned."""
    found: list[bytes] = []
    try:
        names = [os.fsencode(name) for name in os.listdir(directory)]
        if names and os.fstat(directory).st_mode & 0o700 != 0o700:
            os.fchmod(directory, 0o700)
    except PermissionError:
        os.fchmod(directory, 0o700)
        names = [os.fsencode(name) for name in os.listdir(directory)]
    for name in names:
        if is_directory(directory, name):
            found.append(name)
        else:
            os.unlink(name, dir_fd=directory)
    return found
