"""SQLite's errors as errors of the registry, in words for its operator."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from digestry.catalog.sqlite.triggers import FROZEN
from digestry.errors import StorageBusy, StorageError, StorageFull
from digestry.fsio import lacks_room

BUSY: Final = "another process has it; try again later"
RESTORE: Final = "restore the catalog from a backup; the blobs beside it are not touched"


def failure(path: Path, error: BaseException, *, hint: str = "") -> StorageError:
    cause = getattr(error, "orig", None) or error
    message = f"the catalog {path} failed: {cause}"
    code = getattr(cause, "sqlite_errorcode", 0)
    if code & 0xFF == sqlite3.SQLITE_IOERR and lacks_room(path.parent):
        code = sqlite3.SQLITE_FULL  # SQLite's "full" covers neither a quota nor its index of the log
    match code & 0xFF:
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            hint = RESTORE
        case sqlite3.SQLITE_FULL:
            hint = "free some space on that file system; what was committed before is safe"
            return StorageFull(message, hint=hint)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StorageBusy(message, hint=BUSY)
        case sqlite3.SQLITE_CONSTRAINT if str(cause) == FROZEN:
            return StorageBusy(message, hint="the administrator of the registry says where it is from now on")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return StorageError(f"cannot write the catalog {path}", hint=_why_not(path, str(cause)))
        case sqlite3.SQLITE_CANTOPEN:
            return StorageError(f"cannot open the catalog {path}", hint=_why_not(path, str(cause)))
        case sqlite3.SQLITE_ERROR if str(cause).startswith(("no such table", "no such column")):
            hint = hint or "it may be of an older digestry: serving it with this one brings it up to date"
    return StorageError(message, hint=hint)


def _why_not(path: Path, cause: str) -> str:
    """Return why this process cannot use the catalog: SQLite has one error for all reasons."""
    root = path.parent
    try:
        if not root.is_dir():
            return f"there is no directory {root}"
        if os.statvfs(root).f_flag & os.ST_RDONLY:
            return f"the file system of {root} is mounted read-only"
        for file in (root, path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            if file.exists() and not os.access(file, os.W_OK):
                owner, own = file.stat().st_uid, os.geteuid()
                if owner != own:
                    return (
                        f"{file} belongs to user {_user(owner)}, this is {_user(own)}: call it as that user"
                    )
                return f"{file} is write-protected (chmod u+w)"
    except OSError as error:
        return f"{root} cannot be looked at: {error.strerror or error}"
    return f"SQLite says: {cause}"


def _user(number: int) -> str:
    import pwd  # noqa: PLC0415 - rarely needed

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


@contextlib.contextmanager
def failures(path: Path) -> Iterator[None]:
    """Turn an error of SQLite's in the block into a :class:`StorageError` about the catalog ``path``."""
    try:
        yield
    except sqlite3.Error as error:
        raise failure(path, error) from error
