"""The root file system of an image as one tar archive, made of its layers without unpacking them."""

from __future__ import annotations

from collections.abc import Iterator

from digestry.errors import ContentError
from digestry.images import tar_reader
from digestry.images.layer_stream import LayerStream, check_layers
from digestry.images.limits import Budget, Limits
from digestry.images.merged_tree import MergedTree, Position, Survivors
from digestry.images.store import ImageStore
from digestry.images.tar_headers import emptied, renamed
from digestry.images.tar_reader import TarEntry, TarReader
from digestry.images.tar_writer import END, header, padding
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Image

_DEVICES = frozenset({b"3", b"4", b"6"})


def export(store: ImageStore, image: Image, limits: Limits | None = None) -> Iterator[bytes]:
    """Yield the root file system of ``image`` as a tar archive.

    Entries are those of the layers, byte for byte: owners, modes, times, extended attributes and devices
    stay. All layers are read twice; before the first byte comes, everything was verified. Raises
    :class:`~digestry.errors.ContentError` for layers that are damaged, malicious or no archives,
    :class:`~digestry.errors.TooLarge`, :class:`~digestry.errors.NotFound` if a layer is not in the store,
    :class:`~digestry.errors.StorageError`, all of them while iterating.
    """
    config = store.config(image)
    check_layers(image, config)
    layers = list(zip(image.layers, config.diff_ids, strict=True))
    limits = limits or Limits()
    tree = MergedTree()
    for position, entry, _ in _entries(store, layers, limits):
        tree.add(entry, position)
    survivors = tree.survivors()
    del tree
    for position, entry, reader in _entries(store, layers, limits):
        yield from _written(position, entry, reader, survivors)
    yield END


def _entries(
    store: ImageStore, layers: list[tuple[Descriptor, Digest]], limits: Limits
) -> Iterator[tuple[Position, TarEntry, TarReader]]:
    """Yield each entry with its position, the lowest layer first, and the reader of its content."""
    budget = Budget(limits)
    for layer, (descriptor, diff_id) in enumerate(layers):
        with store.blobs.open(descriptor.digest) as file:
            stream = LayerStream(file, descriptor, diff_id, budget.of(descriptor))
            reader = TarReader(stream.read, keep_blocks=True)
            for number, entry in enumerate(reader):
                budget.take(entry)
                yield (layer, number), entry, reader
            stream.finish()


def _written(position: Position, entry: TarEntry, reader: TarReader, survivors: Survivors) -> Iterator[bytes]:
    """Yield what goes out for an entry; nothing for one that is not there at the end."""
    target = survivors.relinked.get(position)
    if target is not None:
        mode = entry.mode & 0o7777
        mtime = int(min(max(entry.mtime, 0), 2**33 - 1))
        name = entry.name.rstrip(b"/")
        yield header(name, tar_reader.HARD_LINK, mode=mode, size=0, mtime=mtime, link=target)
        return
    name_now = survivors.renamed.get(position)
    if name_now is None and position not in survivors.whole:
        return
    blocks = entry.blocks if name_now is None else renamed(entry.blocks, name_now)
    if entry.kind not in tar_reader.REGULAR:
        if entry.size and entry.kind in _DEVICES:
            raise ContentError("the archive has a device with content")
        yield emptied(blocks)
        return
    yield blocks
    yield from reader.content()
    yield padding(entry.size)
