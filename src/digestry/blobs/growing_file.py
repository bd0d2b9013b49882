"""A file of content that another process writes, read up to its present end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from digestry.errors import NotFound
from digestry.fsio import open_regular, storage_error
from digestry.model.digest import Digest


class GrowingFile:
    """The open file of an ingest at ``path``, which a commit gives the name ``stored_path(digest)``."""

    def __init__(self, path: Path, stored_path: Callable[[Digest], Path]) -> None:
        self._path = path
        self._stored_path = stored_path
        try:
            self._descriptor = open_regular(path)
        except FileNotFoundError as error:
            raise NotFound(f"{path.name} is not being written") from error
        except OSError as error:
            raise storage_error("open", path, error) from error

    def size(self) -> int:
        """Return how many bytes have arrived."""
        return os.fstat(self._descriptor).st_size

    def read(self, position: int, count: int) -> bytes:
        """Return up to ``count`` of the bytes that have arrived, from ``position`` on."""
        try:
            return os.pread(self._descriptor, count, position)
        except OSError as error:
            raise storage_error("read", self._path, error) from error

    def is_arriving(self) -> bool:
        """Return whether the file of the ingest is still this one."""
        return self._is_at(self._path)

    def is_stored_as(self, digest: Digest) -> bool:
        """Return whether the file of ``digest`` is this one."""
        return self._is_at(self._stored_path(digest))

    def _is_at(self, path: Path) -> bool:
        try:
            return os.path.samestat(path.stat(), os.fstat(self._descriptor))
        except OSError:
            return False

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
