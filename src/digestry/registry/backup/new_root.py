"""The new root that a restoration builds: it cannot be served until it is complete."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from digestry import fsio
from digestry.backend import Backend, catalog_file
from digestry.blobs.layout_version import LAYOUT_FILE
from digestry.catalog.store import CatalogFile
from digestry.coordination import key_files
from digestry.coordination.files import lock_file
from digestry.coordination.protocol import Job
from digestry.errors import Conflict
from digestry.model.digest import shown
from digestry.registry.permissions import is_shared, make_private
from digestry.registry.root import RESTORING

_LOCK: Final = lock_file(Job.SERVE)
_STAYS: Final = frozenset({_LOCK, "lost+found"})
_OURS: Final = re.compile(
    # Including the files that fsio.write_file leaves when it is killed.
    rf"{RESTORING}|blobs|ingest|guards|{key_files.DIRECTORY}"
    rf"|{re.escape(LAYOUT_FILE)}|\.{re.escape(LAYOUT_FILE)}\.[0-9a-f]{{16}}"
)
"""All that a restoration puts into a root, beside the catalog."""


@contextlib.contextmanager
def new_root(backend: Backend, root: Path) -> Iterator[CatalogFile]:
    """Make ``root``, the directory of ``backend``, and yield where its catalog is staged: in a folder that
    keeps the root from being served.

    At the end of the block the catalog moves from the folder to its place, and the folder is removed. If
    the block raises, the whole root is removed. The next restoration removes what a killed one left.
    Raises :class:`Conflict` if ``root`` has anything else in it, or for a catalog that is not a file, and
    :class:`StorageError`.
    """
    catalog = backend.catalog_store.as_file()
    new = not root.exists()
    _check_empty(root, catalog.path.name)
    fsio.make_directory(root)
    staging = root / RESTORING
    with backend.coordination.only_one(Job.SERVE, held=f"{root} is in use by another digestry"):
        _check_empty(root, catalog.path.name)
        _clear(root, catalog.path.name)
        make_private(root, group=is_shared(root))
        with fsio.storage_errors("create", staging):
            staging.mkdir(mode=0o700)
        fsio.sync_directory(root)
        try:
            yield catalog_file(staging)
            catalog.install(staging)
            with fsio.storage_errors("remove", staging):
                shutil.rmtree(staging)
            fsio.sync_directory(root)
        except BaseException:
            with contextlib.suppress(OSError):  # the caller must get the earlier error
                _clear(root, catalog.path.name)
                (root / _LOCK).unlink()
                if new:
                    root.rmdir()
            raise


def _check_empty(root: Path, catalog: str) -> None:
    with fsio.storage_errors("list", root):
        try:
            names = set(os.listdir(root))  # noqa: PTH208 - a few names
        except FileNotFoundError:
            return
    if RESTORING not in names and names - _STAYS:
        raise Conflict(f"{root} is not empty", hint="restore to a new directory")
    for name in sorted(names - _STAYS):
        if not _is_ours(name, catalog):
            raise Conflict(
                f"{root} has {shown(name)} in it, which no restoration made",
                hint="move it elsewhere, or restore to a new directory",
            )


def _is_ours(name: str, catalog: str) -> bool:
    return _OURS.fullmatch(name) is not None or name == catalog


def _clear(root: Path, catalog: str) -> None:
    """Remove what a restoration made, and last the folder that marks the root as unfinished."""
    for path in root.iterdir():
        if path.name == RESTORING or not _is_ours(path.name, catalog):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    if (root / RESTORING).exists():
        shutil.rmtree(root / RESTORING)
