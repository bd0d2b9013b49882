"""Unpacking an image into a directory; its layers are not trusted (image-spec, layer.md).

Owners are not set, so that it needs no root; set-uid bits and extended attributes are dropped;
devices, and paths that lead out, are refused. Nothing is at the destination before everything was
unpacked and verified.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from digestry.errors import Conflict, ContentError
from digestry.fsio import storage_error, storage_errors
from digestry.images.directory_removal import DIRECTORY_FLAGS, remove_tree
from digestry.images.layer_stream import LayerStream
from digestry.images.limits import Budget, Limits
from digestry.images.root_filesystem import RootFilesystem
from digestry.images.store import ImageStore
from digestry.images.tar_reader import TarReader
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest, shown
from digestry.model.manifest import Manifest

_RANDOM: Final = 6
_ENTRY_IS_WRONG: Final = frozenset(
    {errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST, errno.EINVAL, errno.ENAMETOOLONG, errno.EMLINK}
)


def unpack(store: ImageStore, image: Manifest, destination: Path, limits: Limits | None = None) -> None:
    """Make ``destination``, which must not exist or be empty, the root file system of ``image``.

    Raises :class:`Conflict` if it is neither, :class:`ContentError` for layers that are damaged,
    malicious or no archives, :class:`TooLarge`, :class:`NotFound` if a layer is not in the store,
    :class:`StorageError`.
    """
    config = store.config(image)
    layers = image.layers
    if len(layers) != len(config.diff_ids):
        raise ContentError(f"{image.digest} has {len(layers)} layers, but its config {len(config.diff_ids)}")
    with storage_errors("look at", destination):
        if destination.is_symlink() or (
            destination.exists() and not (destination.is_dir() and not any(destination.iterdir()))
        ):
            raise Conflict(f"{destination} exists already, and is not empty", hint="choose another directory")
    budget = Budget(limits or Limits())
    with _work_beside(destination) as work:
        for descriptor, diff_id in zip(layers, config.diff_ids, strict=True):
            _unpack_layer(store, descriptor, diff_id, work, budget)
        with storage_errors("create", destination):
            work.replace(destination)


@contextlib.contextmanager
def _work_beside(destination: Path) -> Iterator[Path]:
    """Make a locked directory beside ``destination``, and remove it after the block unless it was renamed.

    One that a kill left there, which nobody holds any more, is removed first.
    """
    parent = destination.parent
    with storage_errors("create", destination):
        parent.mkdir(parents=True, exist_ok=True)
        for left in _left_behind(destination):
            with contextlib.suppress(OSError):
                _remove_if_unlocked(left)
        work = parent / f".{destination.name}.{secrets.token_hex(_RANDOM)}"
        work.mkdir()
    lock = -1
    try:
        with storage_errors("create", work):
            lock = os.open(work, DIRECTORY_FLAGS)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield work
    except BaseException:
        with contextlib.suppress(OSError):
            remove_tree(work)
        raise
    finally:
        if lock >= 0:
            os.close(lock)


def _left_behind(destination: Path) -> list[Path]:
    ours = re.compile(rf"\.{re.escape(destination.name)}\.[0-9a-f]{{{2 * _RANDOM}}}")
    return [path for path in destination.parent.iterdir() if ours.fullmatch(path.name)]


def _remove_if_unlocked(path: Path) -> None:
    lock = os.open(path, DIRECTORY_FLAGS)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_tree(path)
    finally:
        os.close(lock)


def _unpack_layer(
    store: ImageStore, descriptor: Descriptor, diff_id: Digest, root: Path, budget: Budget
) -> None:
    with store.blobs.open(descriptor.digest) as file, RootFilesystem(root) as tree:
        layer = LayerStream(file, descriptor, diff_id, budget.of(descriptor))
        reader = TarReader(layer.read)
        for entry in reader:
            budget.take(entry)
            try:
                tree.apply(entry, reader)
            except OSError as error:
                if error.errno in _ENTRY_IS_WRONG:
                    raise ContentError(
                        f"layer {descriptor.digest}: {shown(entry.name)} cannot be there: {error.strerror}"
                    ) from error
                raise storage_error("unpack", root / os.fsdecode(entry.name), error) from error
        layer.finish()
        with storage_errors("unpack", root):
            tree.finish()
