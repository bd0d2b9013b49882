"""The registry's root directory: its locks, and the checks before it is served."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Final

from digestry.backend import Backend
from digestry.blobs.protocols import BlobStore
from digestry.errors import Conflict, InvalidConfiguration

log: Final = logging.getLogger("digestry.registry")

RESTORING: Final = "restoring"
"""The folder of a root that a backup is being restored to. It goes when all the rest is there."""

BACKUP_LOCK: Final = "backup.lock"
"""In a directory that holds a backup, finished or not."""


def check_root(root: Path) -> None:
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


def check_content(backend: Backend) -> None:
    """Raise :class:`Conflict` for content without the catalog that says whose it is."""
    catalog = backend.catalog_store
    if catalog.is_empty() and _has_content(backend.blobs):
        # With a new one, the next collection would remove all of it.
        raise Conflict(
            f"{backend.blobs.location} has content, and no catalog that says whose it is:"
            f" {catalog.describe()} is empty, lost, or on a disk that is not there",
            hint="name the catalog that it belongs to, put it back, or restore a backup to a new place; a new"
            " registry needs a directory or a prefix of its own; to begin anew there, remove its blobs",
        )


def _has_content(blobs: BlobStore) -> bool:
    """Return whether a store has content, or had: where the catalog lists it, only the mark is left."""
    return blobs.mark() is not None or (
        not blobs.is_listed_in_catalog and next(blobs.digests(), None) is not None
    )


def check_catalog(backend: Backend) -> None:
    """Raise :class:`Conflict` for a catalog from before there were IDs, beside blobs that have one."""
    catalog, blobs = backend.catalog_store, backend.blobs
    if catalog.is_empty():
        return
    if catalog.identity() is None and blobs.mark() is not None:
        raise Conflict(
            f"the blobs under {blobs.location} have the ID of a registry, and the catalog beside them has"
            " none: it is another registry's, or older",
            hint="put the right one back, or restore a backup; if they belong together all the same, remove"
            f" {blobs.mark_location}",
        )


def warn_of_owner(backend: Backend) -> None:
    """Log a warning if the files that this server will make exclude the root's former user."""
    with contextlib.suppress(OSError):
        owner = backend.catalog_store.owner()
        if owner not in {None, os.geteuid()}:
            log.warning(
                "%s belongs to another user (number %d), who cannot read what this server makes there:"
                " serve it as that user, or give all of it to this one (chown -R %d)",
                backend.location,
                owner,
                os.geteuid(),
            )


def check_user(backend: Backend) -> None:
    """Raise :class:`InvalidConfiguration` if the server could not write to this user's files."""
    owner = backend.catalog_store.owner()
    if owner not in {None, os.geteuid()}:
        raise InvalidConfiguration(
            f"{backend.location} belongs to another user (number {owner})",
            hint="call it as the user that serves the registry, such as with sudo -u",
        )
