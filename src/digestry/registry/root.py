"""The registry's directory as a whole: who has it, and whether it is one that may be served."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from digestry.blobs.disk import DiskBlobs
from digestry.catalog.database import FILE
from digestry.errors import Conflict, InvalidConfiguration
from digestry.fsio import storage_errors

LOCK_FILE: Final = "serve.lock"
"""Locked by whoever serves the root, or makes it anew."""

RESTORING: Final = "restoring"
"""The folder of a root that a backup is being restored to. It goes when all the rest is there."""

BACKUP_LOCK: Final = "backup.lock"
"""In a directory that holds a backup, finished or not."""


def check_servable(root: Path) -> None:
    """Raises :class:`Conflict` for a directory that looks like a root and is none."""
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
    if _empty(root / FILE) and next(DiskBlobs(root).digests(), None) is not None:
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


def check_user(root: Path) -> None:
    """Raises :class:`InvalidConfiguration` for a user whose files the server could not write to."""
    owner = (root / FILE).stat().st_uid
    if os.geteuid() != owner:
        raise InvalidConfiguration(
            f"{root} belongs to another user (number {owner})",
            hint="call it as the user that serves the registry, such as with sudo -u",
        )
