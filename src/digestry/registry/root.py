"""The registry's root directory: its locks, and the checks before it is served."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Final

from digestry.backend import open_blobs
from digestry.blobs.protocols import BlobStore
from digestry.catalog.sqlite.database import FILE, connect_directly, failures
from digestry.errors import Conflict, InvalidConfiguration
from digestry.fsio import storage_errors

log: Final = logging.getLogger("digestry.registry")

RESTORING: Final = "restoring"
"""The folder of a root that a backup is being restored to. It goes when all the rest is there."""

BACKUP_LOCK: Final = "backup.lock"
"""In a directory that holds a backup, finished or not."""


def check_servable(root: Path) -> None:
    """Raise :class:`Conflict` for a directory that looks like a root and is not one."""
    if (root / RESTORING).exists():
        raise Conflict(
            f"{root} is not complete: a backup is being restored to it, or that was broken off",
            hint="digestry restore-backup, once more, starts again from the beginning",
        )
    if (root / BACKUP_LOCK).exists():
        raise Conflict(
            f"{root} is a backup of a registry, which serving would change",
            hint=f"digestry restore-backup {root} --root DIRECTORY, and serve that",
        )
    if _empty(root / FILE) and next(open_blobs(root).digests(), None) is not None:
        # With a new one, the next collection would remove all of it.
        raise Conflict(
            f"{root} has content, and no catalog that says whose it is: {FILE} is lost, or on a disk that is"
            " not there",
            hint="put it back, or restore a backup to a new directory; to begin anew, remove its blobs",
        )


def _empty(catalog: Path) -> bool:
    with storage_errors("look at", catalog):
        try:
            return catalog.stat().st_size == 0
        except FileNotFoundError:
            return True


def check_catalog(root: Path, blobs: BlobStore) -> None:
    """Raise :class:`Conflict` for a catalog from before there were IDs, beside blobs that have one."""
    if _empty(root / FILE):
        return
    with contextlib.closing(connect_directly(root / FILE)) as connection, failures(root / FILE):
        (known,) = connection.execute(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'identity'"
        ).fetchone()
    if not known and blobs.mark() is not None:
        raise Conflict(
            f"the blobs under {root} have the ID of a registry, and the catalog beside them has none: it is"
            " another registry's, or older",
            hint="put the right one back, or restore a backup; if they belong together all the same, remove"
            f" {blobs.mark_location}",
        )


def warn_of_owner(root: Path) -> None:
    """Log a warning if the files that this server will make exclude the root's former user."""
    with contextlib.suppress(OSError):
        owner = (root / FILE).stat().st_uid
        if os.geteuid() != owner:
            log.warning(
                "%s belongs to another user (number %d), who cannot read what this server makes there:"
                " serve it as that user, or give all of it to this one (chown -R %d)",
                root,
                owner,
                os.geteuid(),
            )


def check_user(root: Path) -> None:
    """Raise :class:`InvalidConfiguration` if the server could not write to this user's files."""
    owner = (root / FILE).stat().st_uid
    if os.geteuid() != owner:
        raise InvalidConfiguration(
            f"{root} belongs to another user (number {owner})",
            hint="call it as the user that serves the registry, such as with sudo -u",
        )
