"""Notes that the processes of one host leave each other: files in the registry's directory."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from digestry.fsio import read_file, storage_errors, write_file

SUFFIX: Final = ".json"


class NoteFiles:
    """The notes in ``directory``, each a file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, name: str) -> bytes | None:
        """Return a note; see :meth:`Notes.read`."""
        path = self._directory / f"{name}{SUFFIX}"
        with storage_errors("read", path):
            try:
                return read_file(path)
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Store a note; see :meth:`Notes.write`."""
        write_file(self._directory / f"{name}{SUFFIX}", content)

    def location(self, name: str) -> str:
        """Return the path of a note's file."""
        return str(self._directory / f"{name}{SUFFIX}")
