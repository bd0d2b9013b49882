"""The keys that a registry signs with: files, named by the keys' IDs.

A file is written once, readable by its owner alone, and never changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from digestry.errors import NotFound, StorageError
from digestry.fsio import make_directory, read_file, remove_file, storage_errors, write_file

DIRECTORY: Final = "keys"
"""The directory of the root that holds the files."""
SUFFIX: Final = ".json"


class KeyFiles:
    """The keys in ``directory``. Nothing is touched before a method is called."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def version(self) -> int:
        """Return when a key was last added or removed, in nanoseconds; see :meth:`KeyStore.version`."""
        with storage_errors("read", self._directory):
            return self._directory.stat().st_mtime_ns

    def ids(self) -> list[str]:
        """Return the IDs of all keys, sorted; see :meth:`KeyStore.ids`."""
        with storage_errors("read", self._directory):
            if not self._directory.is_dir():
                return []
            names = [path.name for path in self._directory.iterdir()]
        return sorted(
            name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX) and not name.startswith(".")
        )

    def read(self, key_id: str) -> bytes:
        """Return the bytes of a key; see :meth:`KeyStore.read`."""
        with self._reading(key_id) as file:
            return read_file(file)

    def check_private(self, key_id: str) -> None:
        """Raise :class:`StorageError` if others can read a key; see :meth:`KeyStore.check_private`."""
        with self._reading(key_id) as file:
            mode = file.stat().st_mode
        if mode & 0o077:
            raise StorageError(
                f"{file} can be read by others", hint=f"make a new key if it was; chmod 600 {file}"
            )

    def add(self, key_id: str, content: bytes) -> None:
        """Store a key durably; see :meth:`KeyStore.add`."""
        make_directory(self._directory)
        with storage_errors("protect", self._directory):
            self._directory.chmod(0o700)
        write_file(self._file(key_id), content, mode=0o600)

    def remove(self, key_id: str) -> None:
        """Remove a key durably; see :meth:`KeyStore.remove`."""
        remove_file(self._file(key_id))

    def location(self, key_id: str) -> str:
        """Return the path of a key's file."""
        return str(self._file(key_id))

    @contextlib.contextmanager
    def _reading(self, key_id: str) -> Iterator[Path]:
        file = self._file(key_id)
        try:
            yield file
        except FileNotFoundError as error:
            raise NotFound(f"{file} is not there") from error
        except OSError as error:
            raise StorageError(f"cannot read the key {file}: {error.strerror}") from error

    def _file(self, key_id: str) -> Path:
        return self._directory / f"{key_id}{SUFFIX}"
