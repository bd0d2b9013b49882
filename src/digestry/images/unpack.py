"""Unpacking an image into a directory, whatever its layers try (image-spec, layer.md).

Owners are not set, so that it needs no root; set-uid bits and extended attributes are dropped;
devices, and paths that lead out, are refused. Nothing is at the destination before everything was
unpacked and verified.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digestry.errors import Conflict, ContentError, TooLarge
from digestry.fsio import storage_error, storage_errors
from digestry.images.inflate import LayerStream
from digestry.images.store import ImageStore
from digestry.images.tree import Tree
from digestry.images.untar import TarEntry, TarReader
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest, shown
from digestry.model.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an image may unpack to: bytes of all files, and entries, over all layers."""

    size: int = 64 << 30
    entries: int = 2_000_000


def unpack(store: ImageStore, image: Manifest, destination: Path, limits: Limits | None = None) -> None:
    """Makes ``destination``, which must not exist or be empty, the root file system of ``image``.

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
            raise Conflict(f"{destination} is there already, and not empty", hint="choose another directory")
    work = destination.with_name(f".{destination.name}.{secrets.token_hex(6)}")
    budget = _Budget(limits or Limits())
    try:
        with storage_errors("create", work):
            work.mkdir(parents=True)
        for descriptor, diff_id in zip(layers, config.diff_ids, strict=True):
            _unpack_layer(store, descriptor, diff_id, work, budget)
        with storage_errors("create", destination):
            work.replace(destination)
    except BaseException:
        _remove_tree(work)
        raise


def _remove_tree(path: Path) -> None:
    def force(function: Callable[..., Any], name: str, _: Any) -> None:
        # A directory without its owner's permissions, as a layer may have it.
        with contextlib.suppress(OSError):
            Path(name).parent.chmod(0o700)
            Path(name).chmod(0o700)
            function(name)

    shutil.rmtree(path, onerror=force)


class _Budget:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._size = 0
        self._entries = 0

    def take(self, entry: TarEntry) -> None:
        self._entries += 1
        self._size += entry.size
        if self._entries > self._limits.entries:
            raise TooLarge(
                f"the image has more than {self._limits.entries} files", limit=self._limits.entries
            )
        if self._size > self._limits.size:
            raise TooLarge(
                f"the image unpacks to more than {self._limits.size} bytes", limit=self._limits.size
            )


def _unpack_layer(
    store: ImageStore, descriptor: Descriptor, diff_id: Digest, root: Path, budget: _Budget
) -> None:
    with store.blobs.open(descriptor.digest) as file, Tree(root) as tree:
        layer = LayerStream(file, descriptor, diff_id)
        reader = TarReader(layer.read)
        for entry in reader:
            budget.take(entry)
            try:
                tree.apply(entry, reader)
            except OSError as error:
                if error.errno in {errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST, errno.EINVAL}:
                    raise ContentError(
                        f"layer {descriptor.digest}: {shown(entry.name)} cannot be there: {error.strerror}"
                    ) from error
                raise storage_error("unpack", root / os.fsdecode(entry.name), error) from error
        layer.finish()
        with storage_errors("unpack", root):
            tree.finish()
