"""Unpacking an image into a directory; its layers are not trusted (image-spec, layer.md).

Owners are set, devices made, set-uid bits and extended attributes kept only where that is asked for, and by
root. Paths that lead out are refused. Nothing is at the destination before everything was unpacked and
verified.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from digestry.errors import Conflict, ContentError, StorageError
from digestry.fsio import storage_error, storage_errors
from digestry.images.directory_removal import DIRECTORY_FLAGS, remove_tree
from digestry.images.file_attributes import SkippedEntries, SkippedEntry
from digestry.images.layer_stream import LayerStream, check_layers
from digestry.images.limits import Budget, Limits
from digestry.images.root_filesystem import RootFilesystem
from digestry.images.store import ImageStore
from digestry.images.tar_reader import TarReader
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest, shown
from digestry.model.manifest import Manifest

_RANDOM: Final = 6
_ROOT_MODE: Final = 0o755  # of a root directory that no layer has an entry for
_ENTRY_IS_WRONG: Final = frozenset(
    {errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST, errno.EINVAL, errno.ENAMETOOLONG, errno.EMLINK}
)


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What was unpacked: the number of entries, and those that were skipped.

    The first thousand that were ``skipped`` are named; ``more_skipped`` is the number of the others.
    """

    entries: int
    skipped: tuple[SkippedEntry, ...]
    more_skipped: int


def unpack(
    store: ImageStore,
    image: Manifest,
    destination: Path,
    limits: Limits | None = None,
    *,
    same_owner: bool = False,
) -> Unpacked:
    """Make ``destination``, which must not exist or be empty, the root file system of ``image``.

    With ``same_owner`` files have the owners, permissions and extended attributes of the layers, and devices
    are made: that needs root, or the capabilities for it. Without it files are this process's, without
    set-uid bits, and devices and FIFOs are skipped. Raises :class:`Conflict` for another destination,
    :class:`ContentError` for layers that are damaged, malicious or no archives, :class:`TooLarge`,
    :class:`NotFound` if a layer is not in the store, :class:`StorageError`.
    """
    config = store.config(image)
    layers = image.layers
    check_layers(image, config)
    check_destination(destination)
    budget = Budget(limits or Limits())
    skipped = SkippedEntries()
    with _work_beside(destination) as work:
        root = work / "root"
        with storage_errors("create", destination):
            root.mkdir()
            if same_owner:
                root.chmod(_ROOT_MODE)
        for descriptor, diff_id in zip(layers, config.diff_ids, strict=True):
            with RootFilesystem(root, skipped, same_owner=same_owner) as tree:
                _unpack_layer(store, descriptor, diff_id, tree, budget=budget, root=root)
        with storage_errors("create", destination):
            root.replace(destination)
    return Unpacked(budget.entries, tuple(skipped.named), skipped.count - len(skipped.named))


def check_destination(destination: Path) -> None:
    """Raise :class:`Conflict` unless ``destination`` does not exist, or is an empty directory."""
    with storage_errors("look at", destination):
        if destination.is_symlink() or (
            destination.exists() and not (destination.is_dir() and not any(destination.iterdir()))
        ):
            raise Conflict(f"{destination} exists already, and is not empty", hint="choose another directory")


@contextlib.contextmanager
def _work_beside(destination: Path) -> Iterator[Path]:
    """Make a locked directory beside ``destination``, which its owner alone can enter, and remove it after.

    One that a kill left there, which nobody holds any more, is removed first.
    """
    parent = destination.parent
    with storage_errors("create", destination):
        parent.mkdir(parents=True, exist_ok=True)
        for left in _left_behind(destination):
            with contextlib.suppress(OSError):
                _remove_if_unlocked(left)
        work = parent / f".{destination.name}.{secrets.token_hex(_RANDOM)}"
        work.mkdir(mode=0o700)
    lock = -1
    try:
        with storage_errors("create", work):
            lock = os.open(work, DIRECTORY_FLAGS)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield work
    finally:
        with contextlib.suppress(OSError):
            remove_tree(work)
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
    store: ImageStore,
    descriptor: Descriptor,
    diff_id: Digest,
    tree: RootFilesystem,
    *,
    budget: Budget,
    root: Path,
) -> None:
    with store.blobs.open(descriptor.digest) as file:
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
                raise _refused(root / os.fsdecode(entry.name), error, same_owner=tree.same_owner) from error
        layer.finish()
        with storage_errors("unpack", root):
            tree.finish()


def _refused(path: Path, error: OSError, *, same_owner: bool) -> StorageError:
    if same_owner and error.errno == errno.EPERM:
        return StorageError(
            f"cannot unpack {path} for its owner: {error.strerror}",
            hint="only root may do that; --no-same-owner makes all files yours",
        )
    return storage_error("unpack", path, error)
