"""The file system below a root that is being made, layer by layer, from archives of strangers.

Every path is walked part by part below the root: a symlink on the way is followed inside it, as
after a chroot, and one that climbs out is refused (image-spec, layer.md, for the whiteouts).
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import stat
from pathlib import Path
from typing import Final

from digestry.errors import ContentError
from digestry.fsio import storage_errors
from digestry.images import untar
from digestry.images.untar import TarEntry, TarReader
from digestry.model.digest import shown

_MOST_LINKS: Final = 40
_WHITEOUT: Final = b".wh."
_OPAQUE: Final = b".wh..wh..opq"
_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Tree:
    """An open root directory; a context manager."""

    def __init__(self, root: Path) -> None:
        with storage_errors("open", root):
            self._root = os.open(root, _DIRECTORY_FLAGS)
        self._mine: set[tuple[bytes, ...]] = set()
        self._times: list[tuple[tuple[bytes, ...], int, float]] = []

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        os.close(self._root)

    def apply(self, entry: TarEntry, reader: TarReader) -> None:
        """Carries out one entry. Raises :class:`ContentError`, and ``OSError``."""
        parts = _parts(entry.name)
        if not parts:
            return  # the root itself
        parent, resolved = self._directory(parts[:-1], make=True)
        name = parts[-1]
        try:
            if name == _OPAQUE:
                self._hide_all(parent, resolved)
            elif name.startswith(_WHITEOUT):
                hidden = name[len(_WHITEOUT) :]
                if hidden in {b"", b".", b".."}:
                    raise ContentError(f"the archive has a whiteout of {shown(hidden)}")
                _remove(parent, hidden)
            else:
                self._place(parent, name, resolved, entry, reader)
                for depth in range(len(resolved) + 1):
                    self._mine.add((*resolved, name)[: depth + 1])
        finally:
            os.close(parent)

    def _place(
        self, parent: int, name: bytes, resolved: tuple[bytes, ...], entry: TarEntry, reader: TarReader
    ) -> None:
        mode = entry.mode & 0o777
        mtime = entry.mtime if math.isfinite(entry.mtime) and 0 <= entry.mtime < 2**33 else 0.0
        if entry.kind == untar.DIRECTORY:
            try:
                found = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if not stat.S_ISDIR(found.st_mode):
                    os.unlink(name, dir_fd=parent)
                    os.mkdir(name, 0o700, dir_fd=parent)
            except FileNotFoundError:
                os.mkdir(name, 0o700, dir_fd=parent)
            # Its mode and time come last: it must stay writable for what is put into it.
            self._times.append(((*resolved, name), mode, mtime))
            return
        if entry.kind == untar.HARD_LINK:
            self._hard_link(parent, name, entry)
            return
        if entry.kind == untar.SYMLINK:
            _remove(parent, name)
            os.symlink(entry.link, name, dir_fd=parent)
            os.utime(name, (mtime, mtime), dir_fd=parent, follow_symlinks=False)
            return
        if entry.kind not in untar.REGULAR:
            raise ContentError(
                f"the archive has {shown(entry.name)}, a device, FIFO or other special file (type "
                f"{shown(entry.kind)}), which is not unpacked"
            )
        _remove(parent, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=parent)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            for chunk in reader.content():
                view = memoryview(chunk)
                while view:
                    view = view[file.write(view) :]
            os.fchmod(descriptor, mode)
            os.utime(descriptor, (mtime, mtime))

    def _hard_link(self, parent: int, name: bytes, entry: TarEntry) -> None:
        target = _parts(entry.link)
        if not target:
            raise ContentError(f"the archive has {shown(entry.name)}, a hard link to nothing")
        directory, _ = self._directory(target[:-1], make=False)
        try:
            found = os.stat(target[-1], dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                raise ContentError(f"the archive has {shown(entry.name)}, a hard link to a directory")
            same = os.fstat(parent).st_ino == os.fstat(directory).st_ino and name == target[-1]
            if not same:
                _remove(parent, name)
                os.link(target[-1], name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError as error:
            raise ContentError(
                f"the archive has {shown(entry.name)}, a hard link to {shown(entry.link)}, which is not there"
            ) from error
        finally:
            os.close(directory)

    def _directory(self, parts: tuple[bytes, ...], *, make: bool) -> tuple[int, tuple[bytes, ...]]:
        """Opens a directory below the root; symlinks on the way are followed inside the root."""
        waiting = list(reversed(parts))
        stack: list[int] = [os.dup(self._root)]
        names: list[bytes] = []
        links = 0
        try:
            while waiting:
                part = waiting.pop()
                if part == b"..":
                    if not names:
                        raise ContentError("the archive has a symlink that leads out of the image")
                    names.pop()
                    os.close(stack.pop())
                    continue
                try:
                    descriptor = os.open(part, _DIRECTORY_FLAGS, dir_fd=stack[-1])
                except FileNotFoundError:
                    if not make:
                        raise
                    os.mkdir(part, 0o755, dir_fd=stack[-1])
                    descriptor = os.open(part, _DIRECTORY_FLAGS, dir_fd=stack[-1])
                except OSError as error:
                    if error.errno not in {errno.ELOOP, errno.ENOTDIR, errno.EMLINK}:
                        raise
                    target = _link_target(part, stack[-1])
                    if target is None:
                        raise
                    links += 1
                    if links > _MOST_LINKS:
                        raise ContentError("the archive has symlinks that lead in a circle") from error
                    if target.startswith(b"/"):
                        while len(stack) > 1:
                            os.close(stack.pop())
                        names.clear()
                    waiting += [p for p in reversed(target.split(b"/")) if p not in {b"", b"."}]
                    continue
                stack.append(descriptor)
                names.append(part)
            return stack.pop(), tuple(names)
        finally:
            for descriptor in stack:
                os.close(descriptor)

    def _hide_all(self, directory: int, resolved: tuple[bytes, ...]) -> None:
        """An opaque whiteout: what lower layers have here goes, what this layer brought stays."""
        for name in os.listdir(directory):
            encoded = os.fsencode(name)
            path = (*resolved, encoded)
            if path not in self._mine:
                _remove(directory, encoded)
            elif _is_directory(directory, encoded):
                child = os.open(encoded, _DIRECTORY_FLAGS, dir_fd=directory)
                try:
                    self._hide_all(child, path)
                finally:
                    os.close(child)

    def finish(self) -> None:
        """Gives the directories their modes and times, the deepest first."""
        for path, mode, mtime in sorted(self._times, key=lambda item: -len(item[0])):
            try:
                descriptor, _ = self._directory(path, make=False)
            except (FileNotFoundError, NotADirectoryError):
                continue  # a later entry took its place
            try:
                # Its owner keeps it usable: the next layer must be able to write there.
                os.fchmod(descriptor, mode | 0o700)
                os.utime(descriptor, (mtime, mtime))
            finally:
                os.close(descriptor)


def _parts(name: bytes) -> tuple[bytes, ...]:
    parts = tuple(part for part in name.split(b"/") if part not in {b"", b"."})
    if b".." in parts:
        raise ContentError(f"the archive has the path {shown(name)}, which leads out of the image")
    if b"\0" in name:
        raise ContentError(f"the archive has the path {shown(name)}, which is no path")
    return parts


def _link_target(name: bytes, directory: int) -> bytes | None:
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError:
        return None


def _is_directory(parent: int, name: bytes) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def _remove(parent: int, name: bytes) -> None:
    """Removes whatever has this name; symlinks are not followed."""
    try:
        is_directory = _is_directory(parent, name)
    except FileNotFoundError:
        return
    if is_directory:
        shutil.rmtree(name, dir_fd=parent)
    else:
        os.unlink(name, dir_fd=parent)
