"""The ``registry-id`` file of a disk store: the ID of the registry that the content belongs to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from digestry.blobs.protocols import StoreMark
from digestry.errors import StorageError
from digestry.fsio import read_file, storage_errors, write_file

NAME: Final = "registry-id"
_CONTENT: Final = re.compile(rb"\s*([0-9a-f]{32})\s+([0-9]{1,18})\s*", re.ASCII)
_LONGEST: Final = 256


def read(path: Path) -> StoreMark | None:
    """Return the mark in the file ``path``; None if there is no file.

    Raises :class:`StorageError`, also if the file is damaged.
    """
    with storage_errors("read", path):
        try:
            return parse(read_file(path, _LONGEST), str(path))
        except FileNotFoundError:
            return None


def parse(content: bytes, location: str) -> StoreMark:
    """Return the mark that ``content``, found at ``location``, says. Raises :class:`StorageError`."""
    found = _CONTENT.fullmatch(content)
    if found is None:
        raise StorageError(
            f"{location} does not say which registry the content is of: it is damaged",
            hint="remove it, and the registry says what to write there; in a bucket, see first that it is the"
            " S3 service that answers at the endpoint",
        )
    return StoreMark(found[1].decode(), int(found[2]))


def encode(mark: StoreMark) -> bytes:
    """Return ``mark`` as such a file has it."""
    return f"{mark.id} {mark.generation}\n".encode()


def write(path: Path, mark: StoreMark) -> None:
    """Write ``mark`` to the file ``path``, durably."""
    write_file(path, encode(mark), mode=0o600)
