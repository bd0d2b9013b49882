"""What a disk may hold after the power went, in the worst case that POSIX allows.

A model of what :mod:`digestry.fsio` relies on: a file's bytes are on disk after its fsync or
fdatasync, and a name after the fsync of its directory; all else is or is not, in any mixture. Five
mixtures are made, each the worst of its kind. SQLite is trusted with its own files: they are taken
as they were at the last COMMIT that waited for the disk, or in one mixture at the last of all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.faults.steps import Step

_DATABASE: Final = ("catalog.db", "catalog.db-wal")
_NOT_KEPT: Final = ("catalog.db-shm",)

Image = Mapping[str, bytes | None]
"""The files of a root by their relative path; None for a directory."""

MIXTURES: Final = (
    "nothing but what was synced",
    "names, but not the bytes",
    "names and lengths, but zeros for the bytes",
    "removals, but not what was made",
    "nothing but what was synced, and commits that did not wait",
)


class Disk:
    """Follows a root's durable state, step by step. Everything counts as synced at the start."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._bytes: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}
        self._directories: dict[int, Path] = {}
        # Held open: closing one would end the locks that SQLite has in this process (fcntl(2)).
        self._open: dict[str, int] = {}
        self._database: dict[str, bytes] = {}
        self._unsynced_database: dict[str, bytes] = {}
        for directory, _, files in os.walk(root):
            self._sync_directory(Path(directory))
            for name in files:
                if name not in (*_DATABASE, *_NOT_KEPT):
                    path = Path(directory, name)
                    self._bytes[path.stat().st_ino] = path.read_bytes()
        self._sync_database()

    def after(self, step: Step) -> None:
        """Takes note of a step that was just done."""
        if step.call == "commit":
            self._sync_database()
        elif step.call == "volatile-commit":
            self._unsynced_database = self._read_database()
        elif step.creates:
            self._bytes.pop(step.path.stat().st_ino, None)  # a number that a removed file had
        elif step.call in {"fsync", "fdatasync"}:
            if step.path.is_dir():
                self._sync_directory(step.path)
            else:
                self._bytes[step.path.stat().st_ino] = step.path.read_bytes()
        elif step.call == "mkdir":
            self._names.setdefault(step.path, {})

    def _sync_directory(self, path: Path) -> None:
        names = {}
        for entry in os.scandir(path):
            names[entry.name] = entry.inode()
            if entry.is_dir():
                self._directories[entry.inode()] = Path(entry.path)
                self._names.setdefault(Path(entry.path), {})
        self._names[path] = names

    def _sync_database(self) -> None:
        self._database = self._unsynced_database = self._read_database()

    def _read_database(self) -> dict[str, bytes]:
        found = {}
        for name in _DATABASE:
            if name not in self._open:
                try:
                    self._open[name] = os.open(self._root / name, os.O_RDONLY)
                except FileNotFoundError:
                    continue
            descriptor = self._open[name]
            found[name] = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        return found

    def images(self) -> Iterator[tuple[str, Image]]:
        """What may be found when the power comes back now, and which mixture that is."""
        for mixture in MIXTURES:
            unsynced = mixture == MIXTURES[4]
            image: dict[str, bytes | None] = dict(self._unsynced_database if unsynced else self._database)
            self._add(self._root, mixture, image)
            yield mixture, image

    def _add(self, directory: Path, mixture: str, image: dict[str, bytes | None]) -> None:
        present = {entry.name: entry.inode() for entry in os.scandir(directory)} if directory.is_dir() else {}
        synced = self._names.get(directory, {})
        if mixture in {MIXTURES[0], MIXTURES[4]}:
            names = synced
        elif mixture == MIXTURES[3]:
            names = {name: inode for name, inode in synced.items() if name in present}
        else:
            names = present
        for name, inode in names.items():
            path = directory / name
            if name in (*_DATABASE, *_NOT_KEPT):
                continue
            if self._directories.get(inode) == path or (path.is_dir() and present.get(name) == inode):
                image[str(path.relative_to(self._root))] = None
                self._add(path, mixture, image)
                continue
            content = self._bytes.get(inode, b"")
            if mixture == MIXTURES[2] and present.get(name) == inode:
                content = content.ljust(path.stat().st_size, b"\0")
            image[str(path.relative_to(self._root))] = content


def restore(image: Image, root: Path) -> None:
    """Puts the files of an image into an empty directory."""
    root.mkdir()
    for name, content in image.items():
        path = root / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
