"""Files that a copy needs for itself, in a directory that may be lost."""

from __future__ import annotations

import os
from pathlib import Path

from digestry.fsio import PRIVATE, make_directory, storage_errors


def new_scratch_file(directory: Path, purpose: str) -> Path:
    """Return the path of a new, empty file of ``directory``, readable to its user alone.

    Raises :class:`StorageError`. The spool's sweep removes one that a killed process left.
    """
    make_directory(directory, mode=PRIVATE)
    path = directory / f"{purpose}-{os.urandom(8).hex()}"
    with storage_errors("create", path):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return path
