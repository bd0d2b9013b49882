"""Records of uploads that registries have begun: the next command continues those of a killed one."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Final, Self

from digestry.fsio import open_regular
from digestry.model.digest import Digest

_MAX_AGE: Final = 24 * 3600.0
"""Seconds after which a registry is not asked about an upload any more."""
_LARGEST: Final = 64 << 10


class UploadRecord:
    """The address of one upload, in a file that no other process has open. A context manager that closes it.

    Without a file it is for this process alone. A record only saves time: no failure of its file is raised.
    """

    def __init__(self, path: Path | None = None, descriptor: int = -1, key: str = "") -> None:
        self._path = path
        self._descriptor = descriptor
        self._key = key
        self.location = "" if path is None else self._read()
        """The address; at first the one that an earlier command kept. Empty if there is none."""

    def _read(self) -> str:
        try:
            if time.time() - os.fstat(self._descriptor).st_mtime > _MAX_AGE:
                return ""
            document = json.loads(os.pread(self._descriptor, _LARGEST, 0))
            location = document["location"] if document["blob"] == self._key else ""
        except (OSError, ValueError, RecursionError, KeyError, TypeError):
            return ""
        return location if isinstance(location, str) else ""

    def keep(self, location: str) -> None:
        """Set the address of the upload."""
        if location == self.location:
            return
        self.location = location
        if self._path is None:
            return
        content = json.dumps({"blob": self._key, "location": location}).encode()
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            if len(content) <= _LARGEST:
                os.pwrite(self._descriptor, content, 0)

    def forget(self) -> None:
        """Remove the address: the upload has ended."""
        self.location = ""
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
                self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                if os.fstat(self._descriptor).st_size == 0 and self._path is not None:
                    self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1


def open_record(directory: Path | None, repository: str, digest: Digest) -> UploadRecord:
    """Return the record of the upload of ``digest`` to ``repository`` (``host/name``), alone to the caller.

    It has no file without a ``directory``, where no file can be made, and while another upload of the same
    blob has it. Records that nobody came back for are removed.
    """
    if directory is None:
        return UploadRecord()
    key = f"{repository}@{digest}"
    path = directory / hashlib.sha256(key.encode()).hexdigest()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(directory)
        descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
    except OSError:
        return UploadRecord()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever had it may have removed it meanwhile.
        if os.path.samestat(path.stat(), os.fstat(descriptor)):
            return UploadRecord(path, descriptor, key)
    except OSError:
        pass
    os.close(descriptor)
    return UploadRecord()


def _sweep(directory: Path) -> None:
    with os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > _MAX_AGE:
                    Path(entry.path).unlink()
