"""The attributes of a file in an archive: owner, permissions, time and extended attributes."""

from __future__ import annotations

import errno
import math
import os
from dataclasses import dataclass
from typing import Final

from digestry.errors import ContentError
from digestry.images.tar_reader import TarEntry
from digestry.model.digest import shown

_LARGEST_OWNER: Final = 2**32 - 2  # the next one means "leave it as it is"
_LATEST: Final = 2**33
_NAMED: Final = 1_000
"""So many entries that were skipped are named; the rest is counted."""
_NOT_HERE: Final = frozenset({errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENODATA, errno.EINVAL})
"""Why a file system, or this user, does not take an attribute."""
_ATTRIBUTES: Final = (b"user.", b"security.", b"trusted.")


@dataclass(frozen=True, slots=True)
class SkippedEntry:
    """An entry of an archive, or an attribute of one, that was not unpacked."""

    name: bytes
    reason: str


class SkippedEntries:
    """The entries and attributes that were skipped: the first ones by name, the others by number."""

    def __init__(self) -> None:
        self.named: list[SkippedEntry] = []
        self.count = 0
        self._missing: set[bytes] = set()

    def add(self, name: bytes, reason: str) -> None:
        """Note something of the file ``name``."""
        self.count += 1
        if len(self.named) < _NAMED:
            self.named.append(SkippedEntry(name, reason))

    def add_file(self, name: bytes, reason: str) -> None:
        """Note the file ``name``, which is not there."""
        self.add(name, reason)
        if len(self._missing) < _NAMED:
            self._missing.add(_plain(name))

    def is_missing(self, name: bytes) -> bool:
        """Return whether the file ``name``, which a hard link may ask for, was skipped."""
        return _plain(name) in self._missing


def _plain(name: bytes) -> bytes:
    return b"/".join(part for part in name.split(b"/") if part not in {b"", b"."})


@dataclass(slots=True)
class FileAttributes:
    """The attributes of one file. ``owner`` is None if it stays this process's."""

    name: bytes
    mode: int
    mtime: float
    owner: tuple[int, int] | None
    extended: dict[bytes, bytes]

    @classmethod
    def of(cls, entry: TarEntry, *, same_owner: bool) -> FileAttributes:
        """Return those of an entry; without ``same_owner`` neither owner, set-uid bits nor extended ones.

        Raises :class:`ContentError` for an owner that no system has.
        """
        mtime = entry.mtime if math.isfinite(entry.mtime) and 0 <= entry.mtime < _LATEST else 0.0
        if not same_owner:
            return cls(entry.name, entry.mode & 0o777, mtime, None, {})
        if not (0 <= entry.uid <= _LARGEST_OWNER and 0 <= entry.gid <= _LARGEST_OWNER):
            raise ContentError(f"the archive has {shown(entry.name)}, whose owner is no number of a user")
        return cls(entry.name, entry.mode & 0o7777, mtime, (entry.uid, entry.gid), entry.extended or {})

    def hand_over(self, descriptor: int, skipped: SkippedEntries) -> None:
        """Give owner and extended attributes to an open file or directory. Raises ``OSError``."""
        if self.owner is not None:
            os.fchown(descriptor, *self.owner)  # takes set-uid bits and capabilities away: they come after
        for key, value in self.extended.items():
            self._extend(descriptor, key, value, skipped)

    def finish(self, descriptor: int) -> None:
        """Give permissions and time to an open file. Raises ``OSError``."""
        os.fchmod(descriptor, self.mode)
        os.utime(descriptor, (self.mtime, self.mtime))

    def apply_to_link(self, parent: int, name: bytes) -> None:
        """Give owner and time to a symlink in the open directory ``parent``. Raises ``OSError``."""
        if self.owner is not None:
            os.chown(name, *self.owner, dir_fd=parent, follow_symlinks=False)
        os.utime(name, (self.mtime, self.mtime), dir_fd=parent, follow_symlinks=False)

    def apply_to_node(self, parent: int, name: bytes) -> None:
        """Give owner, permissions and time to a device or FIFO that was made just now. Raises ``OSError``."""
        if self.owner is not None:
            os.chown(name, *self.owner, dir_fd=parent, follow_symlinks=False)
        os.chmod(name, self.mode, dir_fd=parent)
        os.utime(name, (self.mtime, self.mtime), dir_fd=parent, follow_symlinks=False)

    def _extend(self, descriptor: int, key: bytes, value: bytes, skipped: SkippedEntries) -> None:
        if not key.startswith(_ATTRIBUTES):
            skipped.add(self.name, f"its attribute {shown(key)} is of a kind that is not unpacked")
            return
        try:
            os.setxattr(descriptor, key, value)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno not in _NOT_HERE:
                raise
            reason = error.strerror if isinstance(error, OSError) else "it is no name"
            skipped.add(self.name, f"its attribute {shown(key)} cannot be set: {reason}")
