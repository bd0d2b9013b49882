"""The index of an OCI image layout, ``index.json``: names and their descriptors (image-layout.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from digestry.errors import ContentError, InvalidReference
from digestry.fsio import storage_errors, write_file
from digestry.model import media_types
from digestry.model.descriptor import Descriptor, decode_hook
from digestry.model.digest import Digest
from digestry.model.json_types import prepared
from digestry.model.manifest import encode
from digestry.model.reference import Reference

INDEX_FILE: Final = "index.json"
NAME: Final = "org.opencontainers.image.ref.name"


class LayoutEntry(msgspec.Struct, frozen=True):
    """A name and its descriptor; ``name`` is None if another tool listed content without one."""

    name: str | None
    descriptor: Descriptor

    @property
    def reference(self) -> Reference | None:
        """The name as a reference; None for a name, of another tool, that is not a full one."""
        if self.name is None:
            return None
        try:
            reference = Reference.parse(self.name)
        except InvalidReference:
            return None
        return reference if str(reference) == self.name else None


class _ReadIndex(msgspec.Struct, frozen=True):
    """The document, where its entries are all that is wanted."""

    manifests: tuple[Descriptor, ...]


def read_entries(root: Path) -> list[LayoutEntry]:
    """Return the entries of ``ROOT/index.json``, in their order. Raises as :meth:`Layout.read` does."""
    path = root / INDEX_FILE
    with storage_errors("read", path):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return []
    try:
        found = msgspec.json.decode(content, type=prepared(_ReadIndex), dec_hook=decode_hook).manifests
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Layout.read(root).entries()  # which says what is wrong
    return [LayoutEntry(one.annotations.get(NAME) if one.annotations else None, one) for one in found]


class Layout:
    """The document. It is changed in memory, then written whole; the fields of other tools stay."""

    def __init__(self, path: Path, document: dict[str, Any]) -> None:
        self._path = path
        # Any: other tools wrote it, and their fields must stay as they are.
        self._document = document
        self._items: list[dict[str, Any]] = document["manifests"]
        self.changed = False
        """Whether a name or an entry was changed since it was read."""
        self._read: list[LayoutEntry] | None = None  # until something is changed

    @classmethod
    def read(cls, root: Path) -> Layout:
        """Read ``ROOT/index.json``; without such a file, return an empty layout.

        Raises :class:`ContentError` if it is not an index, :class:`StorageError` if it is unreadable.
        """
        path = root / INDEX_FILE
        with storage_errors("read", path):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                content = b'{"schemaVersion":2,"manifests":[]}'
        try:
            document = msgspec.json.decode(content, type=dict[str, Any])
            layout = cls(path, document)
            layout._read = layout.entries()
        except (
            msgspec.DecodeError,
            UnicodeDecodeError,
            RecursionError,
            KeyError,
            TypeError,
            AttributeError,
        ) as error:
            raise ContentError(
                f"{path} is not the index of an image layout: {error}",
                hint="correct it by hand, or move it away and pull the images again: their blobs are kept",
            ) from error
        return layout

    def entries(self) -> list[LayoutEntry]:
        """Return its entries, in its order."""
        if self._read is not None:
            return list(self._read)
        return [
            LayoutEntry(
                (item.get("annotations") or {}).get(NAME),
                msgspec.convert(item, prepared(Descriptor), dec_hook=decode_hook),
            )
            for item in self._items
        ]

    def set_name(self, name: str, descriptor: Descriptor) -> Digest | None:
        """Point ``name`` to ``descriptor``, and return its previous digest."""
        self._read = None
        before: Digest | None = None
        new: dict[str, object] = {
            "mediaType": descriptor.media_type,
            "digest": str(descriptor.digest),
            "size": descriptor.size,
            "annotations": {NAME: name},
        }
        for position, item in enumerate(self._items):
            if (item.get("annotations") or {}).get(NAME) == name:
                before = Digest.parse(item["digest"])
                if before != descriptor.digest:
                    self._items[position] = new
                    self.changed = True
                return before
        self._items.append(new)
        self.changed = True
        return None

    def add_unnamed(self, descriptor: Descriptor) -> None:
        """List ``descriptor``, without a name, unless its digest is listed already."""
        self._read = None
        digest = str(descriptor.digest)
        if all(item["digest"] != digest for item in self._items):
            self._items.append(
                {"mediaType": descriptor.media_type, "digest": digest, "size": descriptor.size}
            )

    def remove_name(self, name: str) -> bool:
        """Remove ``name``, and return whether it was there."""
        self._read = None
        kept = [item for item in self._items if (item.get("annotations") or {}).get(NAME) != name]
        dropped = len(kept) != len(self._items)
        self._items[:] = kept
        self.changed = self.changed or dropped
        return dropped

    def remove_entry(self, entry: LayoutEntry) -> bool:
        """Remove the entries of ``entry``'s digest under its name; return whether there were any."""
        self._read = None
        digest = str(entry.descriptor.digest)
        kept = [
            item
            for item in self._items
            if (item.get("annotations") or {}).get(NAME) != entry.name or item["digest"] != digest
        ]
        dropped = len(kept) != len(self._items)
        self._items[:] = kept
        self.changed = self.changed or dropped
        return dropped

    def write(self) -> None:
        """Write the document durably. Raises :class:`StorageError`."""
        self._document.setdefault("mediaType", media_types.OCI_INDEX)
        write_file(self._path, encode(self._document))
