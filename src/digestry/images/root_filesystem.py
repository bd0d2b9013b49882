"""The root file system of an image, made layer by layer from archives that are not trusted.

Every path is walked part by part below the root: a symlink on the way is followed inside it, as
after a chroot, and one that climbs out is refused (image-spec, layer.md, for the whiteouts).
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from digestry.errors import ContentError, TooLarge
from digestry.fsio import storage_errors
from digestry.images import tar_reader
from digestry.images.directory_removal import DIRECTORY_FLAGS as _DIRECTORY_FLAGS
from digestry.images.directory_removal import is_directory, remove
from digestry.images.file_attributes import FileAttributes, SkippedEntries
from digestry.images.tar_reader import TarEntry, TarReader
from digestry.model.digest import shown

DEEPEST: Final = 2048
"""Directories inside of each other: as many as a path of 4096 bytes can name."""
MOST_STEPS: Final = 1 << 26
"""Directories that are opened on the way to the entries of one layer."""
_MOST_LINKS: Final = 40
_WHITEOUT: Final = b".wh."
_OPAQUE: Final = b".wh..wh..opq"
_SPECIAL: Final = {
    tar_reader.CHARACTER_DEVICE: "a character device",
    tar_reader.BLOCK_DEVICE: "a block device",
    tar_reader.FIFO: "a FIFO",
}
_FORMATS: Final = {
    tar_reader.CHARACTER_DEVICE: stat.S_IFCHR,
    tar_reader.BLOCK_DEVICE: stat.S_IFBLK,
    tar_reader.FIFO: stat.S_IFIFO,
}


class _Folder:
    """A directory with entries of a layer; ``mode`` and ``mtime`` if the layer has an entry for it.

    A node of a tree: full paths would take the square of a path's length.
    """

    __slots__ = ("children", "mode", "mtime")

    def __init__(self) -> None:
        self.children: dict[bytes, _Folder | None] = {}
        self.mode: int | None = None
        self.mtime = 0.0

    def inner(self, name: bytes) -> _Folder:
        folder = self.children.get(name)
        if folder is None:
            folder = self.children[name] = _Folder()
        return folder


class RootFilesystem:
    """An open root directory, to which one layer is applied; a context manager.

    With ``same_owner`` files get the archive's owners, all their permissions and extended attributes, and
    devices and FIFOs are made, which root alone may do. Without it those are skipped.
    """

    def __init__(self, root: Path, skipped: SkippedEntries, *, same_owner: bool = False) -> None:
        with storage_errors("open", root):
            self._root = os.open(root, _DIRECTORY_FLAGS)
        self._skipped = skipped
        self.same_owner = same_owner
        self._mine = _Folder()
        self._steps = 0

    def __enter__(self) -> RootFilesystem:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        os.close(self._root)

    def apply(self, entry: TarEntry, reader: TarReader) -> None:
        """Apply one entry of the archive. Raises :class:`ContentError`, and ``OSError``."""
        parts = _parts(entry.name)
        if not parts:
            if entry.kind == tar_reader.DIRECTORY and self.same_owner:
                self._directory_is(self._root, self._mine, entry)
            return
        parent, resolved = self._directory(parts[:-1], make=True)
        name = parts[-1]
        try:
            if name == _OPAQUE:
                self._hide_all(parent, self._known(resolved))
            elif name.startswith(_WHITEOUT):
                hidden = name[len(_WHITEOUT) :]
                if hidden in {b"", b".", b".."}:
                    raise ContentError(f"the archive has a whiteout of {shown(hidden)}")
                remove(parent, hidden)
            else:
                if len(resolved) >= DEEPEST:
                    raise _too_deep(entry.name)
                folder = self._known(resolved)
                self._place(parent, name, folder, entry, reader)
                if entry.kind != tar_reader.DIRECTORY:
                    folder.children[name] = None
        finally:
            os.close(parent)

    def _known(self, path: tuple[bytes, ...]) -> _Folder:
        folder = self._mine
        for part in path:
            folder = folder.inner(part)
        return folder

    def _place(self, parent: int, name: bytes, folder: _Folder, entry: TarEntry, reader: TarReader) -> None:
        if entry.kind == tar_reader.DIRECTORY:
            try:
                found = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if not stat.S_ISDIR(found.st_mode):
                    os.unlink(name, dir_fd=parent)
                    os.mkdir(name, 0o700, dir_fd=parent)
            except FileNotFoundError:
                os.mkdir(name, 0o700, dir_fd=parent)
            descriptor = os.open(name, _DIRECTORY_FLAGS, dir_fd=parent)
            try:
                self._directory_is(descriptor, folder.inner(name), entry)
            finally:
                os.close(descriptor)
            return
        if entry.kind == tar_reader.HARD_LINK:
            self._hard_link(parent, name, entry)
            return
        if entry.kind == tar_reader.SYMLINK:
            if b"\0" in entry.link or not entry.link:
                raise ContentError(
                    f"the archive has {shown(entry.name)}, a symlink to something that is not a path"
                )
            remove(parent, name)
            os.symlink(entry.link, name, dir_fd=parent)
            self._attributes(entry).apply_to_link(parent, name)
            return
        if entry.kind in _SPECIAL:
            self._special(parent, name, entry)
            return
        if entry.kind not in tar_reader.REGULAR:
            raise ContentError(
                f"the archive has {shown(entry.name)}, of the kind {shown(entry.kind)}, which is not unpacked"
            )
        attributes = self._attributes(entry)
        remove(parent, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=parent)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            for chunk in reader.content():
                view = memoryview(chunk)
                while view:
                    view = view[file.write(view) :]
            attributes.hand_over(descriptor, self._skipped)
            attributes.finish(descriptor)

    def _attributes(self, entry: TarEntry) -> FileAttributes:
        return FileAttributes.of(entry, same_owner=self.same_owner)

    def _directory_is(self, descriptor: int, folder: _Folder, entry: TarEntry) -> None:
        """Give an open directory its attributes: mode and time come last, that it can be written to."""
        attributes = self._attributes(entry)
        attributes.hand_over(descriptor, self._skipped)
        folder.mode, folder.mtime = attributes.mode, attributes.mtime

    def _special(self, parent: int, name: bytes, entry: TarEntry) -> None:
        """Make a device or FIFO, if that is requested and allowed; else note that it was skipped."""
        remove(parent, name)
        what = _SPECIAL[entry.kind]
        reason = f"{what}, which root makes for the same owners"
        if self.same_owner:
            try:
                os.mknod(name, _FORMATS[entry.kind] | 0o600, os.makedev(*entry.device), dir_fd=parent)
                self._attributes(entry).apply_to_node(parent, name)
                return
            except (PermissionError, OverflowError, ValueError) as error:
                reason = f"{what}, which cannot be made here: {getattr(error, 'strerror', None) or error}"
                remove(parent, name)
        self._skipped.add_file(entry.name, reason)

    def _hard_link(self, parent: int, name: bytes, entry: TarEntry) -> None:
        target = _parts(entry.link)
        if not target:
            raise ContentError(f"the archive has {shown(entry.name)}, a hard link to nothing")
        directory, _ = self._directory(target[:-1], make=False)
        try:
            found = os.stat(target[-1], dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                raise ContentError(f"the archive has {shown(entry.name)}, a hard link to a directory")
            same_file = os.fstat(parent).st_ino == os.fstat(directory).st_ino and name == target[-1]
            if not same_file:
                remove(parent, name)
                os.link(target[-1], name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError as error:
            if self._skipped.is_missing(entry.link):
                remove(parent, name)
                self._skipped.add_file(entry.name, f"a link to {shown(entry.link)}, which was skipped")
                return
            raise ContentError(
                f"the archive has {shown(entry.name)}, a hard link to {shown(entry.link)}, which is not there"
            ) from error
        finally:
            os.close(directory)

    def _directory(self, parts: tuple[bytes, ...], *, make: bool) -> tuple[int, tuple[bytes, ...]]:
        """Open a directory below the root; symlinks on the way are followed inside the root."""
        waiting = list(reversed(parts))
        current = os.dup(self._root)
        names: list[bytes] = []
        links = 0
        try:
            while waiting:
                self._steps += 1
                if self._steps > MOST_STEPS:
                    raise TooLarge("a layer has too many deep paths", limit=MOST_STEPS)
                part = waiting.pop()
                if part == b"..":
                    if not names:
                        raise ContentError("the archive has a symlink that leads out of the image")
                    names.pop()
                    # The last opened directory is inside of the one before: no other process moves any.
                    current = _instead(current, os.open("..", _DIRECTORY_FLAGS, dir_fd=current))
                    continue
                if len(names) >= DEEPEST:
                    raise _too_deep(b"/".join(parts))
                try:
                    descriptor = os.open(part, _DIRECTORY_FLAGS, dir_fd=current)
                except FileNotFoundError:
                    if not make:
                        raise
                    os.mkdir(part, 0o755, dir_fd=current)
                    descriptor = os.open(part, _DIRECTORY_FLAGS, dir_fd=current)
                except OSError as error:
                    if error.errno not in {errno.ELOOP, errno.ENOTDIR, errno.EMLINK}:
                        raise
                    target = _link_target(part, current)
                    if target is None:
                        raise
                    links += 1
                    if links > _MOST_LINKS:
                        raise ContentError("the archive has symlinks that lead in a circle") from error
                    if target.startswith(b"/"):
                        current = _instead(current, os.dup(self._root))
                        names.clear()
                    waiting += [p for p in reversed(target.split(b"/")) if p not in {b"", b"."}]
                    continue
                current = _instead(current, descriptor)
                names.append(part)
        except BaseException:
            os.close(current)
            raise
        return current, tuple(names)

    def _hide_all(self, directory: int, folder: _Folder) -> None:
        """Apply an opaque whiteout: remove the entries of lower layers here, keep those of this layer."""
        current = os.dup(directory)
        levels = [_hide_here(current, folder)]
        try:
            while levels:
                if levels[-1]:
                    name, inner = levels[-1].pop()
                    current = _instead(current, os.open(name, _DIRECTORY_FLAGS, dir_fd=current))
                    levels.append(_hide_here(current, inner))
                else:
                    levels.pop()
                    if levels:
                        current = _instead(current, os.open("..", _DIRECTORY_FLAGS, dir_fd=current))
        finally:
            os.close(current)

    def finish(self) -> None:
        """Set the directories' modes and times, those inside of others first."""
        current = os.dup(self._root)
        levels = [(self._mine, list(self._mine.children.items()))]
        try:
            while levels:
                folder, waiting = levels[-1]
                if waiting:
                    name, inner = waiting.pop()
                    if inner is not None:
                        try:
                            descriptor = os.open(name, _DIRECTORY_FLAGS, dir_fd=current)
                        except (FileNotFoundError, NotADirectoryError):
                            continue  # a later entry took its place
                        except OSError as error:
                            if error.errno != errno.ELOOP:
                                raise
                            continue
                        current = _instead(current, descriptor)
                        levels.append((inner, list(inner.children.items())))
                    continue
                if folder.mode is not None:
                    # Its owner keeps it usable: the next layer must be able to write there. Root always is.
                    os.fchmod(current, folder.mode if self.same_owner else folder.mode | 0o700)
                    os.utime(current, (folder.mtime, folder.mtime))
                levels.pop()
                if levels:
                    current = _instead(current, os.open("..", _DIRECTORY_FLAGS, dir_fd=current))
        finally:
            os.close(current)


def _instead(before: int, now: int) -> int:
    os.close(before)
    return now


def _hide_here(directory: int, folder: _Folder) -> list[tuple[bytes, _Folder]]:
    """Remove entries that are not the layer's; return the directories with entries of it."""
    inside: list[tuple[bytes, _Folder]] = []
    for text in os.listdir(directory):
        name = os.fsencode(text)
        if name not in folder.children:
            remove(directory, name)
            continue
        inner = folder.children[name]
        if inner is not None and is_directory(directory, name):
            inside.append((name, inner))
    return inside


def _too_deep(name: bytes) -> ContentError:
    return ContentError(
        f"the archive has {shown(name[:100])} and more, which is more than {DEEPEST} directories deep"
    )


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
