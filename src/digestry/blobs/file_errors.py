"""The classification of file errors: damaged content, or a failure of the disk."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

from digestry.blobs.failures import BytesLost
from digestry.errors import StorageError
from digestry.fsio import storage_error

NO_FILE: Final = frozenset({errno.ENXIO, errno.ENODEV})
"""How the kernel refuses to open a socket, or a device that does not exist."""

BROKEN: Final = frozenset(
    # The errors of a disk or a file system for bytes that it can no longer read, and of a name answers that
    # is no file. Anything else, such as too many open files or a permission, says nothing about the content.
    {errno.EIO, errno.EILSEQ, errno.EBADMSG, errno.ENODATA, errno.EUCLEAN, errno.EISDIR, errno.ELOOP}
)


def file_error(action: str, path: Path, error: OSError) -> StorageError:
    """Return the error for an ``OSError`` while doing ``action`` to content: :class:`BytesLost` if the
    content is to blame, else :class:`StorageError`."""
    found = storage_error(action, path, error)
    return BytesLost(found.message, hint=found.hint) if error.errno in BROKEN else found
