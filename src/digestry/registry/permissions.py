"""File permissions of the root: for its owner alone or, with ``group-access``, readable by its group.

With ``group-access`` the root's group may read it, but for keys and locks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from digestry.coordination import key_files

log: Final = logging.getLogger("digestry.registry")

_NEVER_SHARED: Final = frozenset({"guards", "ingest", "tls", "restoring", key_files.DIRECTORY})
_CONTENT: Final = frozenset({"sha256", "sha512"})
_OURS: Final = re.compile(
    r"absent|blobs|guards|ingest|keys|metrics|mirror|quarantine|restoring|tls"
    r"|oci-layout|reserve|kept\.json|backup\.json|log-head\.json|audit.*|catalog.*\.db.*|[a-z]+\.lock|\..+\.[0-9a-f]{16}"
)
"""The files and directories at the top of a root or of a backup. Others there are not the registry's."""
_NOT_FOREIGN: Final = frozenset({"lost+found"})


@contextlib.contextmanager
def umask(*, group: bool) -> Iterator[None]:
    """Let this process make files for their owner alone, or for the group, too, until the block ends."""
    before = os.umask(0o027 if group else 0o077)
    try:
        yield
    finally:
        os.umask(before)


def is_shared(root: Path) -> bool:
    """Return whether the group of ``root`` may read it, and others may not."""
    try:
        return root.stat().st_mode & 0o044 == stat.S_IRGRP
    except OSError:
        return False


def make_private(root: Path, *, group: bool = False) -> int:
    """Remove the access of others, and of the group unless it may read, to ``root`` and what is in it.

    Returns how many files and directories were changed. Files in the root that are not the registry's stay as
    they are; then users who could list the root itself still can. Symbolic links are not followed, and files
    of another user stay as they are; both are logged where they give access.
    """
    work = _Work()
    try:
        found = root.stat()
        if found.st_mode & stat.S_ISVTX:
            log.warning("%s is a directory for everybody: other users see what is in it", root)
            return 0
        with os.scandir(root) as entries:
            names = {entry.name for entry in entries if not entry.is_symlink()}
        foreign = sorted(name for name in names - _NOT_FOREIGN if not _OURS.fullmatch(name))
        if foreign and found.st_mode & 0o077:
            log.warning(
                "%s has more in it than a registry (%s): users who could list it still can, only its owner "
                "writes; give the registry a directory of its own",
                root,
                foreign[0],
            )
            work.change(root, found, wanted=found.st_mode & ~0o022)
        else:
            work.change(root, found, wanted=_wanted(found.st_mode, group=group))
        _walk(root, work, group=group)
    except OSError as error:
        log.warning("other users may see what is in %s: %s", root, error.strerror or error)
    if work.changed:
        log.warning(
            "the modes of %d files and directories under %s let others in, or kept its group out: changed%s",
            work.changed,
            root,
            "" if group else " (a registry's group may read with group-access = true)",
        )
    if work.of_others:
        path, owner = work.of_others[0]
        log.warning(
            "other users may see %s: it belongs to the user %d%s",
            path,
            owner,
            f"; so do {len(work.of_others) - 1} more" if len(work.of_others) > 1 else "",
        )
    return work.changed


class _Work:
    """The files that were changed so far, and those that could not be."""

    def __init__(self) -> None:
        self.changed = 0
        self.of_others: list[tuple[Path, int]] = []

    def change(self, path: Path, found: os.stat_result, *, wanted: int) -> None:
        if wanted == found.st_mode:
            return
        try:
            path.chmod(stat.S_IMODE(wanted))
        except FileNotFoundError:
            return
        except PermissionError:
            self.of_others.append((path, found.st_uid))
            return
        self.changed += 1


def _walk(root: Path, work: _Work, *, group: bool) -> None:
    waiting = [(root, group)]
    after: list[tuple[Path, os.stat_result, bool]] = []
    while waiting:
        directory, shared = waiting.pop()
        with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
            for entry in entries:
                if directory == root and not _OURS.fullmatch(entry.name):
                    continue
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                path = Path(entry.path)
                if stat.S_ISLNK(found.st_mode):
                    if directory == root:
                        log.warning("%s is a symbolic link: its target is not made private", path)
                elif not stat.S_ISDIR(found.st_mode):
                    readable = shared and not entry.name.endswith(".lock")
                    work.change(path, found, wanted=_wanted(found.st_mode, group=readable))
                else:
                    mine = shared and entry.name not in _NEVER_SHARED
                    # There may be millions in it: they were changed before it was.
                    if entry.name not in _CONTENT or _wanted(found.st_mode, group=mine) != found.st_mode:
                        waiting.append((path, mine))
                    after.append((path, found, mine))
    # A directory is changed after its entries, so that an interrupted walk starts again.
    for path, found, mine in reversed(after):
        work.change(path, found, wanted=_wanted(found.st_mode, group=mine))


def _wanted(mode: int, *, group: bool) -> int:
    readable = (mode & (stat.S_IRUSR | stat.S_IXUSR)) >> 3 if group else 0
    return (mode & ~0o077) | readable
