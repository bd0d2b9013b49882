"""The root is its owner's alone, and what is in it: private content, keys, and locks that others could hold.

With ``group-access`` the root's group may read it, but for keys and locks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from pathlib import Path
from typing import Final

from digestry.registry.access import keys

log: Final = logging.getLogger("digestry.registry")

_NEVER_SHARED: Final = frozenset({"guards", "ingest", "tls", "restoring", keys.DIRECTORY})
_CONTENT: Final = frozenset({"sha256", "sha512"})


def set_umask(root: Path) -> None:
    """Let this process make files that nobody can read who cannot read ``root``."""
    os.umask(umask(group=is_shared(root)))


def umask(*, group: bool) -> int:
    """The mask for new files: for their owner alone, or for the group, too."""
    return 0o027 if group else 0o077


def is_shared(root: Path) -> bool:
    """Return whether the group of ``root`` may read it, and others may not."""
    try:
        return root.stat().st_mode & 0o044 == stat.S_IRGRP
    except OSError:
        return False


def make_private(root: Path, *, group: bool = False) -> int:
    """Take from others, and from the group unless it may read, the access to ``root`` and all that is in it.

    Returns how many files and directories were changed. Symbolic links are not followed, and what belongs to
    another user stays as it is; both are logged where they are a way in.
    """
    try:
        found = root.stat()
        if found.st_mode & stat.S_ISVTX:
            log.warning("%s is a directory for everybody: other users see what is in it", root)
            return 0
        changed = _change(root, found, group=group)
        changed += _walk(root, group=group)
    except OSError as error:
        log.warning("other users may see what is in %s: %s", root, error.strerror or error)
        return 0
    if changed:
        log.warning(
            "the modes of %d files and directories under %s let others in, or kept its group out: changed",
            changed,
            root,
        )
    return changed


def _walk(root: Path, *, group: bool) -> int:
    changed = 0
    waiting = [(root, group)]
    after: list[tuple[Path, os.stat_result, bool]] = []
    while waiting:
        directory, shared = waiting.pop()
        with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                path = Path(entry.path)
                if stat.S_ISLNK(found.st_mode):
                    if directory == root:
                        log.warning("%s is a symbolic link: what it leads to is not made private", path)
                elif not stat.S_ISDIR(found.st_mode):
                    changed += _change(path, found, group=shared and not entry.name.endswith(".lock"))
                else:
                    mine = shared and entry.name not in _NEVER_SHARED
                    # There may be millions in it: they were changed before it was.
                    if entry.name not in _CONTENT or _wanted(found.st_mode, group=mine) != found.st_mode:
                        waiting.append((path, mine))
                    after.append((path, found, mine))
    # A directory comes after what is in it, so that a walk that was broken off is begun again.
    return changed + sum(_change(path, found, group=mine) for path, found, mine in reversed(after))


def _change(path: Path, found: os.stat_result, *, group: bool) -> int:
    wanted = _wanted(found.st_mode, group=group)
    if wanted == found.st_mode:
        return 0
    try:
        path.chmod(stat.S_IMODE(wanted))
    except FileNotFoundError:
        return 0
    except PermissionError:
        log.warning("other users may see %s: it belongs to the user %d", path, found.st_uid)
        return 0
    return 1


def _wanted(mode: int, *, group: bool) -> int:
    readable = (mode & (stat.S_IRUSR | stat.S_IXUSR)) >> 3 if group else 0
    return (mode & ~0o077) | readable
